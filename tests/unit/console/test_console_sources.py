"""Where events come from besides the engine: the ring itself, counters that are folded, metrics that tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.config.model import Config, RaftConfig
from metasrv.console.folding import FOLD_SECONDS, Folding
from metasrv.model.events import Event, EventKind, Severity
from metasrv.model.limits import EVENT_TEXT_CHARACTERS_MAX, EVENTS_KEPT_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryReport
from metasrv.node.recording import RecordingMetrics
from metasrv.process.event_ring import EventRing
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status, sample_status
from metasrv.testing.hand_clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock(epoch_ms=1_700_000_000_000)


@pytest.fixture
def context(tmp_path: Path, clock: HandClock) -> Iterator[NodeContext]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    config = Config(raft_config=RaftConfig(id=1, raft_dir=str(tmp_path), raft_advertise_host="node1.example"))
    yield fake_context(machine, config, leader_status(), clock)[0]
    machine.close()


def told(events: EventRing) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in events.after(0)]


# ----------------------------------------------------------------------------- the ring


def test_a_ring_keeps_the_newest_and_cuts_long_texts(clock: HandClock) -> None:
    ring, seen = EventRing(clock), list[Event]()
    ring.on_event = seen.append
    for number in range(EVENTS_KEPT_MAX + 1):
        ring.record(EventKind.START, Severity.INFO, f"{number}")
    kept = ring.after(0)
    assert (len(kept), kept[0].text, ring.last_number) == (EVENTS_KEPT_MAX, "1", EVENTS_KEPT_MAX + 1)
    assert len(seen) == EVENTS_KEPT_MAX + 1
    assert [event.number for event in ring.after(EVENTS_KEPT_MAX - 1)] == [EVENTS_KEPT_MAX, EVENTS_KEPT_MAX + 1]
    assert ring.after(ring.last_number) == ()
    for length in (EVENT_TEXT_CHARACTERS_MAX, EVENT_TEXT_CHARACTERS_MAX + 1):
        ring.record(EventKind.START, Severity.INFO, "x" * length)
        assert len(ring.after(0)[-1].text) == EVENT_TEXT_CHARACTERS_MAX


# ----------------------------------------------------------------------------- folded counters


def test_slow_steps_are_folded_and_long_ones_told_at_once(context: NodeContext, clock: HandClock) -> None:
    folding, status = Folding(context), sample_status()
    for _ in range(30):
        for _ in range(4):
            context.metrics.step_took(LoopWork.RAFT_APPLY, 0.020)
        context.metrics.step_took(LoopWork.GRPC_CALL, 0.006)
        clock.advance(2.0)
        assert told(context.events) == [], "not each of them"
        folding.look(status, 5.0, None)
    text = "the event loop was held 150 times within 60 s, 2.6 s together, mostly by raft_apply"
    assert told(context.events) == [("slow_step", text)]
    for _ in range(30):
        context.metrics.step_took(LoopWork.RAFT_APPLY, 0.020)
        clock.advance(2.0)
        folding.look(status, 5.0, None)
    assert len(told(context.events)) == 1, "what takes little together is not worth an event"
    context.metrics.step_took(LoopWork.RAFT_UPKEEP, 0.300)
    folding.look(status, 5.0, None)
    folding.look(status, 1_500.0, None)
    assert told(context.events)[1:] == [
        ("slow_step", "raft_upkeep held the event loop once, 300 ms together"),
        ("slow_step", "this process stood still for 1,500 ms"),
    ]


def test_refused_callers_are_one_event_with_a_count(context: NodeContext, clock: HandClock) -> None:
    folding, status = Folding(context), sample_status()
    for _ in range(7):
        context.metrics.client_connection_refused()
    context.metrics.admin_request("/v1/config", "GET", 401)
    context.metrics.admin_request("/v1/config", "GET", 200)
    context.metrics.tls_handshake_failed("raft", "timeout")
    folding.look(status, 0.0, None)
    assert told(context.events) == [], "not at once"
    clock.advance(FOLD_SECONDS)
    folding.look(status, 0.0, None)
    assert told(context.events) == [
        ("refused_client", "a client was refused, because there are too many connections, 7 times within 10 s"),
        ("refused_client", "a TLS handshake at the raft port failed (timeout), once within 10 s"),
        ("refused_client", "the admin API refused a request with 401, once within 10 s"),
    ]
    clock.advance(FOLD_SECONDS)
    folding.look(status, 0.0, None)
    assert len(told(context.events)) == 3


@pytest.mark.parametrize(("late_ms", "lines"), [(300.0, 1), (600.0, 0)])
def test_a_long_step_has_one_line_in_the_log(
    context: NodeContext, caplog: pytest.LogCaptureFixture, late_ms: float, lines: int
) -> None:
    """From half a second on `node/loop_stalls.py` writes it."""
    caplog.set_level("INFO")
    folding = Folding(context)
    context.metrics.step_took(LoopWork.RAFT_APPLY, late_ms / 1000)
    folding.look(sample_status(), late_ms, None)
    assert told(context.events) == [("slow_step", f"raft_apply held the event loop once, {late_ms:.0f} ms together")]
    assert len(caplog.records) == lines


def test_a_clock_and_a_disk_are_told_when_they_change(context: NodeContext) -> None:
    folding = Folding(context)
    full = DirectoryReport(False, "the data directory x has 5 bytes left", 5, 0.0)
    for _ in range(2):
        folding.look(sample_status(clock_offset_ms=-4_000), 0.0, full)
    folding.look(sample_status(clock_offset_ms=3), 0.0, full._replace(passed=True, reason="it can be written"))
    assert told(context.events) == [
        ("clock", "this node's clock is 4,000 ms behind the majority's, the limit is 1,000 ms"),
        ("disk", "the data directory x has 5 bytes left"),
        ("clock", "this node's clock agrees with the majority's again, within 1,000 ms"),
        ("disk", "it can be written"),
    ]


# ----------------------------------------------------------------------------- metrics that tell


def test_metrics_tell_what_happens_seldom_and_count_as_before(clock: HandClock) -> None:
    metrics = RecordingMetrics("1.2.3", "abc")
    metrics.snapshot_written(1)
    metrics.events = EventRing(clock)
    metrics.snapshot_written(1_000)
    metrics.snapshot_sent(3, 1.25, True)
    metrics.snapshot_sent(3, 2.0, False)
    metrics.snapshot_received(2, 0.5, True)
    metrics.snapshot_received(2, 0.5, False)
    metrics.reloaded("configuration", True)
    metrics.reloaded("grpc", False)
    metrics.reloaded("grpc", False)
    metrics.copies(False, frozenset({3}), 0)
    metrics.copies(True, frozenset(), 1)
    metrics.copies(False, frozenset(), 2)
    assert [text for _, text in told(metrics.events)] == [
        "a snapshot file with 1,000 entries was written",
        "a snapshot was sent to node 3 in 1.2 s",
        "sending a snapshot to node 3 failed after 2.0 s",
        "a snapshot from node 2 arrived in 0.5 s",
        "the snapshot from node 2 was given up after 0.5 s",
        "configuration: loaded anew",
        "grpc: what the files hold now cannot be used; what they held before stays in force",
        "the copy of node 3 is damaged, or not the same as this node's",
        "this node's copy of the state is damaged",
        "the copy of node 3 is the same as this node's again",
        "this node's copy of the state is good again",
    ]
    assert metrics.work.snapshot_written_entries == 1_001
    assert metrics.security.reload_failed == {"configuration": False, "grpc": True}
