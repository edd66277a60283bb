"""The numbers that one node counts, grouped by who counts them.

Plain holders: `registry.py` writes them, `page.py` and `own_page.py` read them. Labels are plain texts, and their
number is bounded. Runs on the node's event loop.
"""

from __future__ import annotations

from typing import Literal

from metasrv.metrics.counting import BoundedCounter, Histogram, HistogramByLabel
from metasrv.metrics.quantiles import SlidingWindow
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.loop_work import LoopWork
from metasrv.protocol.methods import METHODS, Method

RPC_DELAY_BOUNDS_MS = tuple(float(step * 10**power) for power in range(5) for step in (1, 2, 3, 4, 5, 7))
"""30 bounds, the last 70000 (docs/contract/admin-api.md section 2.5)."""
APPEND_BOUNDS_SECONDS = tuple(0.001 * 2**power for power in range(20))
SNAPSHOT_BOUNDS_SECONDS = tuple(float(2**power) for power in range(10))
WORK_BOUNDS_SECONDS = tuple(0.0001 * 2**power for power in range(16))
"""Syncs, batches, commits, confirmations: 0.1 ms to 3.3 s."""
STEP_BOUNDS_SECONDS = tuple(0.00005 * 4**power for power in range(9))
"""Steps of the event loop: 50 µs to 3.3 s."""
LAG_BOUNDS_SECONDS = tuple(0.001 * 2**power for power in range(13))
"""How late the event loop is: 1 ms to 4 s."""

OTHER = "other"
FORWARDED = ("propose", "read_index")
"""What a follower passes on to the leader."""
StreamKind = Literal["get", "mget", "list"]
CallKind = Literal["write", "read", "other"]
CALL_KINDS: tuple[CallKind, ...] = ("write", "read", "other")


def kind_of_call(method: Method) -> CallKind:
    """`other` for calls that neither read nor write keys, such as handshakes."""
    return "write" if method.write else "other" if method.write is None else "read"


class ClientCounters:
    """The client-facing calls (docs/contract/admin-api.md section 2.5)."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.succeeded = 0
        self.failed = 0
        self.reads_failed = 0
        self.failures = {(kind, reason): 0 for kind in CALL_KINDS for reason in FailureReason}
        """All are there from the start, so that a rate sees the first failure."""
        self.in_flight = 0
        self.delay_seconds_sum = 0.0
        self.delay_window = SlidingWindow()
        self.delays_ms = {method.name: Histogram(RPC_DELAY_BOUNDS_MS) for method in METHODS}
        self.method_failures: BoundedCounter[tuple[str, str]] = BoundedCounter((OTHER, OTHER))
        """By (method, reason)."""
        self.connections = 0
        self.connections_refused = 0
        self.watch_initialization = 0
        self.watch_change = 0
        self.stream_items: dict[StreamKind, int] = {"get": 0, "mget": 0, "list": 0}

    def delay_ms(self, *kinds: CallKind) -> Histogram:
        """The delays of all calls of these kinds together."""
        parts = [self.delays_ms[method.name] for method in METHODS if kind_of_call(method) in kinds]
        return Histogram(RPC_DELAY_BOUNDS_MS).plus(*parts)


class PeerCounters:
    """What goes to and comes from peers (docs/contract/admin-api.md section 2.3)."""

    def __init__(self) -> None:
        self.active: BoundedCounter[tuple[str, str]] = BoundedCounter((OTHER, OTHER))
        self.connect_failed: BoundedCounter[tuple[str, str]] = BoundedCounter((OTHER, OTHER))
        self.sent_bytes: BoundedCounter[str] = BoundedCounter(OTHER)
        self.received_bytes: BoundedCounter[str] = BoundedCounter(OTHER)
        self.send_failed: BoundedCounter[str] = BoundedCounter(OTHER)
        self.append_seconds = HistogramByLabel(APPEND_BOUNDS_SECONDS, OTHER)
        self.snapshot_sending: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_receiving: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_sent: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_send_failed: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_received: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_receive_failed: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_sent_seconds = HistogramByLabel(SNAPSHOT_BOUNDS_SECONDS, OTHER)
        self.snapshot_received_seconds = HistogramByLabel(SNAPSHOT_BOUNDS_SECONDS, OTHER)


class WorkCounters:
    """Disk, state and health of this node."""

    def __init__(self) -> None:
        self.store_write_failed: BoundedCounter[str] = BoundedCounter(OTHER)
        self.store_read_failed: BoundedCounter[str] = BoundedCounter(OTHER)
        self.snapshot_written_entries = 0
        self.log_sync_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.log_synced_entries = 0
        self.commit_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.read_index_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.forward_seconds = {request: Histogram(WORK_BOUNDS_SECONDS) for request in FORWARDED}
        self.state_commit_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.apply_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.applied_commands = 0
        self.applying_paused_seconds = Histogram(WORK_BOUNDS_SECONDS)
        self.disk_stalls = {"log": 0, "state": 0}
        self.loop_lag_seconds = Histogram(LAG_BOUNDS_SECONDS)
        self.step_seconds = {work: Histogram(STEP_BOUNDS_SECONDS) for work in LoopWork}
        self.slow_steps = dict.fromkeys(LoopWork, 0)
        self.slow_step_seconds = dict.fromkeys(LoopWork, 0.0)
        self.disk_free_bytes: int | None = None
        self.copy_damaged = False
        self.copies_differing: frozenset[int] = frozenset()
        """Nodes whose copy of the state is not this one's, or damaged."""
        self.scrubs = 0
        self.health: dict[tuple[str, str], bool] = {}
        """Newest outcome of each check by (probe, check)."""
        self.health_checks: BoundedCounter[tuple[str, str, str]] = BoundedCounter((OTHER, OTHER, OTHER))
        self.admin_requests: BoundedCounter[tuple[str, str, str]] = BoundedCounter((OTHER, OTHER, OTHER))
        """By (route, method, status code)."""


class BackupCounters:
    """The backups that this node makes while it leads."""

    def __init__(self) -> None:
        self.every_seconds = 0
        """0 where none are configured: there are no families then."""
        self.last_success_at: float | None = None
        """Seconds since the epoch, 0 for none ever; None while another node leads."""
        self.outcomes = {"success": 0, "failure": 0}
        self.last_size_bytes: int | None = None
        self.last_duration_seconds: float | None = None
        self.failing = False


class GatewayCounters:
    """The processes that serve clients beside this one."""

    def __init__(self) -> None:
        self.configured = 0
        """0 where this process serves them: there are no families then."""
        self.up = 0
        self.restarts = 0
        self.remote = 0
        """Gateways on other machines that are linked to this node."""


class SecurityCounters:
    """Callers that have not said a word, certificates, and what was loaded anew; by the name of the port."""

    def __init__(self) -> None:
        self.handshakes: dict[str, int] = {}
        """Unfinished TLS handshakes."""
        self.handshakes_failed: BoundedCounter[tuple[str, str]] = BoundedCounter((OTHER, OTHER))
        """By (port, reason)."""
        self.descriptors_short: BoundedCounter[str] = BoundedCounter(OTHER)
        self.expires_at: dict[str, float] = {}
        """When the certificate in use expires, in seconds since the epoch."""
        self.reloads: BoundedCounter[tuple[str, str]] = BoundedCounter((OTHER, OTHER))
        """By (what, outcome)."""
        self.reload_failed: dict[str, bool] = {}
        """Whether the newest attempt failed, so that something older than the files is in force."""
