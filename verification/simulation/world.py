"""What the machines of a simulated world share: the world, its witness, and the configuration of their nodes.

Protocols and values only: `cluster.py` is the world, `invariants.py` the witness. `P` is `machine.Process`, which this
module does not import because it stands above.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from metasrv.model.commands import Reply
from metasrv.model.entries import Entry
from metasrv.model.types import Endpoint, LogId
from metasrv.node.copies import COMPARE_SECONDS
from metasrv.node.copy_proof import ProofPace
from metasrv.node.scrubber import ROUND_PAUSE_SECONDS
from metasrv.raft.log.format import PendingWrite
from metasrv.raft.replica_parts import RaftSettings
from metasrv.raft.state_log import StateLogLimits
from verification.simulation.loop import SimulatedClock
from verification.simulation.network import Network
from verification.simulation.scheduler import Scheduler
from verification.simulation.system import SimulatedSystem

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


LOG_CHECKPOINT_SIZE_BYTES = 48 * 1024
STATE_LOG_LIMITS = StateLogLimits(
    unsynced=1024 * 1024, target=32 * 1024, kept=48 * 1024, pinned_max=1024 * 1024, free_kept=8 * 1024
)
"""Small, so that short histories meet passes, restarts, and files that are cut; but no early syncs, after which there is
little to lose."""
STATE_LOG_SIZE_BYTES_MAX = STATE_LOG_LIMITS.kept + 2 * STATE_LOG_LIMITS.target
"""No write-ahead log of a state is longer once nothing is in its way."""
PACE = ProofPace(COMPARE_SECONDS / 10, ROUND_PAUSE_SECONDS / 10)
"""A tenth of the product's times, so that short histories compare and look through their copies too."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The configuration that all nodes of a cluster share."""

    heartbeat_ms: int = 100
    election_timeout_min_ms: int = 200
    election_timeout_max_ms: int = 400
    snapshot_logs_since_last: int = 40
    max_applied_log_to_keep: int = 20
    snapshot_chunk_size_bytes: int = 16 * 1024
    install_snapshot_timeout_ms: int = 1_000
    sync_seconds: float = 0.0005
    pace: ProofPace = PACE

    def settings(self, endpoint: Endpoint, hints: tuple[Endpoint, ...]) -> RaftSettings:
        """What the product takes of it."""
        return RaftSettings(
            endpoint=endpoint,
            heartbeat_ms=self.heartbeat_ms,
            election_timeout_min_ms=self.election_timeout_min_ms,
            election_timeout_max_ms=self.election_timeout_max_ms,
            snapshot_logs_since_last=self.snapshot_logs_since_last,
            max_applied_log_to_keep=self.max_applied_log_to_keep,
            snapshot_chunk_size_bytes=self.snapshot_chunk_size_bytes,
            install_snapshot_timeout_ms=self.install_snapshot_timeout_ms,
            state_log=STATE_LOG_LIMITS,
            hints=hints,
        )


@dataclass(frozen=True, slots=True)
class Wire:
    """What the connections between nodes are like, and what secrets the nodes hold."""

    security: str = "no secret"
    """One of `security.SECURITIES`."""
    buffer_bytes: int = 1024 * 1024
    """Bytes of one direction of a connection that the systems at both ends hold."""
    unsent_bytes_high: int | None = None
    """A connection pauses when more bytes wait besides; None for the product's own limit."""
    splits: float = 0.0
    """Share of writes that arrive in two pieces."""


def endpoint_of(node_id: int) -> Endpoint:
    """Where a node's machine is at first."""
    return Endpoint(f"node-{node_id}", 28103)


class Witness(Protocol[P_contra]):
    """Who watches every process: the checker of invariants."""

    def violation(self, text: str) -> None: ...

    def count(self, what: str) -> None:
        """Count an event for the figures."""
        ...

    def opened(self, process: P_contra) -> None: ...

    def check(self, process: P_contra) -> None:
        """A step of the process's consensus is over."""
        ...

    def written(self, node_id: int, pending: PendingWrite) -> None:
        """A write of a node's raft log was executed and synced."""
        ...

    def sending(self, node_id: int, to_id: int, payload: bytes) -> None:
        """A raft message leaves node `node_id`."""
        ...

    def received(self, node_id: int, life: int, from_id: int, generation: int, payload: bytes) -> None:
        """A raft message has arrived at node `node_id` and was not yet looked at."""
        ...

    def ended(self, process: P_contra) -> None: ...

    def applied(self, process: P_contra, log_id: LogId, entry: Entry, replies: tuple[Reply, ...]) -> None: ...

    def installed(self, process: P_contra) -> None: ...

    def emptied(self, node_id: int) -> None: ...

    def removed(self, node_id: int, incarnation: str) -> None:
        """A node says for ever that it, with this data directory, is no longer a member."""
        ...


class World(Protocol[P]):
    """What all machines share."""

    scheduler: Scheduler
    clock: SimulatedClock
    network: Network
    system: SimulatedSystem
    source: random.Random
    tuning: Tuning
    wire: Wire
    stream_source: random.Random
    base: str
    on_start: Callable[[P], None]
    """Called for each process once it is composed."""

    @property
    def witness(self) -> Witness[P]: ...

    def endpoint(self, node_id: int) -> Endpoint:
        """Where the node's machine is, and listens for peers when it runs."""
        ...

    def suspect(self, node_id: int) -> bool:
        """Whether the node's copy of the state was ever harmed on purpose, so that an alarm about it is right."""
        ...

    def note(self, text: str) -> None:
        """A line of the trace."""
        ...
