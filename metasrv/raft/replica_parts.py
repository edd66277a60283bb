"""What one node's replica is given when it is made: settings, open files and threads, and whom it calls.

Knows nothing of what a replica does with them. `node/opening.py` opens the files, `node/meta_node.py` closes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metasrv.model.errors import FatalError
from metasrv.model.types import Endpoint
from metasrv.process.clock import Clock
from metasrv.process.data_directory import DataDirectory
from metasrv.process.event_ring import EventRing
from metasrv.raft.core.guards import ElectionStep
from metasrv.raft.disk_stall import DISK_STALL_MS
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.log.store import LogStore, LogWriter
from metasrv.raft.observer import RaftObserver
from metasrv.raft.peers.handshake import RemoteIdentity
from metasrv.raft.peers.peer_handler import TransportFactory
from metasrv.raft.peers.security import PeerSecurity
from metasrv.raft.peers.transport import PeerTransport
from metasrv.raft.state_log import StateLogLimits
from metasrv.state.machine import StateMachine


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """What consensus needs of the configuration."""

    endpoint: Endpoint
    heartbeat_ms: int
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    snapshot_logs_since_last: int
    max_applied_log_to_keep: int
    snapshot_chunk_size_bytes: int
    install_snapshot_timeout_ms: int
    clock_offset_max_ms: int = 1_000
    state_log: StateLogLimits = field(default_factory=StateLogLimits)
    disk_stall_ms: int = DISK_STALL_MS
    hints: tuple[Endpoint, ...] = ()
    """Where members may be when they are not where the log has them."""


@dataclass(slots=True)
class ReplicaResources:
    """What a replica works with. `node/opening.py` opens the files, `node/meta_node.py` closes them after the replica."""

    settings: RaftSettings
    directory: DataDirectory
    machine: StateMachine
    store: LogStore
    writer: LogWriter
    log_thread: Storage
    snapshot_thread: Storage
    state_thread: Storage
    security: PeerSecurity
    observer: RaftObserver
    clock: Clock
    make_transport: TransportFactory = PeerTransport
    events: EventRing = field(init=False)
    """What happens here and is worth telling."""

    def __post_init__(self) -> None:
        self.events = EventRing(self.clock)


@dataclass(frozen=True, slots=True)
class ReplicaHandlers:
    """What a replica calls of whoever is made after it, on the event loop. None is called before the driver starts."""

    answer: Callable[[str, bytes], Awaitable[bytes]]
    """Answers the request of another node: its method and payload."""
    refuse_foreign: Callable[[RemoteIdentity], str | None]
    """The reason to refuse a node with the id of a member and another data directory, or None."""
    may_stand: Callable[[], bool]
    """Whether an operator lets this node stand for election."""
    election: Callable[[ElectionStep, int, int], None]
    """As `CoreHandlers.election`."""
    timer: Callable[[float], None]
    """As `DriverHandlers.timer`."""
    role_changed: Callable[[float], None]
    """As `DriverHandlers.role_changed`."""
    fatal: Callable[[FatalError], None]
    """As `DriverHandlers.fatal`."""
    keep_up: Callable[[], None]
    """Called with each upkeep."""
