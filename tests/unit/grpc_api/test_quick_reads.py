"""Reads that wait without a task: they are answered together and end one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.grpc_api import quick_reads
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.status import StatusCode as Code
from metasrv.model.errors import NotDoneError, NotLeaderError
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.types import Endpoint, Node
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.http2_bench import settle
from tests.support.quick_bench import QuickBench, get


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QuickBench]:
    monkeypatch.setattr(quick_reads, "ANSWERING_SECONDS", 60.0)  # the machine may be slow
    made = QuickBench(tmp_path)
    await made.handshake()
    await made.put("a", b"1")
    await made.put("b", b"2")
    yield made
    await made.close()


# ----------------------------------------------------------------------------- answers


async def test_reads_of_one_turn_share_a_barrier_and_leave_in_one_write_each_connection(bench: QuickBench) -> None:
    one, other = bench.peer(), bench.peer()
    one.read(1, get("a"))
    one.read(3, get("absent"))
    other.read(1, get("b"))
    assert not bench.timeouts, "the barrier begins after all of them"
    await settle()
    assert len(bench.timeouts) == 1
    assert bench.counters.in_flight == 3
    writes, succeeded, items = one.transport.writes, bench.counters.succeeded, bench.counters.stream_items["get"]
    bench.gate.set()
    await settle()
    assert one.transport.writes == writes + 1
    answers = one.answers()
    assert {stream: status for stream, (status, _) in answers.items()} == {1: "0", 3: "0"}
    assert [item.value.data for item in answers[1][1]] == [b"1"]
    assert [(item.key, item.HasField("value")) for item in answers[3][1]] == [("absent", False)]
    assert other.answers()[1][1][0].value.data == b"2"
    assert (bench.counters.succeeded, bench.counters.stream_items["get"]) == (succeeded + 3, items + 3)
    assert bench.counters.delays_ms["KvReadV1"].count == 3


async def test_a_read_that_arrives_after_a_barrier_began_waits_for_one_of_its_own(bench: QuickBench) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    await settle()
    peer.read(3, get("a"))
    await settle()
    assert len(bench.timeouts) == 2
    bench.gate.set()
    await settle()
    assert set(peer.answers()) == {1, 3}


async def test_the_answer_is_from_after_the_barrier(bench: QuickBench) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    await settle()
    await bench.put("a", b"newer")
    bench.gate.set()
    await settle()
    assert peer.answers()[1][1][0].value.data == b"newer"


async def test_many_answers_give_the_loop_its_turns(bench: QuickBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_reads, "ANSWERING_SECONDS", 0.0)
    peer = bench.peer()
    for stream_id in range(1, 9, 2):
        peer.read(stream_id, get("a"))
    await settle()
    bench.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    some = len(peer.answers())
    assert 0 < some < 4
    await settle()
    assert len(peer.answers()) == 4 - some


async def test_a_follower_names_the_leader(bench: QuickBench) -> None:
    bench.consensus.change(nodes={2: Node(2, Endpoint("localhost", 1), "", "leader:1")})
    bench.consensus.follow(2)
    bench.clock.advance(1)
    peer = bench.peer()
    peer.read(1, get("a"))
    bench.gate.set()
    await settle()
    assert peer.status(1)[m.LEADER_METADATA_KEY] == "leader:1"


@pytest.mark.parametrize(
    ("timeouts", "rounds"),
    [(("9S", "8999m"), [8900]), (("5S", "9S"), [4900, 8900]), (("400m", "380m"), [320, 340]), ((None, None), [10_000])],
)
async def test_reads_whose_timeouts_are_alike_wait_together(
    bench: QuickBench, timeouts: tuple[str | None, ...], rounds: list[int]
) -> None:
    peer = bench.peer()
    for number, timeout in enumerate(timeouts):
        peer.read(2 * number + 1, get("a"), *(() if timeout is None else (("grpc-timeout", timeout),)))
    await settle()
    assert len(bench.timeouts) == len(rounds)
    for found, expected in zip(sorted(bench.timeouts), rounds, strict=True):
        assert expected - 20 <= found <= expected
    bench.gate.set()
    await settle()
    assert {status for status, _ in peer.answers().values()} == {"0"}


# ----------------------------------------------------------------------------- ends while it waits


async def test_a_reset_ends_one_read_and_leaves_the_others(bench: QuickBench) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    peer.read(3, get("b"))
    await settle()
    peer.send(f.rst_stream(1, ErrorCode.CANCEL))
    assert bench.counters.in_flight == 1
    assert bench.counters.failures["read", FailureReason.CLIENT_GONE] == 1
    assert not bench.given_up
    bench.gate.set()
    await settle()
    assert set(peer.answers()) == {3}


@pytest.mark.parametrize("begun", [False, True])
async def test_nobody_is_asked_for_reads_that_are_gone(bench: QuickBench, begun: bool) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    if begun:
        await settle()
    peer.connection.connection_lost(None)
    await settle()
    assert (len(bench.timeouts), bench.given_up) == (begun, begun)
    other = bench.peer()
    other.read(1, get("a"))
    bench.gate.set()
    await settle()
    assert other.answers()[1][0] == "0"


async def test_the_deadline_of_a_read_that_waits(bench: QuickBench) -> None:
    peer = bench.peer()
    peer.read(1, get("a"), ("grpc-timeout", "9S"))
    await settle()
    peer.connection.calls[1].deadline = 0.0
    bench.server.deadlines.check()
    assert peer.answers()[1] == (str(Code.DEADLINE_EXCEEDED.value), [])
    assert bench.counters.failures["read", FailureReason.CLIENT_GONE] == 1
    await settle()
    assert bench.given_up == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(NotLeaderError(2), FailureReason.NOT_LEADER), (NotDoneError("no majority"), None)],
)
async def test_the_leader_is_lost_while_reads_wait(
    bench: QuickBench, failure: Exception, reason: FailureReason | None
) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    peer.read(3, get("a"))
    await settle()
    bench.failure = failure
    bench.gate.set()
    await settle()
    unavailable: tuple[str, list[pb.StreamItem]] = (str(Code.UNAVAILABLE.value), [])
    assert peer.answers() == {1: unavailable, 3: unavailable}
    assert bench.counters.reads_failed == 2
    if reason is not None:
        assert bench.counters.failures["read", reason] == 2


@pytest.mark.virtual_time
async def test_a_drain_answers_what_waits_and_takes_no_more(bench: QuickBench) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    await settle()
    bench.context.draining = True
    peer.read(3, get("a"))
    await settle()
    assert peer.answers() == {3: (str(Code.UNAVAILABLE.value), [])}
    stopping = asyncio.create_task(bench.server.stop(5))
    await settle()
    assert not stopping.done()
    bench.gate.set()
    await settle()
    assert peer.answers()[1][0] == "0"
    await stopping


@pytest.mark.parametrize("end", ["end_streams", "drop_streams"])
async def test_a_stop_and_a_damaged_copy_end_what_waits(bench: QuickBench, end: str) -> None:
    peer = bench.peer()
    peer.read(1, get("a"))
    peer.read(3, get("a"))
    await settle()
    getattr(bench.dispatcher, end)()
    assert {status for status, _ in peer.answers().values()} == {str(Code.UNAVAILABLE.value)}
    await settle()
    assert bench.given_up == 1
    assert bench.counters.in_flight == 0


async def test_what_cannot_be_answered_ends_alone(bench: QuickBench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.machine.get

    def fails(key: str, now_ms: int) -> Any:
        if key == "b":
            raise RuntimeError("a mistake")
        return found(key, now_ms)

    monkeypatch.setattr(bench.machine, "get", fails)
    peer = bench.peer()
    for stream_id, key in ((1, "a"), (3, "b"), (5, "a")):
        peer.read(stream_id, get(key))
    bench.gate.set()
    await settle()
    statuses = {stream: status for stream, (status, _) in peer.answers().items()}
    assert statuses == {1: "0", 3: str(Code.INTERNAL.value), 5: "0"}
