"""A node and a gateway over a link in memory: reads, writes, watches, and what each tells the other."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metasrv.gateway.counts import Counted, Counts
from metasrv.gateway.log_lines import LinkHandler, fields_in
from metasrv.gateway.messages import FromGateway
from metasrv.gateway.slow_writes import note_told
from metasrv.gateway.spawner import Spawner
from metasrv.gateway.supervisor import Gateways
from metasrv.metrics.counting import BoundedCounter, Histogram
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.commands import MatchKind, MatchSeq, Operation, SetFeature, Upsert
from metasrv.model.errors import (
    CodecError,
    InvalidRequestError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    UnknownOutcomeError,
    ViewLostError,
)
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.limits import (
    GATEWAY_INSTANTS_MAX,
    GATEWAY_LOG_FIELDS_MAX,
    GATEWAY_LOG_LINES_MAX,
    METRICS_LABELS_MAX,
    READ_WAITERS_MAX,
    SLOW_WRITES_KEPT_MAX,
)
from metasrv.model.types import Endpoint, LogId, Node, RaftState
from metasrv.model.wire import pack, unpack
from metasrv.node.slow_writes import SlowWrites, Written
from metasrv.process.logs_lines import fields_of
from metasrv.protocol.methods import KV_LIST, TRANSACTION
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter
from metasrv.state.watch import WatcherOverflow, WatchFilter, WatchItem, WatchReset
from metasrv.tracing.request_ids import Header, begin_request
from metasrv.tracing.times import CURRENT, RequestEnd, RequestTimes, RequestTrace, Stage
from tests.support.gateway_pair import Pair

SECOND_MS = 1_000


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = await Pair(tmp_path).start()
    yield made
    made.close()


def put(key: str, value: bytes = b"v") -> Upsert:
    return Upsert(key, MatchSeq(MatchKind.ANY, 0), Operation.UPDATE, value)


async def write(pair: Pair, key: str, value: bytes = b"v") -> None:
    await pair.gateway.consensus.propose(put(key, value), SECOND_MS)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ----------------------------------------------------------------------------- writes and reads


async def test_a_read_after_a_barrier_shows_every_acknowledged_write(pair: Pair) -> None:
    """The node commits its state lazily; the gateway's own connection would not see the write without the barrier."""
    gateway = pair.gateway
    for number in range(5):
        await write(pair, "k", b"%d" % number)
        assert pair.context.machine.uncommitted, "this test is about what is not yet in the file"
        await gateway.consensus.read_barrier(SECOND_MS)
        record = gateway.machine.get("k", 0)
        assert record is not None
        assert record.data == b"%d" % number
    assert [record is None for record in gateway.machine.get_many(["k", "none"], 0)] == [False, True]
    assert [key for key, _ in gateway.machine.list_prefix("k", None, 0)] == ["k"]


async def test_reads_of_one_turn_share_a_barrier_and_later_ones_get_another(pair: Pair) -> None:
    consensus = pair.gateway.consensus
    before = pair.consensus.barriers
    await asyncio.gather(*(consensus.read_barrier(SECOND_MS) for _ in range(50)))
    assert pair.consensus.barriers == before + 1
    first = asyncio.ensure_future(consensus.read_barrier(SECOND_MS))
    await turns(3)  # it has left: a read that comes now may not rest on it
    second = asyncio.ensure_future(consensus.read_barrier(SECOND_MS))
    await asyncio.gather(first, second)
    assert pair.consensus.barriers == before + 3
    await asyncio.gather(consensus.read_barrier(SECOND_MS), consensus.read_barrier(2 * SECOND_MS))
    assert pair.consensus.barriers == before + 5, "who may wait longer is not bound to a shorter wait"


async def test_an_error_of_the_node_is_the_same_error_and_the_new_leader_is_known_before_it(pair: Pair) -> None:
    nodes = {2: Node(2, Endpoint("localhost", 1), "", "example:9191")}
    pair.consensus.change(nodes=nodes)
    pair.consensus.follow(2)
    with pytest.raises(NotLeaderError) as refused:
        await pair.gateway.consensus.propose_local(put("k"), SECOND_MS)
    assert refused.value.leader_id == 2
    assert pair.gateway.consensus.status().state is RaftState.FOLLOWER
    assert pair.gateway.consensus.status().nodes[2].grpc_api_advertise_address == "example:9191"
    with pytest.raises(NotLeaderError):
        await pair.gateway.consensus.read_barrier_local(SECOND_MS)


@pytest.mark.virtual_time
async def test_a_node_that_does_not_answer_leaves_writes_unknown_and_reads_undone(pair: Pair) -> None:
    pair.to_node.held = True
    with pytest.raises(UnknownOutcomeError):
        await pair.gateway.consensus.propose(put("k"), SECOND_MS)
    with pytest.raises(NotDoneError):
        await pair.gateway.consensus.read_barrier(SECOND_MS)


async def test_writes_and_reads_that_wait_are_bounded_and_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.gateway.remote_consensus.PROPOSALS_WAITING_MAX", 8)
    monkeypatch.setattr("metasrv.gateway.remote_consensus.PROPOSALS_WAITING_BYTES_MAX", 4_000)
    monkeypatch.setattr("metasrv.gateway.remote_consensus.READ_WAITERS_MAX", 8)
    pair = await Pair(tmp_path).start(processes=4)
    pair.consensus.hold = asyncio.Event()
    consensus = pair.gateway.consensus
    waiting = [asyncio.ensure_future(consensus.propose(put("k"), SECOND_MS)) for _ in range(2)]
    await turns()
    with pytest.raises(OverloadedError, match="2 writes of this gateway wait"):
        await consensus.propose(put("k"), SECOND_MS)
    pair.consensus.hold.set()
    await asyncio.gather(*waiting)
    pair.consensus.hold.clear()
    large = asyncio.ensure_future(consensus.propose(put("k", bytes(1_500)), SECOND_MS))
    await turns()
    with pytest.raises(OverloadedError, match="bytes already"):
        await consensus.propose(put("k"), SECOND_MS)
    pair.consensus.hold.set()
    await large
    pair.to_node.held = True
    reads = [asyncio.ensure_future(consensus.read_barrier(SECOND_MS)) for _ in range(2)]
    await turns()
    with pytest.raises(OverloadedError, match="2 reads of this gateway wait"):
        await consensus.read_barrier(SECOND_MS)
    pair.to_node.held = False
    pair.to_node.deliver()
    await asyncio.gather(*reads)
    assert READ_WAITERS_MAX > 8
    pair.close()


async def test_an_invalid_message_of_a_gateway_cuts_the_link_and_costs_the_node_nothing(pair: Pair) -> None:
    pair.link.send((FromGateway.PROPOSE, "no number", True, 1, b""))
    await turns()
    assert pair.to_gateway.aborted
    assert "is not understood" in pair.lost[0]
    assert pair.context.machine.get("k", 0) is None


async def test_a_command_that_cannot_be_read_is_refused(pair: Pair) -> None:
    failed: list[bytes] = []
    pair.gateway.consensus.failed = lambda number, error: failed.append(str(error).encode())  # type: ignore[method-assign]
    pair.link.send((FromGateway.PROPOSE, 77, True, SECOND_MS, b"\xc1"))
    await turns()
    assert failed
    assert not pair.lost


class Traced:
    """Makes spans that are kept here: implements `Tracer` and the `RequestTrace` of its requests."""

    trace_id = "0" * 32

    def __init__(self, *, samples: bool = True) -> None:
        self._samples = samples
        self.begun: list[tuple[str, str, str]] = []
        self.asked: list[int] = []
        self.ended: list[str] = []

    def begin(self, name: str, traceparent: str, tracestate: str) -> RequestTrace | None:
        self.begun.append((name, traceparent, tracestate))
        return self if self._samples else None

    def carried(self, header: Header) -> tuple[str, str]:
        raise NotImplementedError

    def close(self) -> threading.Thread:
        raise NotImplementedError

    def forwarded(self, node_id: int) -> tuple[str, str]:
        self.asked.append(node_id)
        return "parent", "state"

    def end(self, end: RequestEnd, times: RequestTimes, ended_at: float) -> None:
        assert ended_at >= times.started_at
        self.ended.append(end.outcome)


async def test_a_traced_write_goes_on_in_the_node(pair: Pair) -> None:
    in_gateway, in_node = Traced(), Traced()
    times = RequestTimes(0.0)
    times.trace = in_gateway
    CURRENT.set(times)
    await write(pair, "untraced by the node")
    pair.context.watch.tracer = in_node
    await write(pair, "k")
    pair.consensus.failure = NotLeaderError(2)
    with pytest.raises(NotLeaderError):
        await write(pair, "k")
    assert in_node.begun == [("forward", "parent", "state")] * 2
    assert in_node.ended == ["ok", "not_leader"]
    pair.consensus.failure = None
    pair.context.watch.tracer = ignored = Traced(samples=False)
    await write(pair, "k")
    assert (len(ignored.begun), ignored.ended) == (1, [])
    assert in_gateway.asked == [pair.consensus.current.node_id] * 4
    CURRENT.set(None)
    await write(pair, "k")
    assert len(ignored.begun) == 1


# ----------------------------------------------------------------------------- what the node tells


async def test_what_is_replicated_is_known_before_the_answer_that_rests_on_it(pair: Pair) -> None:
    await pair.gateway.consensus.propose(SetFeature("migration", True), SECOND_MS)
    assert pair.gateway.machine.features == pair.context.machine.features == ("migration",)
    # Another gateway's write: a barrier shows it as well.
    await pair.consensus.propose(SetFeature("migration", False), SECOND_MS)
    assert pair.gateway.machine.features == ("migration",)
    await pair.gateway.consensus.read_barrier(SECOND_MS)
    assert not list(pair.gateway.machine.features)


async def test_a_change_that_has_to_be_told_is_in_force_at_the_gateway_when_that_returns(pair: Pair) -> None:
    pair.node.ping()  # the answer to an earlier ping says nothing
    await pair.consensus.propose(SetFeature("migration", True), SECOND_MS)
    pair.to_node.held = True
    telling = asyncio.ensure_future(pair.node.until_told())
    writing = asyncio.ensure_future(write(pair, "k"))
    await turns()
    assert pair.gateway.machine.features == ("migration",)
    assert not telling.done()
    pair.to_node.held = False
    pair.to_node.deliver()
    await telling
    assert pair.consensus.proposals[-1] == put("k"), "what the gateway asked before is here"
    await writing


async def test_nobody_waits_for_a_gateway_that_has_ended_to_be_told(pair: Pair) -> None:
    pair.to_gateway.held = True
    telling = asyncio.ensure_future(pair.node.until_told())
    await turns()
    assert not telling.done()
    pair.node.link.cut("killed")
    await telling
    await pair.node.until_told()


async def test_all_gateways_are_told_at_once_and_a_dead_one_is_not_waited_for_long(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.gateway.supervisor.TOLD_SECONDS_MAX", 0.0)
    gateways = Gateways(2, pair.context, Spawner(None))
    monkeypatch.setattr(gateways, "ends", lambda: [pair.node])
    pair.to_gateway.held = True
    await gateways.until_told()
    monkeypatch.undo()
    pair.to_gateway.held = False
    monkeypatch.setattr(gateways, "ends", lambda: [pair.node])
    await pair.consensus.propose(SetFeature("migration", True), SECOND_MS)
    await gateways.until_told()
    assert pair.gateway.machine.features == ("migration",)


async def test_status_and_pulse_follow_the_node(pair: Pair) -> None:
    pair.context.draining = True
    pair.consensus.change(term=9)
    pair.node.tell_changes(pair.consensus.status())
    await turns()
    assert pair.gateway.draining
    assert pair.gateway.consensus.status().term == 9
    told = len(pair.asked)
    pair.node.tell_changes(pair.consensus.status())
    await turns()
    assert len(pair.asked) == told, "what is known is not told again"
    await write(pair, "k")
    status = await pair.gateway.fresh_status()
    assert status.last_applied == pair.context.machine.last_applied
    pair.context.copies.serves = False
    pair.node.tell_changes(pair.consensus.status())
    await turns()
    assert not pair.gateway.copies.serves


async def test_a_changed_configuration_reaches_the_gateway(pair: Pair) -> None:
    from metasrv.gateway.beginning import config_in, config_out

    changed = pair.context.config.model_copy(update={"grpc_min_client_version": "2.0.0"})
    assert config_in(config_out(changed)) == changed


async def test_log_lines_carry_the_number_of_the_gateway(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.link.send(
        (FromGateway.LOG, logging.WARNING, "metasrv.grpc_api.kv", "a line", "Traceback: here", {"method": "KvList"})
    )
    await turns()
    [record] = [record for record in caplog.records if record.name == "metasrv.grpc_api.kv"]
    assert record.getMessage() == "a line"
    assert record.__dict__["gateway"] == 1
    assert record.__dict__["method"] == "KvList"
    assert record.exc_text == "Traceback: here"


async def test_log_lines_of_a_request_carry_its_id(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    begin_request(1, {"x-request-id": "req-17"}.get)
    LinkHandler(pair.link).emit(logging.LogRecord("metasrv.grpc_api.kv", logging.WARNING, "", 0, "a line", (), None))
    await turns()
    [record] = [record for record in caplog.records if record.name == "metasrv.grpc_api.kv"]
    assert fields_of(record) == {"request_id": "req-17", "gateway": 1}


async def test_log_lines_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.gateway.log_lines.GATEWAY_LOG_LINES_MAX", 3)
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(pair.link, "send", lambda message, size_bytes=0: sent.append(message))
    handler = LinkHandler(pair.link)
    for number in range(5):
        handler.emit(logging.LogRecord("name", logging.INFO, "", 0, "line %d", (number,), None))
    await turns()
    assert [message[3] for message in sent] == ["line 0", "line 1", "line 2"]
    handler.heard()
    assert "2 log lines of this gateway were dropped" in str(sent[-1][3])
    assert GATEWAY_LOG_LINES_MAX > 3


async def test_damage_that_a_gateway_finds_is_the_nodes(pair: Pair) -> None:
    found: list[str] = []
    pair.context.damage_found = found.append
    pair.gateway.damage_found("state.db: inside the file: bad")
    await turns()
    # The node's end was made with the function that the context had then; it asks the context each time.
    assert found == ["state.db: inside the file: bad"]


# ----------------------------------------------------------------------------- large reads


async def test_a_view_shows_its_instant_and_the_node_can_revoke_it(pair: Pair) -> None:
    await write(pair, "a", b"1")
    await pair.gateway.until_readable()
    reader = pair.gateway.machine.open_reader()
    await turns()
    assert len(pair.context.machine.views) == 1, "the node knows that a gateway pins the state"
    await write(pair, "a", b"2")
    await pair.gateway.until_readable()
    record = reader.get("a")
    assert record is not None
    assert record.data == b"1"
    pair.context.machine.views.revoke("too long")
    await turns()
    with pytest.raises(ViewLostError, match="too long"):
        reader.get("a")
    await turns()
    assert len(pair.context.machine.views) == 0


async def test_instants_are_bounded_and_can_be_lost(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.gateway.file_state.GATEWAY_INSTANTS_MAX", 1)
    await write(pair, "a", b"1")
    await pair.gateway.until_readable()
    lost: list[str] = []
    with pair.gateway.machine.open_instant() as instant:
        instant.on_lost = lambda: lost.append(instant.lost)
        with pytest.raises(OverloadedError, match="already serves 1 reads"):
            pair.gateway.machine.open_instant()
        await write(pair, "a", b"2")
        await pair.gateway.until_readable()
        record = instant.get("a", 0)
        assert record is not None
        assert record.data == b"1"
        pair.gateway.machine.views.revoke("too long")
        assert lost == ["too long"]
        with pytest.raises(ViewLostError):
            instant.get("a", 0)
    with pair.gateway.machine.open_instant():
        assert GATEWAY_INSTANTS_MAX > 1


async def test_after_a_snapshot_took_the_files_place_reads_are_of_the_new_file(pair: Pair, tmp_path: Path) -> None:
    await write(pair, "a", b"old")
    await pair.gateway.consensus.read_barrier(SECOND_MS)
    (tmp_path / "leader").mkdir()
    leader = StateMachine.open(str(tmp_path / "leader" / "state.db"))
    last = pair.context.machine.last_applied
    from metasrv.model.entries import MembershipEntry, RegularEntry
    from metasrv.model.types import Membership

    leader.apply_entry(LogId(1, 1, 1), MembershipEntry(1, Membership(), pair.consensus.current.membership))
    for index in range(2, last.index + 5):
        leader.apply_entry(LogId(1, index, 1), RegularEntry(1_000 * index, 1, (put("a", b"new"),)))
    writer = SnapshotWriter(leader.path)
    log_id = writer.pin()
    tail = SnapshotTail((b"previous", log_id.index - 1, log_id.term), (b"last", log_id.index, log_id.term))
    path = writer.write(str(tmp_path / "one.snap"), tail).path
    leader.close()
    pair.context.machine.install(path)
    with pytest.raises(ViewLostError, match="replaced by a snapshot"):
        pair.gateway.machine.open_reader()
    await pair.gateway.consensus.read_barrier(SECOND_MS)
    record = pair.gateway.machine.get("a", 0)
    assert record is not None
    assert record.data == b"new"
    pair.gateway.machine.open_reader().close()


# ----------------------------------------------------------------------------- watches


async def taken(watch: object, count: int) -> list[WatchItem]:
    items: list[WatchItem] = []
    async with asyncio.timeout(5):
        while len(items) < count:
            items += await watch.next_batch()  # type: ignore[attr-defined]
    return items


async def test_a_watch_shows_what_follows_it_and_nothing_that_came_before(pair: Pair) -> None:
    await write(pair, "w/1")
    watch = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, False)
    await write(pair, "w/2")
    await write(pair, "x")
    await write(pair, "w/3")
    items = await taken(watch, 2)
    assert [item.key for item in items] == ["w/2", "w/3"]
    watch.close()
    await turns()
    assert pair.context.machine.watches.count == 0, "without watchers the node keeps nothing for them"
    assert pair.node.watchers == 0


async def test_existing_records_are_those_of_one_instant_while_the_state_goes_on(pair: Pair) -> None:
    keys = [f"w/{number:04}" for number in range(600)]
    for key in keys:
        await pair.consensus.propose(put(key, b"before"), SECOND_MS)
    watch = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, True)
    for key in keys[::100]:
        await pair.consensus.propose(put(key, b"after"), SECOND_MS)
    items = await taken(watch, 601 + 6)
    flush, changes = items[:600], items[601:]
    assert [item.key for item in flush] == keys
    assert {item.current.data for item in flush if item.current is not None} == {b"before"}
    assert all(item.is_initialization for item in flush)
    assert items[600].marker
    assert [item.key for item in changes] == keys[::100]
    assert {item.current.data for item in changes if item.current is not None} == {b"after"}
    watch.close()


async def test_a_watch_that_is_closed_while_it_begins_or_fetches_leaves_nothing(pair: Pair) -> None:
    await write(pair, "w/1")
    opening = asyncio.ensure_future(pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, True))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await turns()
    watch = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, True)
    watch.close()
    watch.close()
    await turns()
    assert pair.context.machine.watches.count == 0


async def test_a_watcher_that_reads_too_slowly_ends_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.state.watch.WATCH_QUEUE_EVENTS_MAX", 3)
    slow = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, False)
    fast = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, False)
    for number in range(5):
        await write(pair, f"w/{number}")
        await taken(fast, 1)
    with pytest.raises(WatcherOverflow):
        await slow.next_batch()
    await turns()
    assert pair.node.watchers == 1


async def test_all_watches_end_with_the_state(pair: Pair) -> None:
    watch = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, False)
    pair.context.machine.watches.reset("the state was replaced")
    await turns()
    with pytest.raises(WatchReset, match="the state was replaced"):
        await watch.next_batch()
    again = await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, False)
    await write(pair, "w/1")
    assert [item.key for item in await taken(again, 1)] == ["w/1"]
    with pytest.raises(InvalidRequestError, match="empty range"):
        await pair.gateway.open_watch("b", "a", WatchFilter.ALL, False)


async def test_a_link_that_ends_takes_its_watches_and_views_with_it(pair: Pair) -> None:
    await pair.gateway.open_watch("w/", "w0", WatchFilter.ALL, True)
    reader = pair.gateway.machine.open_reader()
    await turns()
    pair.node.link.cut("killed")
    assert pair.lost == ["killed"]
    assert pair.context.machine.watches.count == 0
    assert len(pair.context.machine.views) == 0
    reader.close()


# ----------------------------------------------------------------------------- counts


async def test_the_nodes_metrics_are_the_sum_of_its_gateways(pair: Pair) -> None:
    theirs = MetricsRegistry("1", "c")
    counted = Counted(theirs)
    ours = pair.context.metrics.client
    assert counted.changes() is None
    theirs.rpc_started()
    theirs.rpc_started()
    theirs.rpc_finished(None, 0.002, TRANSACTION)
    theirs.rpc_finished(FailureReason.OVERLOADED, 0.003, KV_LIST)
    theirs.rpc_started()
    theirs.client_connections(7)
    theirs.client_sent_bytes(100)
    theirs.tls_handshakes("grpc", 2)
    theirs.tls_handshake_failed("grpc", "timeout")
    theirs.stream_items("list", 5)
    pair.link.send((FromGateway.COUNTS, counted.changes()))
    await turns()
    assert (ours.succeeded, ours.failed, ours.in_flight, ours.connections, ours.sent_bytes) == (1, 1, 1, 7, 100)
    assert ours.delays_ms["Transaction"].count == 1
    assert ours.method_failures.values == {("KvList", "overloaded"): 1}
    assert ours.failures["read", FailureReason.OVERLOADED] == 1
    assert ours.stream_items["list"] == 5
    assert len(ours.delay_window) == 2
    assert pair.context.metrics.security.handshakes["grpc"] == 2
    theirs.client_sent_bytes(1)
    pair.link.send((FromGateway.COUNTS, counted.changes()))
    await turns()
    assert ours.sent_bytes == 101
    pair.node.link.cut("killed")
    assert (ours.in_flight, ours.connections, ours.sent_bytes) == (0, 0, 101), "what was open went with the gateway"
    assert pair.context.metrics.security.handshakes["grpc"] == 0


def test_every_counter_of_clients_is_the_nodes_too() -> None:
    """A counter that is added to the registry and not to `counts.py` would stay 0 on a node with gateways."""
    theirs, ours = MetricsRegistry("1", "c"), MetricsRegistry("1", "c")
    counted, counts = Counted(theirs), Counts(ours)
    for name, value in vars(theirs.client).items():
        if isinstance(value, int | float):
            setattr(theirs.client, name, value + 3)
        elif isinstance(value, BoundedCounter):
            value.add(("Transaction", "overloaded"), 3)
        elif isinstance(value, dict):
            for label, found in value.items():
                if isinstance(found, Histogram):
                    found.observe(2.0)
                else:
                    value[label] = found + 3
        else:
            assert name == "delay_window", f"say here how {name} counts"
            value.observe(2.0)
    for histogram in theirs.work.step_seconds.values():
        histogram.observe(0.5)
    counts.add(unpack(pack(counted.changes())))
    for name, value in vars(theirs.client).items():
        if name != "delay_window":
            assert numbers_of(getattr(ours.client, name)) == numbers_of(value), name
    assert len(ours.client.delay_window) == 1
    assert numbers_of(ours.work.step_seconds) == numbers_of(theirs.work.step_seconds)


def numbers_of(counter: object) -> object:
    if isinstance(counter, Histogram):
        return counter.sum, counter.counts
    if isinstance(counter, BoundedCounter):
        return counter.values
    if isinstance(counter, dict):
        return {label: numbers_of(found) for label, found in counter.items()}
    return counter


def test_labels_that_a_gateway_folds_are_not_counted_twice() -> None:
    theirs, ours = MetricsRegistry("1", "c"), MetricsRegistry("1", "c")
    counted, counts = Counted(theirs), Counts(ours)
    for number in range(METRICS_LABELS_MAX):
        theirs.client.method_failures.add((f"method-{number}", "overloaded"), 1)
    counts.add(unpack(pack(counted.changes())))
    theirs.client.method_failures.add(("one-more", "overloaded"), 1)
    counts.add(unpack(pack(counted.changes())))
    assert sum(ours.client.method_failures.values.values()) == METRICS_LABELS_MAX + 1


# ----------------------------------------------------------------------------- slow requests, slow writes


async def test_the_slowest_and_largest_writes_of_gateways_are_the_nodes(pair: Pair) -> None:
    gateway = pair.gateway
    for number in range(10 * SLOW_WRITES_KEPT_MAX):
        gateway.slow_writes.note(
            gateway.clock.monotonic(),
            number / 100,
            10_000 - number,
            "Transaction",
            lambda number=number: Written((f"k{number}",), 1),  # type: ignore[misc]
            FailureReason.OVERLOADED if number % 2 else None,
        )
    gateway.tell_slow_writes()
    await turns()
    kept = pair.context.slow_writes
    last = 10 * SLOW_WRITES_KEPT_MAX - 1
    assert [write.written.keys for write in kept.slowest()] == [
        (f"k{last - place}",) for place in range(SLOW_WRITES_KEPT_MAX)
    ]
    assert [write.size_bytes for write in kept.largest()] == [10_000 - place for place in range(SLOW_WRITES_KEPT_MAX)]
    assert kept.slowest()[0].failure == "overloaded"
    assert gateway.slow_writes.taken() == (), "each is told once"
    assert not pair.lost


@pytest.mark.parametrize(
    "wrong", [7, ((float("nan"), 1, "m", (), 0, None),), ((1.0, -1, "m", (), 0, None),), ((),) * 100]
)
def test_slow_writes_of_another_shape_are_refused(wrong: object) -> None:
    with pytest.raises(CodecError):
        note_told(SlowWrites(), 0.0, wrong)


async def test_a_slow_request_of_a_gateway_has_its_line_in_the_nodes_log(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = pair.gateway
    gateway.watch.set_slow_ms(1)
    times = gateway.watch.begin(gateway.clock.monotonic() - 5.0, "Transaction", lambda _key: None)
    assert times is not None
    await write(pair, "k")
    ended = gateway.clock.monotonic()
    assert [stage.stage for stage in times.stages(ended)] == [Stage.QUEUE, Stage.LEADER, Stage.FORWARD, Stage.ANSWER]
    gateway.watch.end(times, ended, lambda: RequestEnd("Transaction", "ok", key=lambda: '"k"'))
    [line] = [record for record in caplog.records if record.name == "metasrv.slow_requests"]
    LinkHandler(pair.link).emit(line)
    await turns()
    [_, told] = [record for record in caplog.records if record.name == "metasrv.slow_requests"]
    assert told.getMessage() == line.getMessage()
    assert fields_of(told) == {**fields_of(line), "gateway": 1}
    assert fields_of(told)["node"] == fields_of(told)["forwarded_to"] == pair.consensus.status().node_id


async def test_fields_of_log_lines_are_bounded_and_plain(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(pair.link, "send", lambda message, size_bytes=0: sent.append(message))
    record = logging.LogRecord("name", logging.INFO, "", 0, "line", None, None)
    record.__dict__.update({f"f{number}": ("no", "text") for number in range(GATEWAY_LOG_FIELDS_MAX + 5)})
    LinkHandler(pair.link).emit(record)
    await turns()
    [message] = sent
    assert fields_in(message[-1]) == {f"f{number}": "('no', 'text')" for number in range(GATEWAY_LOG_FIELDS_MAX)}
    for wrong in ({f"f{number}": 1 for number in range(GATEWAY_LOG_FIELDS_MAX + 1)}, {"f": b""}, {1: 1}, ()):
        with pytest.raises(TypeError):
            fields_in(wrong)
