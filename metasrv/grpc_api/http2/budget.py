"""How many bytes one server keeps for all its clients together, and for those of one address (invariant 10).

Counts large metadata, requests from their first piece until their handler is done, responses that wait until their client
takes them, and what stands in full sockets. Small calls are none of these. Counting and finding who keeps much cost the
same with one connection and with thousands. Pure.
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from metasrv.grpc_api.http2.portions import Portions, Standing

LOOKED_AT_MAX = 8
"""Connections of the largest size that are compared, to find the one that keeps the most."""


class ByteHolder(Protocol):
    """A connection, as the budget sees it."""

    @property
    def held_bytes(self) -> int:
        """What is kept for this client."""

    def give_way(self) -> None:
        """End calls that keep much until there is room."""


class Holders:
    """Connections that keep something, by the power of two below it: no search and no sort when a size changes."""

    __slots__ = ("_by_bits",)

    def __init__(self) -> None:
        self._by_bits: dict[int, dict[ByteHolder, None]] = {}

    def move(self, holder: ByteHolder, before_bits: int, after_bits: int) -> None:
        """The size of a holder has another number of bits now; none at 0."""
        if before_bits:
            holders = self._by_bits[before_bits]
            del holders[holder]
            if not holders:
                del self._by_bits[before_bits]
        if after_bits:
            self._by_bits.setdefault(after_bits, {})[holder] = None

    def largest(self) -> ByteHolder | None:
        """A connection that keeps at least half as much as any, the largest of those looked at; None without one."""
        if not self._by_bits:
            return None
        first = islice(self._by_bits[max(self._by_bits)], LOOKED_AT_MAX)
        return max(first, key=lambda holder: holder.held_bytes)


class Account:
    """What is kept for all connections of one address and one standing."""

    __slots__ = ("connections", "holders", "key", "used_bytes")

    def __init__(self, key: tuple[str, Standing]) -> None:
        self.key = key
        self.connections = 0
        self.used_bytes = 0
        self.holders = Holders()


class Budget:
    """Bytes held, and the limits past which further ones are refused."""

    def __init__(self, portions: Portions) -> None:
        self.portions = portions
        self.used_bytes = 0
        self.holders = Holders()
        self.accounts: dict[tuple[str, Standing], Account] = {}

    @property
    def exceeded(self) -> bool:
        return self.used_bytes > self.portions.limit

    def open_account(self, host: str, standing: Standing) -> Account:
        """The account of a connection, until `leave`."""
        key = (host, standing)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account(key)
        account.connections += 1
        return account

    def leave(self, account: Account) -> None:
        """A connection counts to this account no more."""
        account.connections -= 1
        if not account.connections and self.accounts.get(account.key) is account:
            del self.accounts[account.key]

    def count(self, holder: ByteHolder, account: Account, before_bytes: int, after_bytes: int) -> None:
        """A connection keeps another number of bytes."""
        change_bytes = after_bytes - before_bytes
        self.used_bytes += change_bytes
        account.used_bytes += change_bytes
        before_bits, after_bits = before_bytes.bit_length(), after_bytes.bit_length()
        if before_bits != after_bits:
            self.holders.move(holder, before_bits, after_bits)
            account.holders.move(holder, before_bits, after_bits)

    def refuses(self, account: Account) -> bool:
        """Whether more is kept than may be, for this account or for all."""
        return self.portions.refuses(account.key[1], self.used_bytes, account.used_bytes)

    def largest(self, account: Account) -> ByteHolder | None:
        """Whose calls would have to end, so that the account gets room."""
        too_much_of_its_own = account.used_bytes > self.portions.each[account.key[1]]
        return (account if too_much_of_its_own else self).holders.largest()

    def sentence(self, account: Account) -> str:
        """Tells a client why its call is refused."""
        portions, standing = self.portions, account.key[1]
        own_bytes = portions.each[standing]
        host = account.key[0]
        if account.used_bytes > own_bytes and own_bytes < portions.limit:
            return f"this node already holds {own_bytes} bytes for the address {host}, its share; try again later"
        limit_bytes = portions.together[standing]
        return f"this node already holds {limit_bytes} bytes of requests and answers, the limit; try again later"
