"""What a running node offers to its services: the admin API, the gRPC API, metrics and health.

A plain holder, filled by `meta_node.py`; services take what they need from it and own nothing in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from metasrv.config.model import Config
from metasrv.consensus import Consensus
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.summary import SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, RaftStatus
from metasrv.node.backups import Backups
from metasrv.node.directory_probe import DirectoryReport
from metasrv.node.findings import CopyFindings
from metasrv.node.members import Members
from metasrv.node.slow_writes import SlowWrites
from metasrv.process.clock import Clock
from metasrv.process.event_ring import EventRing
from metasrv.process.log_levels import Log, LogLevels
from metasrv.process.reloading import Reloader
from metasrv.state.machine import StateMachine
from metasrv.state.watch import Watcher, WatchFilter
from metasrv.tracing.watch import RequestWatch


class GatewaysStanding(Protocol):
    """The processes that serve this node's clients, as its pages show them."""

    @property
    def configured(self) -> int: ...

    @property
    def up(self) -> int:
        """Those that serve now."""

    @property
    def restarts(self) -> int:
        """How often one was started again."""

    @property
    def watchers(self) -> int:
        """Watch streams of clients on all of them."""


class RemoteStanding(Protocol):
    """Gateways on other machines that are linked to this node."""

    @property
    def linked(self) -> int: ...

    @property
    def watchers(self) -> int:
        """Watch streams of clients on all of them."""

    async def until_told(self) -> None:
        """Return once each goes by the users and rights that this node has applied, or its link has been cut."""


def _nothing(_sentence: str) -> None:
    """Nobody wants to hear of it."""


async def _nobody_to_ask(node_id: int, _question: SummaryQuestion, _timeout_ms: int) -> SummaryAnswer:
    raise PeerUnreachableError(f"node {node_id} is not a peer of this node")


@dataclass(slots=True)
class NodeContext:
    """References that live as long as the node."""

    config: Config
    """What is in force: some keys change when the configuration file does (`reloads.py`)."""
    consensus: Consensus
    machine: StateMachine
    metrics: MetricsRegistry
    clock: Clock
    started_at_ms: int
    binary_version: str
    draining: bool = False
    """Set at the first termination signal: readiness fails and new requests are refused."""
    joined: bool = False
    """Set once this node is registered with the cluster."""
    waiting_for: str = ""
    """Before it is registered: what this node waits for, as one sentence; empty when it does not wait."""
    loop_lag_ms: float = 0.0
    """How late the event loop's last heartbeat was."""
    loop_beat_at: float = 0.0
    """Monotonic seconds of that heartbeat."""
    copies: CopyFindings = field(default_factory=CopyFindings)
    """What is known about this node's copy of the state and those of the others."""
    backups: Backups | None = None
    """The backups that the leader makes by itself; None where none are configured."""
    damage_found: Callable[[str], None] = _nothing
    """Told when a read finds this node's copy damaged, with one sentence."""
    members: Members = field(init=False)
    """Who the members are, how each of them is, and how they change; set by the composition root."""
    loop_lag_peak_ms: float = 0.0
    """The largest of these since it was last looked at (`metasrv/console/sampling.py`)."""
    log_sync_seconds: float | None = None
    """Mean of the log writes between the last two looks of the same; None when there were none."""
    directory: DirectoryReport | None = None
    """The last look at the data directory (`own_summary.py`), None before the first."""
    events: EventRing = None  # type: ignore[assignment]  # made below when none is given
    """What happens here and is worth telling."""
    ask_summary: Callable[[int, SummaryQuestion, int], Awaitable[SummaryAnswer]] = _nobody_to_ask
    """What another node, by its id, tells of itself; the last argument is a timeout in ms. Raises RequestError."""
    reloader: Reloader = field(init=False)
    """What is loaded anew when its files change; see `reloads.py`."""
    config_paths: tuple[str, ...] = ()
    """The configuration file, if there is one, for what is loaded anew when it changes."""
    watch: RequestWatch = field(default_factory=lambda: RequestWatch(0, lambda: 0), repr=False)
    """Tells which requests of clients are slow, and makes their spans."""
    log: Log | None = None
    """The log of this process; None where it is not the node's own."""
    log_levels: LogLevels = field(init=False)
    """Levels of loggers that are changed for a time."""
    slow_writes: SlowWrites = field(init=False)
    """The slowest and the largest writes of the last minutes."""
    listeners: dict[str, Endpoint] = field(default_factory=dict)
    """Bound addresses by service name: `raft`, `health`, `admin`, `grpc`; a configured port 0 is resolved here."""
    gateways: GatewaysStanding | None = None
    """How the processes are that serve clients; None where this one does."""

    remote_gateways: RemoteStanding | None = None
    """Gateways on other machines; None where nobody lets them in."""

    def __post_init__(self) -> None:
        self.reloader = Reloader(self.metrics)
        self.events = self.events or EventRing(self.clock)
        self.slow_writes = SlowWrites(self.clock.monotonic, self.clock.wall_ms)
        self.log_levels = LogLevels(self.log, self.clock, self.events)

    def set_waiting_for(self, sentence: str) -> None:
        """Say what this node waits for before it serves."""
        self.waiting_for = sentence

    @property
    def watchers(self) -> int:
        """Watch streams of clients that are open."""
        own = self.machine.watches.count if self.gateways is None else self.gateways.watchers
        return own + (0 if self.remote_gateways is None else self.remote_gateways.watchers)

    # ------------------------------------------------------------------------- for `grpc_api/context.py`

    @property
    def processes(self) -> int:
        """The client port is served by this process alone."""
        return 1

    async def fresh_status(self) -> RaftStatus:
        """The status now."""
        return self.consensus.status()

    async def until_readable(self) -> None:
        """Return at once: the state machine of this process shows what is applied."""

    async def open_watch(self, key: str, key_end: str | None, kind: WatchFilter, initial_flush: bool) -> Watcher:
        """Watch from this instant on. Raises InvalidRequestError, OverloadedError."""
        return self.machine.watches.subscribe(key, key_end, kind, initial_flush)


class Service(Protocol):
    """A listener that `meta_node.py` starts and stops in order."""

    name: str

    async def start(self) -> Endpoint:
        """Bind and serve; returns the bound address. Raises BindError."""
        ...

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting, give requests in flight `grace_ms` to finish, close."""
        ...
