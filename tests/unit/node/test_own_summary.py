"""What a node says of itself, its bytes in each version, and how it is answered while the disk hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.config.model import Config, RaftConfig
from metasrv.model.errors import CodecError
from metasrv.model.events import Event
from metasrv.model.limits import SUMMARY_EVENTS_MAX
from metasrv.model.summary import (
    FIRST_SUMMARY_VERSION,
    SUMMARY_VERSION,
    TEXT_CHARACTERS_MAX,
    WITHOUT_EVENTS,
    CheckResult,
    SummaryAnswer,
    SummaryQuestion,
    decode_answer,
    encode_answer,
    first_question_fields,
    first_report,
    question_fields,
    question_in,
)
from metasrv.model.types import Endpoint, RaftState
from metasrv.model.wire import pack, unpack
from metasrv.node import own_summary
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryProbe, DirectoryReport
from metasrv.node.own_summary import OwnSummary, admin_address
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from metasrv.testing.hand_clock import HandClock

EVENT = Event(1, 1, "leader", "info", "text", None)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[NodeContext]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    config = Config(raft_config=RaftConfig(id=1, raft_dir=str(tmp_path), raft_advertise_host="node1.example"))
    made = fake_context(machine, config, leader_status(), HandClock(epoch_ms=1_700_000_000_000))[0]
    made.log_sync_seconds = 0.002
    made.metrics.security.expires_at["grpc"] = 1_800_000_000.5
    yield made
    machine.close()


def answer_of(context: NodeContext, events: int = 1) -> SummaryAnswer:
    told = tuple(EVENT._replace(number=number + 1) for number in range(events))
    return SummaryAnswer(OwnSummary(context).summary(leader_status()), "run", told)


# ----------------------------------------------------------------------------- what is said


def test_a_summary_arrives_as_it_was(context: NodeContext) -> None:
    answer = answer_of(context)
    summary = answer.summary
    assert decode_answer(encode_answer(answer)) == answer
    assert (summary.role, summary.state, summary.lags) == ("leader", RaftState.LEADER, ((2, 0),))
    assert (summary.sync_microseconds, summary.started_at_ms) == (2_000, context.started_at_ms)
    assert summary.certificates == (("grpc", 1_800_000_000),)
    assert "data_directory" not in {check.name for check in summary.checks}, "it has not been looked at"
    removed = OwnSummary(context).summary(leader_status(removed="gone"))
    assert (removed.role, removed.state) == ("removed", RaftState.FOLLOWER)


def test_what_is_wrong_is_a_sentence_of_bounded_length(context: NodeContext) -> None:
    checks = (
        CheckResult("a", False, False, "it is broken"),
        CheckResult("b", True, True, "it may break"),
        CheckResult("copy", True, False, "ALARM: copies differ"),
        CheckResult("c", False, False, "x" * TEXT_CHARACTERS_MAX),
        CheckResult("d", True, False, "all is well"),
    )
    summary = answer_of(context).summary._replace(checks=checks)
    assert summary.not_ready == f"it is broken; {'x' * TEXT_CHARACTERS_MAX}"[:TEXT_CHARACTERS_MAX]
    assert summary.warnings == "it may break; ALARM: copies differ"


async def test_a_disk_that_hangs_does_not_keep_an_answer_back(
    context: NodeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def hang(_self: DirectoryProbe) -> DirectoryReport:
        await release.wait()
        return DirectoryReport(False, "the disk is full", 5, 0.0)

    monkeypatch.setattr(DirectoryProbe, "report", hang)
    monkeypatch.setattr(own_summary, "PROBE_WAIT_SECONDS", 0.0)
    own = OwnSummary(context)
    answer = await own.answer(WITHOUT_EVENTS)
    assert "data_directory" not in {check.name for check in answer.summary.checks}
    assert answer.events == ()
    release.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await own.own()).not_ready.endswith("the disk is full")


@pytest.mark.parametrize(
    ("configured", "host"),
    [
        ("0.0.0.0:0", "node1.example"),
        ("[::]:0", "node1.example"),
        ("10.1.2.3:0", "10.1.2.3"),
        ("localhost:0", "localhost"),
    ],
)
def test_the_admin_address_is_one_that_others_reach(context: NodeContext, configured: str, host: str) -> None:
    assert admin_address(context) is None
    context.config = context.config.model_copy(update={"admin_api_address": configured})
    context.listeners["admin"] = Endpoint("0.0.0.0", 28101)
    assert admin_address(context) == Endpoint(host, 28101)


# ----------------------------------------------------------------------------- bytes


def test_a_summary_of_another_version_or_form_is_refused(context: NodeContext) -> None:
    good = encode_answer(answer_of(context, SUMMARY_EVENTS_MAX))
    assert len(decode_answer(good).events) == SUMMARY_EVENTS_MAX
    with pytest.raises(CodecError, match="129 events, the limit is 128"):
        decode_answer(encode_answer(answer_of(context, SUMMARY_EVENTS_MAX + 1)))
    version, summary, incarnation, events = unpack(good)
    with pytest.raises(CodecError, match=f"version 3, this node knows version {SUMMARY_VERSION}"):
        decode_answer(pack((version + 1, summary, incarnation, events)))
    for number in range(len(summary)):
        broken = (*summary[:number], {"a": 1}, *summary[number + 1 :])
        with pytest.raises(CodecError):
            decode_answer(pack((version, broken, incarnation, events)))
    for wrong in (
        b"",
        pack(7),
        pack((version, summary, 5, events)),
        pack((version, summary[:-1], incarnation, events)),
        pack(([], summary, incarnation, events)),
        pack((version, 5, incarnation, events)),
        pack((FIRST_SUMMARY_VERSION, summary, incarnation, events)),
    ):
        with pytest.raises(CodecError):
            decode_answer(wrong)


def test_a_question_names_the_newest_version_that_is_known() -> None:
    question = SummaryQuestion("run", 7, 20)
    assert question_in(question_fields(question)) == (question, SUMMARY_VERSION)
    assert question_in(first_question_fields(question)) == (SummaryQuestion("run", 7), FIRST_SUMMARY_VERSION)
    later = ["run", 7, SUMMARY_VERSION + 1, 10**6, "a field of the future"]
    assert question_in(later) == (SummaryQuestion("run", 7, SUMMARY_EVENTS_MAX), SUMMARY_VERSION)
    for wrong in ([], ["run"], ["run", 7, 2], [7, "run"], ["run", 7, "2", 1], ["run", 7, 2, -1]):
        with pytest.raises((TypeError, ValueError)):
            question_in(wrong)


def test_release_0_2_0_is_answered_in_its_own_form(context: NodeContext) -> None:
    """Its decoder takes version 1 alone, with exactly these fields; `report` was its other question."""
    answer = answer_of(context)
    version, summary, incarnation, events = unpack(encode_answer(answer, FIRST_SUMMARY_VERSION))
    assert (version, incarnation, len(events)) == (1, "run", 1)
    assert len(summary) == 17
    assert summary == unpack(encode_answer(answer))[1][:17]
    read = decode_answer(pack((version, summary, incarnation, events)))
    assert read.summary == answer.summary._replace(started_at_ms=None, certificates=())
    report = first_report(answer.summary)
    assert report[:6] == ("1.2.3", "Leader", 67, 1, 53067, 53067)
    assert report[6:] == (context.started_at_ms, -2, answer.summary.not_ready, "", (("grpc", 1_800_000_000),), "")
