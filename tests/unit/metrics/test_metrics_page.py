"""The metrics page: the legacy sample, current names, real values, and a text that parsers take."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Coroutine, Generator, Mapping
from time import thread_time
from types import coroutine
from typing import Any, TypeVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_untyped_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from metasrv.metrics.counters import RPC_DELAY_BOUNDS_MS
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.limits import STEP_TIME_MS_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.model.types import PeerProgress, RaftState, RaftStatus
from metasrv.protocol import methods as m
from metasrv.raft.observer import RaftObserver
from metasrv.testing.fake_node import leader_status, sample_status

T = TypeVar("T")

LEGACY_TYPES = [
    ("metasrv_meta_network_recv_bytes", "counter"),
    ("metasrv_server_leader_changes", "counter"),
    ("metasrv_meta_network_req_success", "counter"),
    ("metasrv_meta_network_sent_bytes", "counter"),
    ("metasrv_server_node_is_health", "gauge"),
    ("metasrv_server_is_leader", "gauge"),
    ("metasrv_server_proposals_applied", "gauge"),
    ("metasrv_server_last_seq", "gauge"),
    ("metasrv_server_current_term", "gauge"),
    ("metasrv_meta_network_req_inflights", "gauge"),
    ("metasrv_server_proposals_pending", "gauge"),
    ("metasrv_server_last_log_index", "gauge"),
    ("metasrv_server_current_leader_id", "gauge"),
    ("metasrv_meta_network_rpc_delay_seconds", "summary"),
]
SERVER = "metasrv_server_"
SERVER_NAMES = """
    current_leader_id is_leader node_is_health leader_changes_total applying_snapshot proposals_applied
    proposals_pending proposals_failed_total read_failed_total last_log_index last_seq current_term watchers
    snapshot_key_count snapshot_primary_index_count snapshot_expire_index_count snapshot_block_count
    snapshot_data_size snapshot_index_size snapshot_avg_block_size snapshot_avg_keys_per_block
    snapshot_read_block snapshot_read_block_from_cache snapshot_read_block_from_disk raft_log_size
    raft_log_cache_items raft_log_cache_used_size raft_log_wal_open_chunk_size raft_log_wal_offset
    raft_log_wal_closed_chunk_count raft_log_wal_closed_chunk_total_size
"""
CLIENT_NAMES = """
    sent_bytes_total recv_bytes_total req_success_total req_failed_total req_inflights rpc_delay_ms_count
    rpc_delay_read_ms_count rpc_delay_write_ms_count watch_initialization_total watch_change_total
    stream_get_item_sent_total stream_mget_item_sent_total stream_list_item_sent_total
"""
TODAYS_NAMES = [
    *(f"metasrv_server_{name}" for name in SERVER_NAMES.split()),
    *(f"metasrv_meta_network_{name}" for name in CLIENT_NAMES.split()),
    "metasrv_raft_storage_snapshot_building",
    "metasrv_raft_storage_snapshot_written_entries_total",
]


def registry() -> MetricsRegistry:
    return MetricsRegistry("1.2.3", "abcdef0", "here")


def page(metrics: MetricsRegistry, status: RaftStatus, watchers: int = 0, accept: str | None = None) -> str:
    return metrics.render(status, watchers, accept)[0].decode()


def samples(text: str) -> Mapping[str, float]:
    """Every sample line of a page by everything before its value."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def busy_registry() -> MetricsRegistry:
    """One in which everything has moved."""
    metrics = registry()
    observer: RaftObserver = metrics
    metrics.client_received_bytes(307163)
    metrics.client_sent_bytes(1328402)
    lost = FailureReason.NO_LEADER
    for failed, seconds, method in (
        (None, 0.0002, m.TRANSACTION),
        (None, 0.004, m.KV_READ_V1),
        (lost, 0.5, m.KV_READ_V1),
        (None, 0.1, m.HANDSHAKE),
    ):
        metrics.rpc_started()
        metrics.rpc_finished(failed, seconds, method)
    metrics.rpc_started()
    metrics.watch_items(5, 6)
    metrics.stream_items("get", 1)
    metrics.stream_items("mget", 2)
    metrics.stream_items("list", 3)
    observer.peer_connected(2, "b:1", True)
    observer.peer_connected(2, "b:1", False)
    observer.peer_connected(2, "b:1", True)
    observer.connect_failed(3, "c:1")
    observer.sent_bytes(2, 100)
    observer.received_bytes('ho"st:1', 200)
    observer.send_failed(3)
    observer.append_acknowledged(2, 0.003)
    observer.snapshot_sending(3, 1)
    observer.snapshot_sent(3, 2.5, True)
    observer.snapshot_sent(3, 2.5, False)
    observer.snapshot_receiving(2, 1)
    observer.snapshot_receiving(2, -1)
    observer.snapshot_received(2, 1.5, True)
    observer.snapshot_received(2, 1.5, False)
    observer.snapshot_written(1234)
    observer.storage_failed("install", True)
    observer.storage_failed("read_log", False)
    observer.log_synced(0.001, 3)
    observer.batch_applied(0.0005, 64)
    observer.batch_committed(0.002)
    observer.read_confirmed(0.0003)
    observer.forwarded("propose", 0.0015)
    observer.forwarded("read_index", 0.0005)
    observer.state_committed(0.001)
    observer.applying_paused(0.002)
    observer.disk_stalled("log")
    observer.step_took(LoopWork.RAFT_APPLY, 0.006)
    observer.step_took(LoopWork.RAFT_APPLY, 0.01)
    observer.step_took(LoopWork.RAFT_TICK, 0.0001)
    metrics.loop_lag(0.003)
    metrics.storage_result(STEP_TIME_MS_MAX / 1000)
    metrics.storage_result(STEP_TIME_MS_MAX / 1000 + 0.001)
    return metrics


def test_the_legacy_families_come_first_in_their_order() -> None:
    types = re.findall(r"^# TYPE (\S+) (\S+)$", page(registry(), sample_status()), re.MULTILINE)
    assert types[: len(LEGACY_TYPES)] == LEGACY_TYPES


def test_the_legacy_samples_have_bare_names_and_whole_numbers() -> None:
    lines = page(busy_registry(), leader_status(proposals_pending=2)).splitlines()
    for line in (
        "metasrv_meta_network_recv_bytes 307163",
        "metasrv_server_leader_changes 3",
        "metasrv_meta_network_req_success 3",
        "metasrv_meta_network_sent_bytes 1328402",
        "metasrv_server_node_is_health 1",
        "metasrv_server_is_leader 1",
        "metasrv_server_proposals_applied 53067",
        "metasrv_server_last_seq 60665",
        "metasrv_server_current_term 67",
        "metasrv_meta_network_req_inflights 1",
        "metasrv_server_proposals_pending 2",
        "metasrv_server_last_log_index 53067",
        "metasrv_server_current_leader_id 1",
        'metasrv_meta_network_rpc_delay_seconds{quantile="0"} 0.0002',
        'metasrv_meta_network_rpc_delay_seconds{quantile="0.5"} 0.004',
        'metasrv_meta_network_rpc_delay_seconds{quantile="0.9"} 0.5',
        'metasrv_meta_network_rpc_delay_seconds{quantile="0.95"} 0.5',
        'metasrv_meta_network_rpc_delay_seconds{quantile="0.99"} 0.5',
        'metasrv_meta_network_rpc_delay_seconds{quantile="0.999"} 0.5',
        'metasrv_meta_network_rpc_delay_seconds{quantile="1"} 0.5',
        "metasrv_meta_network_rpc_delay_seconds_count 4",
    ):
        assert line in lines


def test_slow_steps_are_counted_by_the_kind_of_work_from_zero_on() -> None:
    lines = page(busy_registry(), sample_status()).splitlines()
    counted = dict(line.split(" ") for line in lines if line.startswith("metasrv_loop_slow_steps_total{"))
    expected = {f'metasrv_loop_slow_steps_total{{work="{work}"}}': "0" for work in LoopWork}
    expected['metasrv_loop_slow_steps_total{work="raft_apply"}'] = "2"
    expected['metasrv_loop_slow_steps_total{work="storage_result"}'] = "1"
    assert counted == expected
    assert 'metasrv_loop_slow_step_seconds_total{work="raft_apply"} 0.016' in lines


def test_todays_names_are_there_from_the_start() -> None:
    shown = samples(page(registry(), sample_status()))
    assert [name for name in TODAYS_NAMES if name not in shown] == []
    assert shown['metasrv_server_version{component="metasrv",semver="1.2.3",sha="abcdef0"}'] == 1


def test_every_value_is_real() -> None:
    shown = samples(page(busy_registry(), sample_status(key_count=12), watchers=7))
    expected = {
        f"{SERVER}watchers": 7,
        f"{SERVER}proposals_failed": 4,
        f"{SERVER}proposals_failed_total": 4,
        f"{SERVER}read_failed_total": 1,
        'metasrv_grpc_requests_total{kind="read"}': 2,
        'metasrv_grpc_requests_total{kind="write"}': 1,
        'metasrv_grpc_requests_failed_total{kind="read",reason="no_leader"}': 1,
        'metasrv_grpc_requests_failed_total{kind="write",reason="no_leader"}': 0,
        'metasrv_grpc_requests_failed_total{kind="write",reason="overloaded"}': 0,
        f"{SERVER}snapshot_key_count": 100,
        f"{SERVER}snapshot_primary_index_count": 90,
        f"{SERVER}snapshot_expire_index_count": 10,
        f"{SERVER}snapshot_data_size": 8192,
        f"{SERVER}snapshot_block_count": 2,
        f"{SERVER}snapshot_avg_keys_per_block": 50,
        f"{SERVER}raft_log_size": 30_000,
        f"{SERVER}db_size": 100_000,
        f"{SERVER}raft_log_wal_offset": 40_000,
        "metasrv_meta_network_req_failed_total": 1,
        "metasrv_meta_network_rpc_delay_ms_count": 4,
        "metasrv_meta_network_rpc_delay_read_ms_count": 2,
        "metasrv_meta_network_rpc_delay_write_ms_count": 1,
        'metasrv_meta_network_rpc_delay_write_ms_bucket{le="1.0"}': 1,
        'metasrv_meta_network_rpc_delay_read_ms_bucket{le="3.0"}': 0,
        'metasrv_meta_network_rpc_delay_read_ms_bucket{le="4.0"}': 1,
        'metasrv_meta_network_rpc_delay_ms_bucket{le="+Inf"}': 4,
        "metasrv_meta_network_watch_initialization_total": 5,
        "metasrv_meta_network_watch_change_total": 6,
        "metasrv_meta_network_stream_get_item_sent_total": 1,
        "metasrv_meta_network_stream_mget_item_sent_total": 2,
        "metasrv_meta_network_stream_list_item_sent_total": 3,
        'metasrv_raft_network_active_peers{id="2",addr="b:1"}': 1,
        'metasrv_raft_network_fail_connect_to_peer{id="3",addr="c:1"}': 1,
        'metasrv_raft_network_sent_bytes_total{to="2"}': 100,
        'metasrv_raft_network_sent_bytes{to="2"}': 100,
        'metasrv_raft_network_recv_bytes_total{from="ho\\"st:1"}': 200,
        'metasrv_raft_network_sent_failures_total{to="3"}': 1,
        'metasrv_raft_network_append_sent_seconds_bucket{to="2",le="0.002"}': 0,
        'metasrv_raft_network_append_sent_seconds_bucket{to="2",le="0.004"}': 1,
        'metasrv_raft_network_snapshot_send_success_total{to="3"}': 1,
        'metasrv_raft_network_snapshot_send_failure_total{to="3"}': 1,
        'metasrv_raft_network_snapshot_send_failures_total{to="3"}': 1,
        'metasrv_raft_network_snapshot_recv_success_total{from="2"}': 1,
        'metasrv_raft_network_snapshot_recv_failures_total{from="2"}': 1,
        'metasrv_raft_network_snapshot_send_inflights{to="3"}': 1,
        'metasrv_raft_network_snapshot_recv_inflights{from="2"}': 0,
        'metasrv_raft_network_snapshot_sent_seconds_count{to="3"}': 2,
        'metasrv_raft_network_snapshot_recv_seconds_sum{from="2"}': 3,
        'metasrv_raft_storage_raft_store_write_failed_total{func="install"}': 1,
        'metasrv_raft_storage_raft_store_read_failed_total{func="read_log"}': 1,
        "metasrv_raft_storage_snapshot_written_entries_total": 1234,
        "metasrv_raft_log_sync_seconds_count": 1,
        'metasrv_raft_commit_seconds_bucket{le="0.0016"}': 0,
        'metasrv_raft_commit_seconds_bucket{le="0.0032"}': 1,
        "metasrv_raft_read_index_seconds_count": 1,
        'metasrv_raft_forward_seconds_count{request="propose"}': 1,
        'metasrv_raft_forward_seconds_sum{request="read_index"}': 0.0005,
        'metasrv_loop_step_seconds_count{work="raft_apply"}': 2,
        'metasrv_loop_step_seconds_bucket{work="raft_tick",le="0.0002"}': 1,
        'metasrv_loop_lag_seconds_bucket{le="0.002"}': 0,
        'metasrv_loop_lag_seconds_bucket{le="0.004"}': 1,
        'metasrv_grpc_request_seconds_count{kind="read",method="KvReadV1"}': 2,
        'metasrv_grpc_request_seconds_bucket{kind="write",method="Transaction",le="0.001"}': 1,
        'metasrv_grpc_method_failures_total{method="KvReadV1",reason="no_leader"}': 1,
        'metasrv_cluster_info{cluster_id="c0ffee",cluster_name="here"}': 1,
        "metasrv_cluster_keys": 12,
        "metasrv_node_removed": 0,
        "metasrv_raft_log_synced_entries_total": 3,
        "metasrv_raft_applied_commands_total": 64,
        'metasrv_raft_peer_connected{id="3"}': 0,
        'metasrv_raft_peer_contact_age_seconds{id="2"}': 0.012,
    }
    assert {name: shown.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("state", "healthy"),
    [
        (RaftState.LEADER, 1),
        (RaftState.FOLLOWER, 1),
        (RaftState.CANDIDATE, 0),
        (RaftState.LEARNER, 0),
        (RaftState.SHUTDOWN, 0),
    ],
)
def test_only_a_follower_and_a_leader_are_healthy(state: RaftState, healthy: int) -> None:
    assert samples(page(registry(), sample_status(state=state)))[f"{SERVER}node_is_health"] == healthy


def test_no_leader_reads_as_zero() -> None:
    shown = samples(page(registry(), sample_status(leader_id=None, leader_contact_ms=None)))
    assert (shown[f"{SERVER}current_leader_id"], shown[f"{SERVER}has_leader"]) == (0, 0)
    assert "metasrv_raft_leader_contact_age_seconds" not in shown


@pytest.mark.parametrize(
    ("heard_ms", "tolerance"), [((1, 1), 1), ((1, 45_000), 0), ((1, None), 0), ((45_000, 45_000), None)]
)
def test_how_many_voters_may_still_fail(heard_ms: tuple[int | None, int | None], tolerance: int | None) -> None:
    peers = tuple(PeerProgress(node_id, None, heard, True) for node_id, heard in zip((2, 3), heard_ms, strict=True))
    shown = samples(page(registry(), leader_status(peers=peers)))
    assert shown.get("metasrv_raft_failure_tolerance_nodes") == tolerance
    assert "metasrv_raft_failure_tolerance_nodes" not in samples(page(registry(), sample_status()))


def test_what_is_not_known_or_not_expected_of_a_peer_has_no_sample() -> None:
    here = leader_status().last_log_id
    peers = (PeerProgress(2, here, 12, True), PeerProgress(3, None, 700, True))
    lag, age = "metasrv_raft_peer_lag_entries", "metasrv_raft_peer_contact_age_seconds"
    shown = samples(page(registry(), leader_status(peers=peers)))
    assert (shown.get(f'{lag}{{id="2"}}'), shown.get(f'{lag}{{id="3"}}')) == (0, None)
    assert (shown.get(f'{age}{{id="2"}}'), shown.get(f'{age}{{id="3"}}')) == (0.012, 0.7)
    shown = samples(page(registry(), sample_status(peers=peers)))
    assert (shown.get(f'{age}{{id="2"}}'), shown.get(f'{age}{{id="3"}}')) == (0.012, None)


@pytest.mark.parametrize("metrics", [registry(), busy_registry()], ids=["idle", "busy"])
@pytest.mark.parametrize("status", [sample_status(), leader_status()], ids=["follower", "leader"])
def test_parsers_take_the_page(metrics: MetricsRegistry, status: RaftStatus) -> None:
    text = page(metrics, status)
    types = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(types) == len(set(types))
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(set(lines))
    assert not any("_created" in line for line in lines)
    assert sum(len(family.samples) for family in parse_plain(text)) == len(lines)
    openmetrics, content_type = metrics.render(status, 0, "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    parse_openmetrics: Any = parse_untyped_openmetrics
    names = {family.name for family in parse_openmetrics(openmetrics.decode())}
    assert "metasrv_server_leader_changes" in names


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        (
            "application/openmetrics-text, text/plain;q=0",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("application/openmetrics-text;q=0", "text/plain; charset=utf-8"),
        ("application/openmetrics-text;q=high", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_plain_text_wherever_it_is_accepted(accept: str | None, content_type: str) -> None:
    assert registry().render(sample_status(), 0, accept)[1] == content_type


def test_two_nodes_in_one_process_count_apart() -> None:
    busy, idle = busy_registry(), registry()
    assert samples(page(busy, sample_status()))["metasrv_meta_network_recv_bytes"] == 307163
    assert samples(page(idle, sample_status()))["metasrv_meta_network_recv_bytes"] == 0


def test_the_bounds_are_those_of_upstream() -> None:
    assert len(RPC_DELAY_BOUNDS_MS) == 30
    assert RPC_DELAY_BOUNDS_MS[:7] == (1, 2, 3, 4, 5, 7, 10)
    assert RPC_DELAY_BOUNDS_MS[-1] == 70000


@coroutine
def measured(work: Coroutine[Any, Any, T], steps: list[float]) -> Generator[Any, Any, T]:
    """Await `work`, and note the processor time of each stretch between two of its waits."""
    value: Any = None
    while True:
        started = thread_time()
        try:
            waits_for = work.send(value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.append(thread_time() - started)
        value = yield waits_for


async def test_a_page_is_made_in_steps_that_hold_nobody_up() -> None:
    """With every method called and many peers' ports known; another task has its turns meanwhile."""
    metrics = busy_registry()
    for method in m.METHODS:
        metrics.rpc_started()
        metrics.rpc_finished(None, 0.001, method)
    for port in range(200):
        metrics.received_bytes(f"127.0.0.1:{port}", 1)
    turns = 0

    async def beat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    shortest_longest = math.inf
    for _ in range(5):  # the first page fills the caches, and the machine has other work
        steps: list[float] = []
        body, _ = await measured(metrics.render_in_slices(leader_status(), 3, None), steps)
        shortest_longest = min(shortest_longest, max(steps))
    beating.cancel()
    assert len(steps) > 2
    assert turns > 10
    assert samples(body.decode()).keys() == samples(page(metrics, leader_status(), 3)).keys()
    assert shortest_longest * 1000 < STEP_TIME_MS_MAX, "half of that on a machine with nothing else to do"


async def test_a_page_does_not_wait_for_a_helper_thread_that_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a node may all hang on its disk, which is when somebody looks at the metrics."""
    metrics = registry()
    assert b"process_resident_memory_bytes" in (await metrics.render_in_slices(sample_status(), 0, None))[0]
    asked = 0

    async def never(_function: object) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "to_thread", never)
    monkeypatch.setattr("metasrv.metrics.registry.PROCESS_SECONDS_MAX", 0.0)
    for _ in range(3):
        assert b"process_resident_memory_bytes" in (await metrics.render_in_slices(sample_status(), 0, None))[0]
    assert asked == 1, "it is asked once until it answers"


async def test_pages_that_are_asked_for_close_together_do_not_take_each_others_answer() -> None:
    metrics = MetricsRegistry("", "")

    async def ask(turns: int) -> bytes:
        for _ in range(turns):
            await asyncio.sleep(0)
        return (await metrics.render_in_slices(sample_status(), 0, None))[0]

    for _ in range(2):
        pages = await asyncio.gather(*(ask(turns) for turns in range(120)))
        assert all(b"process_resident_memory_bytes" in page for page in pages)
