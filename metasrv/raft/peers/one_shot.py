"""A transport that only asks: for the one-shot leave request, which opens no store and no listener."""

from __future__ import annotations

from metasrv.config.model import RaftConfig
from metasrv.model.errors import InvalidRequestError
from metasrv.process.clock import Clock
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peers.transport import LocalIdentity, PeerSecurity, PeerTransport, RemoteIdentity


class _NobodyHome:
    """Hears what a transport tells its handler and does nothing with it."""

    def peer_connected(self, node_id: int) -> None:
        del node_id

    def peer_disconnected(self, node_id: int) -> None:
        del node_id

    def peer_lost(self, node_id: int) -> None:
        del node_id

    def message_received(self, node_id: int, generation: int, payload: bytes | memoryview) -> None:
        del node_id, generation, payload

    def admit(self, remote: RemoteIdentity) -> str | None:
        del remote
        return None

    async def request_received(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        del remote, payload
        raise InvalidRequestError(f"this process answers no {method} requests")


def one_shot_transport(raft: RaftConfig, clock: Clock) -> PeerTransport:
    """A transport without identity, for requests to an address; the caller closes it."""
    identity = LocalIdentity(None, "", raft.raft_advertise_endpoint, None)
    return PeerTransport(identity, PeerSecurity.from_config(raft), _NobodyHome(), SilentObserver(), clock)
