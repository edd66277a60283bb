"""What connections tell about the peers: when each was last heard, and where it says that it can be dialled.

Runs on the event loop.
"""

from __future__ import annotations

from metasrv.model.types import Endpoint
from metasrv.process.clock import Clock
from metasrv.raft.peers.handshake import RemoteIdentity


class PeerContacts:
    """Last contact and announced endpoint by node id; holds only nodes that finished a handshake."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_at: dict[int, float] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._directories: dict[int, str] = {}

    def introduced(self, remote: RemoteIdentity) -> None:
        """A handshake with `remote` is over."""
        if remote.node_id is not None:
            self._heard_at[remote.node_id] = self._clock.monotonic()
            self._endpoints[remote.node_id] = remote.endpoint
            self._directories[remote.node_id] = remote.incarnation

    def heard(self, node_id: int) -> None:
        self._heard_at[node_id] = self._clock.monotonic()

    def forget(self, node_id: int) -> None:
        self._heard_at.pop(node_id, None)
        self._endpoints.pop(node_id, None)

    def last_contact(self, node_id: int) -> float | None:
        return self._heard_at.get(node_id)

    def endpoint(self, node_id: int) -> Endpoint | None:
        return self._endpoints.get(node_id)

    def directory(self, node_id: int) -> str | None:
        return self._directories.get(node_id)
