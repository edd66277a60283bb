"""Reads that wait without a task: their lines in the log, and what is left to the way of all calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import SecretText
from metasrv.grpc_api import quick_reads
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.status import StatusCode as Code
from metasrv.grpc_api.kv_json import GetKeys, key_of_usual_get, parse_read
from metasrv.model.commands import ReplaceSecret
from metasrv.model.errors import InvalidRequestError, NotDoneError
from metasrv.model.limits import GRPC_STREAMS_PER_CONNECTION_MAX, TOKEN_LIFETIME_SECONDS_MAX
from metasrv.model.passwords import hash_password
from metasrv.model.users import Grant, Right, User, secret_name, user_out
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.tracing.request_ids import current_request_id
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


# ----------------------------------------------------------------------------- lines of the log


class Noting(logging.Handler):
    """Each line, with the id of the request that it is written for."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[logging.LogRecord, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.noted.append((record, current_request_id()))


@pytest.fixture
def lines() -> Any:
    handler = Noting()
    logging.getLogger().addHandler(handler)
    yield handler.noted
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("ends", ["ok", "client_gone", "unavailable"])
async def test_a_slow_read_has_a_line_of_its_own(bench: QuickBench, lines: list[Any], ends: str) -> None:
    bench.context.watch.set_slow_ms(100)
    peer = bench.peer()
    peer.read(1, get("a"), ("x-request-id", "quick"))
    peer.read(3, get("b"), ("x-request-id", "slow"))
    await settle()
    peer.send(f.rst_stream(1, ErrorCode.CANCEL))
    bench.clock.advance(0.15)
    if ends == "client_gone":
        peer.send(f.rst_stream(3, ErrorCode.CANCEL))
    else:
        bench.failure = NotDoneError("no majority") if ends == "unavailable" else None
        bench.gate.set()
        await settle()
    (line, request_id), *_ = [(line, noted) for line, noted in lines if line.name == "metasrv.slow_requests"]
    fields = vars(line)
    assert request_id == "slow"
    assert (fields["method"], fields["request_id"], fields["key"]) == ("KvReadV1", "slow", '"b"')
    assert fields["total_ms"] == 150.0
    assert (fields["outcome"] == "ok") == (ends == "ok")
    assert current_request_id() is None


async def test_a_read_that_fails_unexpectedly_says_which_one_it_was(
    bench: QuickBench, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(key: str, now_ms: int) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(bench.machine, "get", fails)
    peer = bench.peer()
    peer.read(1, get("a"), ("x-request-id", "first"))
    peer.read(3, get("a"), ("x-request-id", "second"))
    bench.gate.set()
    await settle()
    noted = [request_id for line, request_id in lines if line.getMessage() == "a client call failed unexpectedly"]
    assert noted == ["first", "second"]


# ----------------------------------------------------------------------------- what is left to the other way


async def taken(bench: QuickBench, message: bytes, *extra: tuple[str, str]) -> bool:
    """Whether the call waits without a task; its end is awaited."""
    peer = bench.peer()
    peer.read(1, message, *extra)
    call = peer.connection.calls.get(1)
    was = call is not None and isinstance(call._task, quick_reads.QuickRead)
    bench.gate.set()
    await settle()
    peer.connection.connection_lost(None)
    return was


async def test_only_what_is_usual_is_taken(bench: QuickBench) -> None:
    assert await taken(bench, get("a"))
    assert not await taken(bench, get("a"), (m.READ_METADATA_KEY, m.STALE_READ))
    assert not await taken(bench, get('quoted"'))
    assert not await taken(bench, pb.RaftRequest(data='{"MGetKV":{"keys":["a"]}}').SerializeToString())
    bench.dispatcher._streams["ipv4:127.0.0.1:5"] = GRPC_STREAMS_PER_CONNECTION_MAX
    assert not await taken(bench, get("a"))
    del bench.dispatcher._streams["ipv4:127.0.0.1:5"]
    bench.token = b"forged"
    assert not await taken(bench, get("a"))


async def test_rights_are_looked_at_before_and_after_the_wait(tmp_path: Path) -> None:
    bench = QuickBench(tmp_path, grpc_password=SecretText("sesame"))
    bench.gate.set()
    await bench.handshake(password="sesame")
    name = secret_name("app")

    async def may_read(prefix: str) -> None:
        user = user_out(User("app", hash_password("open"), "1", (Grant(Right.READ, prefix),)))
        await bench.consensus.propose(ReplaceSecret(name, bench.machine.secrets.get(name), user), 1000)

    await may_read("a/")
    await bench.handshake(username="app", password="open")
    bench.gate.clear()
    peer = bench.peer()
    peer.read(1, get("b/1"))
    peer.read(3, get("a/1"))
    await settle()
    assert peer.answers() == {1: (str(Code.PERMISSION_DENIED.value), [])}
    await may_read("c/")
    bench.gate.set()
    await settle()
    assert peer.answers() == {3: (str(Code.PERMISSION_DENIED.value), [])}
    await bench.close()


async def test_a_token_that_has_expired_or_whose_password_was_changed_is_not_taken(bench: QuickBench) -> None:
    authenticator = bench.service._authenticator
    assert authenticator.recognize(bench.token) is not None
    authenticator.set_password("another")
    assert authenticator.recognize(bench.token) is None
    authenticator.set_password(None)
    assert authenticator.recognize(bench.token) is not None
    bench.clock.advance(TOKEN_LIFETIME_SECONDS_MAX + 1)
    assert authenticator.recognize(bench.token) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"GetKV":{"key":"a"}}',
        '{"GetKV": {"key": "ä€"}}',
        '{"GetKV":{"key":""}}',
        '{"GetKV":{"key":"a\\n"}}',
        '{"GetKV":{"key":"a","key":"b"}}',
        '{"GetKV":{"key":"' + "k" * 200 + '"}}',
        '{"ListKV":{"prefix":"a"}}',
        "",
    ],
)
def test_the_usual_key_is_the_one_that_a_parser_finds(text: str) -> None:
    data = pb.RaftRequest(data=text).SerializeToString()
    key = key_of_usual_get(data)
    if key is not None:
        assert parse_read(text) == GetKeys([key], many=False)
    usual = text.startswith('{"GetKV"') and "\\" not in text and text.count("key") == 1 and len(text) < 128
    assert (key is not None) == usual


def test_what_only_looks_usual_is_left_to_the_parser() -> None:
    usual = pb.RaftRequest(data='{"GetKV":{"key":"a"}}').SerializeToString()
    assert key_of_usual_get(usual) == "a"
    assert key_of_usual_get(usual + b"\x12\x00") is None
    assert key_of_usual_get(bytes((usual[0], usual[1] + 1)) + usual[2:]) is None
    assert key_of_usual_get(usual.replace(b'"a"', b'"\xff"')) is None
    with pytest.raises(InvalidRequestError):
        parse_read("not JSON")
