"""The calls under way on all connections of a server, divided among the addresses of clients. Runs on the event loop.

Every small call pays for the counting, so as long as there is room for anybody nothing else is looked at.
"""

from __future__ import annotations

from typing import Protocol

from metasrv.grpc_api.http2.portions import Portions, Standing


class CallingConnection(Protocol):
    """A connection, as its calls are counted."""

    host: str
    standing: Standing
    is_near: bool
    """Whether its client is on this machine or a member's."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no calls."""


class CallPlaces:
    """The calls of one server."""

    def __init__(self, portions: Portions) -> None:
        self.portions = portions
        self.in_use = 0
        """Calls under way on all connections."""
        self._by_host: dict[str, int] = {}
        self._anybody_each = portions.each[Standing.STRANGER]
        self._anybody_together = portions.together[Standing.STRANGER]

    def take(self, connection: CallingConnection) -> str | None:
        """Count one more call until `give_back`; returns why it has to be refused, None when there is room for it."""
        host = connection.host
        self.in_use = in_use = self.in_use + 1
        self._by_host[host] = own = self._by_host.get(host, 0) + 1
        if own <= self._anybody_each and in_use <= self._anybody_together:
            return None
        standing = connection.standing
        if standing is Standing.STRANGER and connection.is_idle:
            # Tokens come from a first call: strangers with many calls must not keep others from asking for theirs.
            standing = Standing.MEMBER if connection.is_near else Standing.CLIENT
        if not self.portions.refuses(standing, in_use, own):
            return None
        return self._sentence(host, standing)

    def give_back(self, connection: CallingConnection) -> None:
        """A call has ended, one that was refused as well."""
        host = connection.host
        self.in_use -= 1
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]

    def _sentence(self, host: str, standing: Standing) -> str:
        limit = self.portions.limit
        if self.in_use > limit:
            return f"this node already serves {limit} calls, the limit"
        if self.in_use > self.portions.together[standing]:
            text = f"this node serves {self.in_use - 1} calls and keeps the rest of {limit} free for others"
        else:
            text = f"the address {host} already has {self._by_host[host] - 1} calls, its share of {limit}"
        return text + ("; a client that shows a token may have more" if standing is Standing.STRANGER else "")
