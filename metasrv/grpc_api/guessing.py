"""Slows down who guesses passwords: after some wrong ones, an address waits before its next try at the same user.

Each node counts for itself. The wait doubles with each wrong password up to `WAIT_SECONDS_MAX`, and a right one ends
it. It is counted by user as well as by address, so that a client with an old password does not lock out the others of
its machine. An IPv6 address counts by its first 64 bits, because one machine has all the others. Runs on the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from math import ceil
from typing import NamedTuple

from metasrv.model.errors import OverloadedError
from metasrv.model.limits import GUESSERS_REMEMBERED_MAX

FREE_GUESSES = 5
"""Wrong passwords in a row that cost no wait."""
WAIT_SECONDS_MIN = 0.5
WAIT_SECONDS_MAX = 10.0
FORGOTTEN_SECONDS = 600.0
"""An address without a wrong password for this time begins anew."""


class _Guesser(NamedTuple):
    wrong: int
    at: float
    until: float


class Guesses:
    """The recent wrong passwords, by address and user."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._guessers: OrderedDict[tuple[str, str], _Guesser] = OrderedDict()

    def check(self, peer: str, username: str) -> None:
        """Raise OverloadedError while the address has to wait; `peer` is what gRPC calls it."""
        guesser = self._guessers.get((origin_of(peer), username))
        if guesser is None:
            return
        seconds = guesser.until - self._monotonic()
        if seconds > 0:
            raise OverloadedError(
                f"{guesser.wrong} wrong passwords of user {username} in a row from this address: "
                f"try again in {ceil(seconds)} s"
            )

    def wrong(self, peer: str, username: str) -> None:
        """Count a wrong password."""
        key = (origin_of(peer), username)
        now = self._monotonic()
        before = self._guessers.pop(key, None)
        count = 1 if before is None or now - before.at > FORGOTTEN_SECONDS else before.wrong + 1
        over = count - FREE_GUESSES
        wait = min(WAIT_SECONDS_MIN * 2 ** min(over, 16), WAIT_SECONDS_MAX) if over >= 0 else 0.0
        self._guessers[key] = _Guesser(count, now, now + wait)
        if len(self._guessers) > GUESSERS_REMEMBERED_MAX:
            self._guessers.popitem(last=False)

    def right(self, peer: str, username: str) -> None:
        """Forget what was wrong before."""
        if self._guessers:
            self._guessers.pop((origin_of(peer), username), None)


class Attempt(NamedTuple):
    """One try at one user's password, from one address."""

    guesses: Guesses
    peer: str
    """As gRPC calls it."""
    username: str

    @property
    def origin(self) -> str:
        """Who counts as one."""
        return origin_of(self.peer)

    def check(self) -> None:
        """Raise OverloadedError while the address has to wait."""
        self.guesses.check(self.peer, self.username)

    def counted(self, is_right: bool) -> bool:
        """Count how it ended; returns `is_right`."""
        count = self.guesses.right if is_right else self.guesses.wrong
        count(self.peer, self.username)
        return is_right


def origin_of(peer: str) -> str:
    """Who counts as one: an IPv4 address, the first 64 bits of an IPv6 address, without the port."""
    kind, _, address = peer.partition(":")
    if kind == "ipv4":
        return address.rpartition(":")[0]
    if kind != "ipv6":
        return peer
    host = address.replace("%5B", "[").replace("%5D", "]").rpartition("]")[0].lstrip("[")
    try:
        parsed = IPv6Address(host.partition("%")[0])
    except AddressValueError:
        return host
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
