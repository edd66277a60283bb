"""A transport that only asks: for the one-shot leave request, which opens no store and no listener."""

from __future__ import annotations

from metasrv.config.model import RaftConfig
from metasrv.process.clock import Clock
from metasrv.raft.observer import SilentObserver
from metasrv.raft.peers.peer_handler import OneShotHandler
from metasrv.raft.peers.transport import LocalIdentity, PeerSecurity, PeerTransport


def one_shot_transport(raft: RaftConfig, clock: Clock) -> PeerTransport:
    """A transport without identity, for requests to an address; the caller closes it."""
    identity = LocalIdentity(None, "", raft.raft_advertise_endpoint, None)
    return PeerTransport(identity, PeerSecurity.from_config(raft), OneShotHandler(), SilentObserver(), clock)
