"""What one node counts: the observer of consensus, the counters of the client API, and the page made of them.

One registry per node and nothing global, so that several nodes may live in one process. Counting is plain integers
(under two microseconds per event); everything about the state comes from the `RaftStatus` at the time of the request,
so a scrape never shows an old one. Runs on the node's event loop. Must not know HTTP, gRPC or SQLite.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain
from time import perf_counter

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from metasrv.metrics.backup_page import backup_families
from metasrv.metrics.counters import (
    RPC_DELAY_BOUNDS_MS,
    STEP_BOUNDS_SECONDS,
    BackupCounters,
    ClientCounters,
    GatewayCounters,
    PeerCounters,
    SecurityCounters,
    StreamKind,
    WorkCounters,
    kind_of_call,
)
from metasrv.metrics.exposition import (
    CONTENT_TYPE_OPENMETRICS,
    Family,
    choose_content_type,
    encode,
    family_of,
    lines_of,
    page_of,
)
from metasrv.metrics.gateway_page import gateway_families, gateway_link_families
from metasrv.metrics.own_page import call_families, own_families
from metasrv.metrics.page import client_families, legacy_families, network_families, server_families
from metasrv.metrics.security_page import security_families
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.loop_work import LoopWork
from metasrv.model.types import RaftStatus
from metasrv.process.loop_steps import STEP_SECONDS_MAX
from metasrv.protocol.methods import Method

PROCESS_SECONDS_MAX = 0.25
"""How long a page waits for what the system says of the process."""
STEP_SECONDS_FIRST = STEP_BOUNDS_SECONDS[0]
SLICE_SECONDS = 0.001
"""How long a page is made before others have a turn; the family that is being made is finished first."""


class MetricsRegistry:
    """Implements `RaftObserver`; the client API and the admin API count here too."""

    def __init__(self, binary_version: str, commit: str, cluster_name: str = "") -> None:
        self.binary_version = binary_version
        self.commit = commit
        self.cluster_name = cluster_name
        self.client = ClientCounters()
        self.peers = PeerCounters()
        self.work = WorkCounters()
        self.security = SecurityCounters()
        self.backup = BackupCounters()
        self.gateway = GatewayCounters()
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        self._collecting: asyncio.Future[list[Family]] | None = None
        self._process_known: list[Family] = []

    # ------------------------------------------------------------------------- client API

    def rpc_started(self) -> None:
        self.client.in_flight += 1

    def rpc_finished(self, failed: FailureReason | None, seconds: float, method: Method) -> None:
        """`failed` is None for a success."""
        client = self.client
        client.in_flight -= 1
        if failed is None:
            client.succeeded += 1
        else:
            client.failed += 1
            client.reads_failed += method.write is False
            client.failures[kind_of_call(method), failed] += 1
            client.method_failures.add((method.name, failed.value), 1)
        client.delay_seconds_sum += seconds
        client.delay_window.observe(seconds)
        delay_ms = client.delays_ms[method.name]
        milliseconds = seconds * 1000.0
        delay_ms.counts[bisect_left(RPC_DELAY_BOUNDS_MS, milliseconds)] += 1
        delay_ms.sum += milliseconds

    def call_received(self, size_bytes: int) -> None:
        """A call has begun: `rpc_started` and `client_received_bytes` in one."""
        client = self.client
        client.in_flight += 1
        client.received_bytes += size_bytes

    def call_answered(self, method: Method, seconds: float, sent_bytes: int) -> None:
        """A call has succeeded: `client_sent_bytes` and `rpc_finished` in one."""
        client = self.client
        client.in_flight -= 1
        client.succeeded += 1
        client.sent_bytes += sent_bytes
        client.delay_seconds_sum += seconds
        client.delay_window.observe(seconds)
        delay_ms = client.delays_ms[method.name]
        milliseconds = seconds * 1000.0
        delay_ms.counts[bisect_left(RPC_DELAY_BOUNDS_MS, milliseconds)] += 1
        delay_ms.sum += milliseconds

    def gets_answered(self, method: Method, seconds: Sequence[float], sent_bytes: int) -> None:
        """Reads of one key each have succeeded together; one number of seconds for each read."""
        client, count = self.client, len(seconds)
        client.in_flight -= count
        client.succeeded += count
        client.sent_bytes += sent_bytes
        client.stream_items["get"] += count
        delay_ms, observe = client.delays_ms[method.name], client.delay_window.observe
        counts = delay_ms.counts
        total = 0.0
        for each in seconds:
            total += each
            observe(each)
            counts[bisect_left(RPC_DELAY_BOUNDS_MS, each * 1000.0)] += 1
        client.delay_seconds_sum += total
        delay_ms.sum += total * 1000.0

    def client_sent_bytes(self, size_bytes: int) -> None:
        self.client.sent_bytes += size_bytes

    def client_received_bytes(self, size_bytes: int) -> None:
        self.client.received_bytes += size_bytes

    def client_connections(self, count: int) -> None:
        self.client.connections = count

    def client_connection_refused(self) -> None:
        self.client.connections_refused += 1

    def watch_items(self, initialization: int, changes: int) -> None:
        self.client.watch_initialization += initialization
        self.client.watch_change += changes

    def stream_items(self, kind: StreamKind, count: int) -> None:
        self.client.stream_items[kind] += count

    # ------------------------------------------------------------------------- consensus: RaftObserver

    def peer_connected(self, node_id: int, address: str, connected: bool) -> None:
        self.peers.active.add((str(node_id), address), 1 if connected else -1)

    def connect_failed(self, node_id: int, address: str) -> None:
        self.peers.connect_failed.add((str(node_id), address), 1)

    def sent_bytes(self, to_id: int, size_bytes: int) -> None:
        self.peers.sent_bytes.add(str(to_id), size_bytes)

    def received_bytes(self, from_address: str, size_bytes: int) -> None:
        self.peers.received_bytes.add(from_address, size_bytes)

    def send_failed(self, to_id: int) -> None:
        self.peers.send_failed.add(str(to_id), 1)

    def append_acknowledged(self, to_id: int, seconds: float) -> None:
        self.peers.append_seconds.observe(str(to_id), seconds)

    def snapshot_sending(self, to_id: int, change: int) -> None:
        self.peers.snapshot_sending.add(str(to_id), change)

    def snapshot_sent(self, to_id: int, seconds: float, success: bool) -> None:
        counter = self.peers.snapshot_sent if success else self.peers.snapshot_send_failed
        counter.add(str(to_id), 1)
        self.peers.snapshot_sent_seconds.observe(str(to_id), seconds)

    def snapshot_receiving(self, from_id: int, change: int) -> None:
        self.peers.snapshot_receiving.add(str(from_id), change)

    def snapshot_received(self, from_id: int, seconds: float, success: bool) -> None:
        counter = self.peers.snapshot_received if success else self.peers.snapshot_receive_failed
        counter.add(str(from_id), 1)
        self.peers.snapshot_received_seconds.observe(str(from_id), seconds)

    def snapshot_written(self, entries: int) -> None:
        self.work.snapshot_written_entries += entries

    def storage_failed(self, operation: str, write: bool) -> None:
        counter = self.work.store_write_failed if write else self.work.store_read_failed
        counter.add(operation, 1)

    def log_synced(self, seconds: float, entries: int) -> None:
        self.work.log_sync_seconds.observe(seconds)
        self.work.log_synced_entries += entries

    def batch_committed(self, seconds: float) -> None:
        self.work.commit_seconds.observe(seconds)

    def read_confirmed(self, seconds: float) -> None:
        self.work.read_index_seconds.observe(seconds)

    def forwarded(self, request: str, seconds: float) -> None:
        self.work.forward_seconds[request].observe(seconds)

    def state_committed(self, seconds: float) -> None:
        self.work.state_commit_seconds.observe(seconds)

    def batch_applied(self, seconds: float, commands: int) -> None:
        self.work.apply_seconds.observe(seconds)
        self.work.applied_commands += commands

    def applying_paused(self, seconds: float) -> None:
        self.work.applying_paused_seconds.observe(seconds)

    def disk_stalled(self, part: str) -> None:
        self.work.disk_stalls[part] += 1

    def storage_result(self, seconds: float) -> None:
        """How long the loop was kept by a result of the snapshot thread."""
        self.step_took(LoopWork.STORAGE_RESULT, seconds)

    def step_took(self, work: LoopWork, seconds: float) -> None:
        times = self.work.step_seconds[work]
        times.sum += seconds
        if seconds <= STEP_SECONDS_FIRST:  # nearly all of them
            times.counts[0] += 1
            return
        times.counts[bisect_left(STEP_BOUNDS_SECONDS, seconds)] += 1
        if seconds > STEP_SECONDS_MAX:
            self.work.slow_steps[work] += 1
            self.work.slow_step_seconds[work] += seconds

    # ------------------------------------------------------------------------- listeners and certificates

    def tls_handshakes(self, port: str, change: int) -> None:
        self.security.handshakes[port] = self.security.handshakes.get(port, 0) + change

    def tls_handshake_failed(self, port: str, reason: str) -> None:
        self.security.handshakes_failed.add((port, reason), 1)

    def descriptors_short(self, port: str) -> None:
        self.security.descriptors_short.add(port, 1)

    def certificate_expires(self, port: str, at_seconds: float) -> None:
        """The certificate that the port shows from now on; `at_seconds` since the epoch."""
        self.security.expires_at[port] = at_seconds

    def reloaded(self, name: str, succeeded: bool) -> None:
        """Files were loaded anew, or could not be."""
        self.security.reloads.add((name, "success" if succeeded else "failure"), 1)
        self.security.reload_failed[name] = not succeeded

    # ------------------------------------------------------------------------- backups

    def backups_every(self, seconds: int) -> None:
        self.backup.every_seconds = seconds

    def backup_made(self, size_bytes: int, seconds: float) -> None:
        self.backup.outcomes["success"] += 1
        self.backup.last_size_bytes, self.backup.last_duration_seconds = size_bytes, seconds

    def backup_failed(self) -> None:
        self.backup.outcomes["failure"] += 1

    def backup_standing(self, last_success_at: float | None, *, failing: bool) -> None:
        """When the cluster's newest backup was made, in seconds since the epoch; None once another node leads."""
        self.backup.last_success_at, self.backup.failing = last_success_at, failing

    # ------------------------------------------------------------------------- gateways

    def gateways(self, configured: int, up: int, restarts: int) -> None:
        """How the processes are that serve clients."""
        self.gateway.configured, self.gateway.up, self.gateway.restarts = configured, up, restarts

    def remote_gateways(self, linked: int) -> None:
        """How many gateways on other machines are linked to this node."""
        self.gateway.remote = linked

    # ------------------------------------------------------------------------- admin API and health

    def admin_request(self, route: str, method: str, status_code: int) -> None:
        """`route` is the path of a known route, never what a client made up."""
        self.work.admin_requests.add((route, method, str(status_code)), 1)

    def health_checked(self, probe: str, check: str, passed: bool) -> None:
        self.work.health[(probe, check)] = passed
        self.work.health_checks.add((probe, check, "pass" if passed else "fail"), 1)

    def loop_lag(self, seconds: float) -> None:
        """How late one beat of the event loop was."""
        self.work.loop_lag_seconds.observe(seconds)

    def copies(self, damaged: bool, differing: frozenset[int], scrubs: int) -> None:
        """What is known about this node's copy of the state and those of the others."""
        self.work.copy_damaged, self.work.copies_differing, self.work.scrubs = damaged, differing, scrubs

    def disk_free(self, size_bytes: int) -> None:
        self.work.disk_free_bytes = size_bytes

    # ------------------------------------------------------------------------- page

    def process_families(self) -> list[Family]:
        """What the system says of this process. May take milliseconds, of any thread: it counts all descriptors."""
        return [family_of(metric) for metric in self._process.collect()]

    async def _present_process_families(self) -> list[Family]:
        """Asked in a helper thread; what was known before when none is free in time, as while the disk hangs."""
        collecting = self._collecting
        if collecting is None or collecting.done():
            collecting = self._collecting = asyncio.ensure_future(asyncio.to_thread(self.process_families))
        done, _ = await asyncio.wait([collecting], timeout=PROCESS_SECONDS_MAX)
        if done:  # another page may be collecting anew by now
            self._process_known = collecting.result()
        return self._process_known

    def families(self, status: RaftStatus, watchers: int, process: Sequence[Family]) -> Iterable[Family]:
        """Every family, the legacy ones first and in their order; each is made when it is asked for."""
        return chain(
            legacy_families(self.client, status),
            server_families(self.client, status, watchers, self.binary_version, self.commit),
            network_families(self.peers, self.work, status),
            client_families(self.client),
            own_families(self.client, self.work, status, self.binary_version, self.commit, self.cluster_name),
            security_families(self.security),
            backup_families(self.backup),
            gateway_families(self.gateway),
            process,
        )

    def render(self, status: RaftStatus, watchers: int, accept: str | None) -> tuple[bytes, str]:
        """The metrics page and its content type, fresh from `status`; `accept` is the request's header."""
        content_type = choose_content_type(accept)
        return encode(self.families(status, watchers, self.process_families()), content_type), content_type

    def render_gateway(self, linked: bool, watchers: int, accept: str | None) -> tuple[bytes, str]:
        """The page of a gateway on another machine: what it counts itself, and nothing of its node."""
        content_type = choose_content_type(accept)
        families = chain(
            gateway_link_families(linked, watchers),
            client_families(self.client),
            call_families(self.client),
            security_families(self.security),
            self.process_families(),
        )
        return encode(families, content_type), content_type

    async def render_in_slices(self, status: RaftStatus, watchers: int, accept: str | None) -> tuple[bytes, str]:
        """As `render`, with a turn of the loop for others after every few milliseconds of work."""
        content_type = choose_content_type(accept)
        openmetrics = content_type == CONTENT_TYPE_OPENMETRICS
        process = await self._present_process_families()
        lines: list[str] = []
        begun_at = perf_counter()
        for family in self.families(status, watchers, process):
            lines += lines_of(family, openmetrics)
            if perf_counter() - begun_at > SLICE_SECONDS:
                await asyncio.sleep(0)
                begun_at = perf_counter()
        return page_of(lines), content_type
