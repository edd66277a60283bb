"""Which connections there is room for, and which give way to a new one. Runs on the event loop.

A connection on which no valid token was shown yet gives its place to a new one, the oldest first, and one without calls
before others. Clients show theirs within their first call; probes and what lies idle for its own sake never do.
"""

from __future__ import annotations

from itertools import islice
from typing import Generic, Protocol, TypeVar

from metasrv.grpc_api.http2.portions import Portions, Standing

LOOKED_AT_MAX = 8
"""The oldest connections among which one without calls is looked for."""


class AdmittedConnection(Protocol):
    """A connection, as admission sees it."""

    host: str
    is_near: bool
    """Whether its client is on this machine or a member's."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no calls."""

    def displace(self) -> None:
        """Close: another one gets the place."""


Connection = TypeVar("Connection", bound=AdmittedConnection)


class Admission(Generic[Connection]):
    """The connections of one server."""

    def __init__(self, portions: Portions) -> None:
        self.portions = portions
        self.connections: set[Connection] = set()
        self.displaced = 0
        """How many gave their place to another so far."""
        self._by_host: dict[str, int] = {}
        self._strangers: dict[Connection, None] = {}
        """Without a valid token, the oldest first."""
        self._strangers_by_host: dict[str, dict[Connection, None]] = {}

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for a new connection, if need be in the place of another one."""
        host = connection.host
        # Nobody has shown a token yet: what remains at the end is for the machines of the cluster.
        standing = Standing.MEMBER if connection.is_near else Standing.CLIENT
        own = self._by_host.get(host, 0) + 1
        if self.portions.refuses(standing, len(self.connections) + 1, own):
            is_own_share = own > self.portions.each[standing]
            pool = self._strangers_by_host.get(host) if is_own_share else self._strangers
            if not pool:
                return False
            oldest = list(islice(pool, LOOKED_AT_MAX))
            displaced = next((one for one in oldest if one.is_idle), oldest[0])
            self.lost(displaced)
            self.displaced += 1
            displaced.displace()
        self.connections.add(connection)
        self._by_host[host] = self._by_host.get(host, 0) + 1
        self._strangers[connection] = None
        self._strangers_by_host.setdefault(host, {})[connection] = None
        return True

    def proved(self, connection: Connection) -> None:
        """A valid token was shown: the connection keeps its place."""
        if self._strangers.pop(connection, 0) is None:
            strangers = self._strangers_by_host[connection.host]
            del strangers[connection]
            if not strangers:
                del self._strangers_by_host[connection.host]

    def lost(self, connection: Connection) -> None:
        """The connection is closed, or was never admitted, or gives its place to another."""
        if connection not in self.connections:
            return
        self.proved(connection)
        self.connections.discard(connection)
        self._by_host[connection.host] -= 1
        if not self._by_host[connection.host]:
            del self._by_host[connection.host]
