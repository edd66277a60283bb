"""Small writes in one coroutine: the same answers as the way of all calls, and the same ends while they wait."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import SecretText
from metasrv.grpc_api import quick_writes
from metasrv.grpc_api.encoding import LARGE_SIZE_BYTES_MIN
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.status import StatusCode as Code
from metasrv.grpc_api.replies import RESPONSES_AT_ONCE
from metasrv.model.commands import ReplaceSecret, SetReadOnly
from metasrv.model.errors import NotDoneError, NotLeaderError, UnknownOutcomeError
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.passwords import hash_password
from metasrv.model.types import Endpoint, Node
from metasrv.model.users import Grant, Right, User, secret_name, user_out
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.tracing.request_ids import current_request_id
from tests.support.http2_bench import settle
from tests.support.quick_bench import QuickBench, Reader


def put_operation(key: str, value: bytes = b"v", **more: Any) -> pb.TxnOp:
    return pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value, **more))


def put(key: str, value: bytes = b"v") -> bytes:
    return pb.TxnRequest(if_then=[put_operation(key, value)]).SerializeToString()


def upsert(key: str) -> bytes:
    body = {"key": key, "seq": {"GE": 0}, "value": {"Update": [1]}, "value_meta": None}
    return pb.RaftRequest(data=json.dumps({"UpsertKV": body})).SerializeToString()


class Proposals:
    """What the node's consensus was asked to propose, in place of the bench's own; each waits until it may go on."""

    def __init__(self, bench: QuickBench) -> None:
        self._propose = bench.consensus.propose
        self.gate = asyncio.Event()
        self.asked = 0
        self.given_up = 0
        self.failure: Exception | None = None
        bench.consensus.propose = self.propose  # type: ignore[method-assign]

    async def propose(self, command: Any, timeout_ms: int) -> Any:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.failure is not None:
            raise self.failure
        return await self._propose(command, timeout_ms)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[QuickBench]:
    made = QuickBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


@pytest.fixture
def proposals(bench: QuickBench) -> Proposals:
    return Proposals(bench)


def is_taken(bench: QuickBench, peer: Reader, stream_id: int) -> bool:
    """Whether a call goes the short way; asked before it has begun."""
    task = peer.connection.calls[stream_id]._task
    assert isinstance(task, asyncio.Task)
    return "QuickWrites" in str(task.get_coro())


# ----------------------------------------------------------------------------- answers

LARGE = bytes(LARGE_SIZE_BYTES_MIN)
MANY = pb.TxnRequest(if_then=[put_operation(f"m{i}") for i in range(RESPONSES_AT_ONCE + 1)]).SerializeToString()
GETS = pb.TxnRequest(
    condition=[pb.TxnCondition(key="large", seq=0, expected=pb.TxnCondition.GT)],
    if_then=[pb.TxnOp(get=pb.TxnGetRequest(key="large"))],
    else_then=[pb.TxnOp(delete=pb.TxnDeleteRequest(key="a"))],
).SerializeToString()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (m.TRANSACTION, put("a")),
        (m.TRANSACTION, b""),
        (m.TRANSACTION, MANY),
        (m.TRANSACTION, GETS),
        (m.TRANSACTION, pb.TxnRequest(if_then=[put_operation("a", ttl_ms=5000)]).SerializeToString()),
        (m.KV_API, upsert("a")),
        (m.KV_API, upsert("large")),
    ],
)
async def test_the_answer_is_that_of_the_other_way(tmp_path: Path, method: m.Method, message: bytes) -> None:
    """Two nodes with the same history, of which one is asked the other way."""
    answers = []
    for quick in (True, False):
        directory = tmp_path / str(quick)
        directory.mkdir()
        bench = QuickBench(directory)
        bench.gate.set()
        await bench.handshake()
        await bench.put("large", LARGE)
        bench.consensus.hold = None
        if quick:
            peer = bench.peer()
            peer.send(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: f.WINDOW_SIZE_BYTES_MAX}))
            peer.send(f.window_update(0, 1 << 24))
            peer.ask(method, 1, message)
            assert is_taken(bench, peer, 1)
            for _ in range(20):
                await settle()
            status, answer = peer.messages()[1]
            assert status == "0"
            answers.append(answer)
        else:
            answers.append(b"".join((await bench.call(method, message)).sent))
        await bench.close()
    parse = method.reply.FromString
    shown = [str(parse(answer)).replace("proposed_at_ms", "") for answer in answers]
    assert _without_times(shown[0]) == _without_times(shown[1])


def _without_times(text: str) -> str:
    """The two nodes were asked at different times."""
    return "".join(character for character in text if not character.isdigit())


async def test_a_write_is_counted_once(bench: QuickBench, proposals: Proposals) -> None:
    peer = bench.peer()
    before = bench.counters.succeeded
    peer.ask(m.TRANSACTION, 1, put("a"))
    await settle()
    assert (bench.counters.in_flight, proposals.asked) == (1, 1)
    proposals.gate.set()
    await settle()
    assert peer.messages()[1][0] == "0"
    assert bench.counters.succeeded == before + 1
    assert bench.counters.delays_ms["Transaction"].count == 1
    assert bench.context.slow_writes.slowest()[0].written.keys == ("a",)


@pytest.mark.parametrize(
    ("method", "message", "names"), [(m.TRANSACTION, put("a"), True), (m.KV_API, upsert("a"), False)]
)
async def test_a_follower_names_the_leader_in_a_transaction(
    bench: QuickBench, method: m.Method, message: bytes, names: bool
) -> None:
    bench.consensus.change(nodes={2: Node(2, Endpoint("localhost", 1), "", "leader:1")})
    bench.consensus.follow(2)
    bench.clock.advance(1)
    peer = bench.peer()
    peer.ask(method, 1, message)
    await settle()
    assert (m.LEADER_METADATA_KEY in peer.status(1)) == names


# ----------------------------------------------------------------------------- ends while it waits


@pytest.mark.parametrize("begun", [True, False])
async def test_a_reset_ends_the_write(bench: QuickBench, proposals: Proposals, begun: bool) -> None:
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"))
    if begun:
        await settle()
    peer.send(f.rst_stream(1, ErrorCode.CANCEL))
    await settle()
    assert (proposals.asked, proposals.given_up) == (begun, begun)
    assert bench.counters.failures["write", FailureReason.CLIENT_GONE] == begun
    assert bench.counters.in_flight == 0
    assert not peer.messages()


async def test_the_deadline_of_a_write_that_waits(bench: QuickBench, proposals: Proposals) -> None:
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"), ("grpc-timeout", "9S"))
    await settle()
    peer.connection.calls[1].deadline = 0.0
    bench.server.deadlines.check()
    await settle()
    assert peer.messages()[1] == (str(Code.DEADLINE_EXCEEDED.value), b"")
    assert proposals.given_up == 1


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (NotLeaderError(2), Code.UNAVAILABLE, FailureReason.NOT_LEADER),
        (NotDoneError("too late"), Code.UNAVAILABLE, None),
        (UnknownOutcomeError("it may still take effect"), Code.ABORTED, None),
        (RuntimeError("a mistake"), Code.INTERNAL, FailureReason.INTERNAL),
    ],
)
async def test_the_leader_is_lost_while_a_write_waits(
    bench: QuickBench, proposals: Proposals, failure: Exception, code: Code, reason: FailureReason | None
) -> None:
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"))
    await settle()
    proposals.failure = failure
    proposals.gate.set()
    await settle()
    status = peer.status(1)
    assert status["grpc-status"] == str(code.value)
    certain = isinstance(failure, NotDoneError)
    assert (status.get(m.OUTCOME_METADATA_KEY) == m.NOT_DONE) == certain
    if reason is not None:
        assert bench.counters.failures["write", reason] == 1


@pytest.mark.virtual_time
async def test_a_drain_answers_what_waits_and_takes_no_more(bench: QuickBench, proposals: Proposals) -> None:
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"))
    await settle()
    bench.context.draining = True
    peer.ask(m.TRANSACTION, 3, put("a"))
    await settle()
    assert peer.messages()[3][0] == str(Code.UNAVAILABLE.value)
    stopping = asyncio.create_task(bench.server.stop(5))
    await settle()
    proposals.gate.set()
    await settle()
    assert peer.messages()[1][0] == "0"
    await stopping


@pytest.mark.virtual_time
async def test_a_stop_cuts_a_write_that_takes_too_long(bench: QuickBench, proposals: Proposals) -> None:
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"))
    await settle()
    await bench.server.stop(0.1)
    assert peer.messages()[1][0] == str(Code.ABORTED.value), "its outcome is not known"
    assert proposals.given_up == 1


# ----------------------------------------------------------------------------- what is left to the other way


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        (m.TRANSACTION, b"\xff\xff", Code.INVALID_ARGUMENT),
        (m.TRANSACTION, put("k" * 5000), Code.INVALID_ARGUMENT),
        (m.KV_API, pb.RaftRequest(data="not JSON").SerializeToString(), Code.INTERNAL),
        (m.TRANSACTION, put("a", bytes(5000)), Code.OK),
        (m.KV_TRANSACTION, b"", Code.OK),
    ],
)
async def test_what_is_not_usual(
    bench: QuickBench, monkeypatch: pytest.MonkeyPatch, method: m.Method, message: bytes, code: Code
) -> None:
    monkeypatch.setattr(quick_writes, "SMALL_SIZE_BYTES_MAX", 5000)
    peer = bench.peer()
    before = bench.counters.succeeded, bench.counters.failed
    peer.ask(method, 1, message)
    for _ in range(3):
        await settle()
    assert peer.messages()[1][0] == str(code.value)
    counted = (1, 0) if code is Code.OK else (0, 1)
    assert (bench.counters.succeeded - before[0], bench.counters.failed - before[1]) == counted


async def test_writes_that_are_turned_off_and_forged_tokens(bench: QuickBench) -> None:
    bench.gate.set()
    await bench.consensus.propose(SetReadOnly("upkeep"), 1000)
    peer = bench.peer()
    peer.ask(m.TRANSACTION, 1, put("a"))
    assert not is_taken(bench, peer, 1)
    bench.token = b"forged"
    peer.ask(m.TRANSACTION, 3, put("a"))
    assert not is_taken(bench, peer, 3)
    await settle()
    codes = {stream: status for stream, (status, _) in peer.messages().items()}
    assert codes == {1: str(Code.FAILED_PRECONDITION.value), 3: str(Code.UNAUTHENTICATED.value)}


@pytest.mark.parametrize(("method", "message"), [(m.TRANSACTION, put), (m.KV_API, upsert)])
async def test_a_user_writes_what_it_may(tmp_path: Path, method: m.Method, message: Any) -> None:
    bench = QuickBench(tmp_path, grpc_password=SecretText("sesame"))
    bench.gate.set()
    await bench.handshake(password="sesame")
    user = user_out(User("app", hash_password("open"), "1", (Grant(Right.WRITE, "a/"),)))
    await bench.consensus.propose(ReplaceSecret(secret_name("app"), None, user), 1000)
    await bench.handshake(username="app", password="open")
    peer = bench.peer()
    peer.ask(method, 1, message("a/1"))
    assert is_taken(bench, peer, 1)
    peer.ask(method, 3, message("b/1"))
    await settle()
    codes = {stream: status for stream, (status, _) in peer.messages().items()}
    assert codes == {1: "0", 3: str(Code.PERMISSION_DENIED.value)}
    await bench.close()


async def test_a_slow_write_has_a_line_with_its_id(bench: QuickBench, proposals: Proposals) -> None:
    noted: list[tuple[Any, str | None]] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            noted.append((record, current_request_id()))

    handler = Noting()
    logging.getLogger().addHandler(handler)
    try:
        bench.context.watch.set_slow_ms(100)
        peer = bench.peer()
        peer.ask(m.TRANSACTION, 1, put("a/b"), ("x-request-id", "req-17"))
        await settle()
        bench.clock.advance(0.15)
        proposals.gate.set()
        await settle()
    finally:
        logging.getLogger().removeHandler(handler)
    ((line, request_id),) = [(line, noted_id) for line, noted_id in noted if line.name == "metasrv.slow_requests"]
    fields = vars(line)
    assert (request_id, fields["request_id"], fields["method"], fields["key"]) == (
        "req-17",
        "req-17",
        "Transaction",
        '"a/b"',
    )
    assert (fields["total_ms"], fields["outcome"]) == (150.0, "ok")
    assert current_request_id() is None
