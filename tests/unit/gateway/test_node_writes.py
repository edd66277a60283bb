"""What becomes of a gateway's commands in its node, where the node leads and where another one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metasrv.gateway.messages import FromNode
from metasrv.gateway.node_writes import NodeWrites, OwnLog, Proposal
from metasrv.model.codec import decode_command, decode_reply, encode_command
from metasrv.model.commands import Get, MatchKind, MatchSeq, Operation, Transaction, Upsert, UpsertReply
from metasrv.model.entries import decode_entry, encode_regular_entry
from metasrv.model.errors import CodecError, NotLeaderError, StoppingError, UnknownOutcomeError
from metasrv.model.wire import pack
from metasrv.raft.core.log_time import LogTime
from metasrv.testing.hand_clock import HandClock
from tests.support.grpc_bench import make_context
from tests.support.settled import settled_proposals, submit

SECOND_MS = 1_000
TERM = 3


def put(key: str) -> Upsert:
    return Upsert(key, MatchSeq(MatchKind.ANY, 0), Operation.UPDATE, b"v")


def proposal(number: int, *, timeout_ms: int = SECOND_MS, forwards: bool = True) -> Proposal:
    return Proposal(number, forwards, timeout_ms, encode_command(put(f"k{number}")))


class Bench:
    """The writes of one gateway in a node that leads unless `leads` is False."""

    def __init__(self, directory: Path) -> None:
        self.context, self.consensus = make_context(directory)
        self.clock = HandClock()
        self.leads = True
        self.refusal: Exception | None = None
        self.proposals = settled_proposals(1, LogTime(self.clock, 0))
        self.woken = 0
        self.told = 0
        self.sent: list[tuple[Any, ...]] = []
        self.failures: dict[int, Exception] = {}
        own_log = OwnLog(lambda: self.leads, self._refuse, partial(submit, self.proposals), self._wake)
        self.writes = NodeWrites(
            self.consensus,
            own_log,
            self.clock,
            self.context.watch,
            self,  # type: ignore[arg-type]  # what is used of a link
            self._tell,
            self.failures.__setitem__,
        )

    def send(self, message: tuple[Any, ...], size_bytes: int = 0) -> None:
        assert size_bytes == len(message[2])
        self.sent.append(message)

    @property
    def answered(self) -> list[int]:
        assert all(kind == FromNode.DONE for kind, *_ in self.sent)
        return [number for _, number, _ in self.sent]

    def enter(self, index: int) -> int:
        """Put what waits into the log; returns how many commands."""
        batch = self.proposals.take_batch()
        assert batch is not None
        _, entry, proposals = batch
        self.proposals.entered(index, TERM, entry, proposals, self.clock.monotonic())
        return len(proposals)

    def apply(self, index: int, count: int) -> None:
        self.proposals.applied(index, TERM, tuple(UpsertReply(None, None) for _ in range(count)))

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _wake(self, _now: float) -> None:
        self.woken += 1

    def _tell(self) -> None:
        self.told += 1


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.context.machine.close()


async def turns() -> None:

    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_came_together_is_proposed_and_answered_together(bench: Bench) -> None:
    bench.writes.propose([proposal(number) for number in (7, 8, 9)])
    assert bench.woken == 1
    assert bench.enter(1) == 3
    await turns()
    assert not bench.sent
    bench.apply(1, 3)
    await turns()
    assert bench.answered == [7, 8, 9]
    assert bench.told == 1, "what changed with the writes is told before their answers"
    assert decode_reply(bench.sent[0][2]) == UpsertReply(None, None)


async def test_a_frame_that_becomes_several_entries_is_answered_entry_by_entry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.raft.core.proposals.ENTRY_COMMANDS_MAX", 2)
    bench.writes.propose([proposal(number) for number in range(5)])
    counts = [bench.enter(index) for index in (1, 2, 3)]
    assert counts == [2, 2, 1]
    for index, answered in ((1, [0, 1]), (2, [0, 1, 2, 3]), (3, [0, 1, 2, 3, 4])):
        bench.apply(index, counts[index - 1])
        await turns()
        assert bench.answered == answered


async def test_commands_that_may_not_be_taken_cost_the_others_nothing(bench: Bench) -> None:
    bench.writes.propose([proposal(1), Proposal(2, True, SECOND_MS, b"\xc1"), proposal(3)])
    assert isinstance(bench.failures[2], CodecError)
    bench.apply(1, bench.enter(1))
    await turns()
    assert bench.answered == [1, 3]
    bench.refusal = StoppingError()
    bench.writes.propose([proposal(4)])
    assert bench.failures[4] is bench.refusal


async def test_bytes_that_no_encoder_writes_do_not_reach_the_log(bench: Bench) -> None:
    """What can be read alone and not in an entry, where it is nested deeper, would stop every node for good."""
    too_deep = b"\x91" * 1_021 + b"\xc0"
    operations = b"\x81" + pack((0, "k")) + too_deep  # a map in the place of an array: its key reads as an operation
    odd = b"\x95" + pack(1) + b"\x90\x90" + operations + b"\x90"
    assert decode_command(odd) == Transaction((), (), (Get("k"),), ())
    with pytest.raises(CodecError):
        decode_entry(encode_regular_entry(0, 1, [odd]))
    bench.writes.propose([Proposal(1, True, SECOND_MS, odd)])
    batch = bench.proposals.take_batch()
    assert batch is not None
    content, entry, _ = batch
    assert decode_entry(content) == entry


async def test_times_to_wait_are_each_commands_own(bench: Bench) -> None:
    bench.writes.propose([proposal(1, timeout_ms=5_000), proposal(2, forwards=False), proposal(3, timeout_ms=5_000)])
    assert bench.enter(1) == 3
    bench.clock.now += 2.0
    bench.proposals.expire(bench.clock.monotonic(), leads=True)
    await turns()
    assert list(bench.failures) == [2]
    assert isinstance(bench.failures[2], UnknownOutcomeError)
    bench.apply(1, 3)
    await turns()
    assert bench.answered == [1, 3]


async def test_what_was_certainly_not_executed_is_proposed_again_where_the_gateway_wants_it(bench: Bench) -> None:
    bench.writes.propose([proposal(1), proposal(2, forwards=False)])
    bench.leads = False
    bench.proposals.not_leader(2)
    await turns()
    assert bench.answered == [1], "another node has taken it"
    assert bench.consensus.proposals == [put("k1")]
    assert isinstance(bench.failures[2], NotLeaderError)


async def test_what_may_have_been_executed_is_not_proposed_again(bench: Bench) -> None:
    bench.writes.propose([proposal(1)])
    bench.enter(1)
    bench.proposals.state_replaced(1)
    await turns()
    assert isinstance(bench.failures[1], UnknownOutcomeError)
    assert not bench.consensus.proposals


async def test_without_time_left_it_is_not_proposed_again(bench: Bench) -> None:
    bench.writes.propose([proposal(1)])
    bench.clock.now += 0.99
    bench.proposals.not_leader(2)
    await turns()
    assert isinstance(bench.failures[1], NotLeaderError)
    assert not bench.consensus.proposals


async def test_a_node_that_does_not_lead_forwards_or_refuses(bench: Bench) -> None:
    bench.leads = False
    bench.consensus.follow(2)
    bench.writes.propose([proposal(1), proposal(2, forwards=False), Proposal(3, True, SECOND_MS, b"\xc1")])
    await turns()
    assert bench.answered == [1]
    assert isinstance(bench.failures[2], NotLeaderError)
    assert isinstance(bench.failures[3], CodecError)
    assert not bench.proposals.waiting()


async def test_nobody_is_answered_once_the_gateway_is_gone(bench: Bench) -> None:
    bench.writes.propose([proposal(1), proposal(2)])
    bench.writes.close()
    bench.enter(1)
    bench.proposals.state_replaced(1)
    await turns()
    assert not bench.sent
    assert not bench.failures
    assert not bench.told
