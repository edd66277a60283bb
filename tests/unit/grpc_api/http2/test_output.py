"""Frames of one step leave together, in order, and none after the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.output import GATHERED_SIZE_BYTES_MAX, Output
from metasrv.grpc_api.http2.route import Route
from tests.support.http2_bench import Bench, FakeTransport, Peer, settle


@pytest.fixture
async def output() -> Output:
    made = Output(asyncio.get_running_loop())
    transport: Any = FakeTransport()
    made.transport = transport
    return made


def transport_of(output: Output) -> FakeTransport:
    transport: Any = output.transport
    assert isinstance(transport, FakeTransport)
    return transport


async def test_what_may_wait_leaves_with_the_next_frame(output: Output) -> None:
    output.write_soon(b"headers ")
    output.write_soon(b"message ")
    assert transport_of(output).writes == 0
    output.write(b"status")
    assert bytes(transport_of(output).written) == b"headers message status"
    assert transport_of(output).writes == 1
    await asyncio.sleep(0)
    assert transport_of(output).writes == 1


async def test_what_may_wait_leaves_when_the_loop_turns(output: Output) -> None:
    output.write_soon(b"one ")
    output.write_soon(b"two")
    await asyncio.sleep(0)
    assert bytes(transport_of(output).written) == b"one two"
    assert transport_of(output).writes == 1


async def test_much_does_not_wait(output: Output) -> None:
    output.write_soon(b"x" * (GATHERED_SIZE_BYTES_MAX - 1))
    assert transport_of(output).writes == 0
    output.write_soon(b"y")
    assert transport_of(output).writes == 1
    assert len(transport_of(output).written) == GATHERED_SIZE_BYTES_MAX


async def test_nothing_is_written_after_the_end(output: Output) -> None:
    transport = transport_of(output)
    output.write_soon(b"late")
    output.transport = None
    output.write(b"later")
    output.write_soon(b"latest")
    await asyncio.sleep(0)
    assert not transport.written


async def stream_of_three(request: bytes, call: Any) -> None:
    for _ in range(3):
        await call.write(request)


async def last_message(request: bytes, call: Any) -> bytes:
    return request


async def two_messages(request: bytes, call: Any) -> bytes:
    await call.write(request)
    return request


@pytest.mark.parametrize(("handler", "messages"), [(stream_of_three, 3), (last_message, 1), (two_messages, 2)])
async def test_the_answer_of_a_stream_leaves_in_one_piece(handler: Any, messages: int) -> None:
    bench = Bench()
    bench.server.routes = {"/t.T/Stream": Route(handler, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    before = peer.transport.writes
    peer.request(1, length_prefixed(b"abc"), path="/t.T/Stream")
    await settle()
    frames = peer.frames()
    assert [kind for kind, *_ in frames] == [f.HEADERS, *[f.DATA] * messages, f.HEADERS]
    assert [payload for kind, _, _, payload in frames if kind == f.DATA] == [length_prefixed(b"abc")] * messages
    assert peer.transport.writes == before + 1


async def bytes_before_the_loop_turns(message: bytes, joined: int) -> int:
    """What a stream that always finds room sends in one step, in writes of `joined` messages."""
    sent = 0

    async def endless(_request: bytes, call: Any) -> None:
        nonlocal sent
        while True:
            await call.write_prefixed(length_prefixed(message) * joined)
            sent += len(message) * joined

    bench = Bench()
    bench.server.routes = {"/t.T/Stream": Route(endless, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    window = f.WINDOW_SIZE_BYTES_MAX - f.WINDOW_SIZE_BYTES_DEFAULT
    peer.send(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: f.WINDOW_SIZE_BYTES_MAX}) + f.window_update(0, window))
    peer.request(1, length_prefixed(b""), path="/t.T/Stream")
    await asyncio.sleep(0)
    in_a_step = sent
    peer.connection.connection_lost(None)
    await settle()
    return in_a_step


async def test_a_stream_that_finds_room_lets_the_loop_turn() -> None:
    """After 64 small messages, or as many KiB: encoding what is sent takes time as well."""
    assert await bytes_before_the_loop_turns(b"v", 1) == 63
    for joined in (1, 16, 60):
        assert 0 < await bytes_before_the_loop_turns(bytes(250), joined) <= 64 * 1024


async def test_joined_messages_arrive_as_one_frame_and_as_they_are() -> None:
    messages = length_prefixed(b"one") + length_prefixed(b"") + length_prefixed(b"three")

    async def batch(_request: bytes, call: Any) -> None:
        await call.write_prefixed(messages)

    bench = Bench()
    bench.server.routes = {"/t.T/Stream": Route(batch, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    peer.request(1, length_prefixed(b""), path="/t.T/Stream")
    await settle()
    assert [payload for kind, _, _, payload in peer.frames() if kind == f.DATA] == [messages]


async def test_messages_that_leave_at_once_or_not_at_all() -> None:
    """Nothing before the headers, past a window, behind what waits, or after the end; and never a part of a message."""
    calls: list[Any] = []
    message = length_prefixed(bytes(30_000 - 5))

    async def open_stream(_request: bytes, call: Any) -> None:
        calls.append(call)
        assert not call.write_now(message), "there are no headers yet"
        await call.send_initial_metadata(())
        await asyncio.get_running_loop().create_future()

    bench = Bench()
    bench.server.routes = {"/t.T/Watch": Route(open_stream, single_request=True, single_reply=False)}
    peer = Peer(bench.server)
    peer.send(f.settings({f.SETTING_MAX_FRAME_SIZE: 2**20}))
    for stream_id in (1, 3):
        peer.request(stream_id, length_prefixed(b""), path="/t.T/Watch")
    await settle()
    peer.frames()
    first, second = calls
    assert first.write_now(message)
    assert second.write_now(message)
    assert not first.write_now(message), "the connection's window has 5,535 bytes left"
    assert first.write_now(length_prefixed(b"small"))
    await settle()
    data = [(stream, payload) for kind, _, stream, payload in peer.frames() if kind == f.DATA]
    assert data == [(1, message), (3, message), (1, length_prefixed(b"small"))]
    waiting = asyncio.create_task(second.write_prefixed(message))
    await settle()
    assert not second.write_now(length_prefixed(b"small")), "it would overtake what waits"
    peer.send(f.rst_stream(1, f.ErrorCode.CANCEL))
    assert not first.write_now(length_prefixed(b"small")), "the client has left"
    peer.connection.connection_lost(None)
    await asyncio.gather(waiting, return_exceptions=True)
    await settle()
