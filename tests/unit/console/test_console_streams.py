"""Streams of lines: bounded in number and in what waits, cut for slow readers, ended with the node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.admin.app import create_app
from metasrv.admin.line_stream import LineStreamResponse
from metasrv.config.model import Config, RaftConfig
from metasrv.console.console import IDLE_PROBE_TICKS, Console
from metasrv.console.history import SERIES
from metasrv.console.streams import LineStream, Streams
from metasrv.model.errors import NotDoneError, OverloadedError
from metasrv.model.events import EventKind, Severity
from metasrv.model.limits import CONSOLE_LINES_WAITING_MAX, CONSOLE_STREAMS_MAX
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

Message = dict[str, Any]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[NodeContext]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    config = Config(raft_config=RaftConfig(id=1, raft_dir=str(tmp_path)))
    yield fake_context(machine, config, leader_status())[0]
    machine.close()


async def kinds(stream: LineStream) -> list[str]:
    piece = await stream.next()
    assert piece is not None
    return [json.loads(line)["type"] for line in piece.splitlines()]


async def test_a_reader_takes_all_that_waits_at_once_and_then_the_end() -> None:
    stream = LineStream([b"a\n", b"b\n"])
    assert await stream.next() == b"a\nb\n"
    waiting = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    stream.add(b"c\n")
    assert await waiting == b"c\n"
    stream.add(b"d\n")
    stream.end()
    stream.add(b"e\n")
    assert [await stream.next(), await stream.next()] == [b"d\n", None], "what came before the end is still read"


async def test_a_slow_reader_is_cut_at_the_limit() -> None:
    streams = Streams()
    slow, fast = streams.open([]), streams.open([])
    for number in range(CONSOLE_LINES_WAITING_MAX):
        streams.publish(b"%d\n" % number)
        assert await fast.next() == b"%d\n" % number
    assert not slow.ended
    streams.publish(b"one past it\n")
    assert slow.ended
    assert await slow.next() is None, "what waited is dropped"
    assert await fast.next() == b"one past it\n"


async def test_a_stream_begins_with_everything_and_goes_on_with_each_tick(context: NodeContext) -> None:
    console = Console(context)
    context.events.on_event = console._own_event
    stream = await console.open_stream()
    assert await kinds(stream) == ["state", "history", "events"]
    console.tick()
    piece = await stream.next()
    assert piece is not None
    state, point = map(json.loads, piece.splitlines())
    assert (state["state"]["answered_by"], set(point["values"])) == (1, set(SERIES))
    context.events.record(EventKind.LEADER, Severity.INFO, "node 1 leads in term 68", 68)
    assert await kinds(stream) == ["event"]
    later = await (await console.open_stream()).next()
    assert later is not None
    assert b"node 1 leads in term 68" in later, "what happened before it was opened is among the events"
    await console.stop()
    assert await stream.next() is None
    with pytest.raises(NotDoneError):
        await console.open_stream()


async def test_the_disk_is_looked_at_with_each_tick_while_somebody_looks(
    context: NodeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, looks = Console(context), list[int]()

    async def look() -> None:
        looks.append(1)

    monkeypatch.setattr(console.own, "look_at_directory", look)

    async def looks_in(ticks: int) -> int:
        before = len(looks)
        for _ in range(ticks):
            console.tick()
        await asyncio.sleep(0)
        return len(looks) - before

    assert await looks_in(IDLE_PROBE_TICKS) == 1, "seldom while nobody looks"
    await console.open_stream()
    assert await looks_in(IDLE_PROBE_TICKS) == IDLE_PROBE_TICKS
    await console.stop()


async def test_a_state_is_made_once_for_all_streams(context: NodeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(context)
    streams = [await console.open_stream() for _ in range(10)]
    made = []
    real = console.state
    monkeypatch.setattr(console, "state", lambda status: made.append(1) or real(status))  # type: ignore[func-returns-value]
    console.tick()
    assert len(made) == 1
    assert len({id(stream._lines[-1]) for stream in streams}) == 1, "and so is its line"
    await console.stop()


async def test_one_stream_too_many_is_refused_with_a_sentence(context: NodeContext) -> None:
    console = Console(context)
    opened = [await console.open_stream() for _ in range(CONSOLE_STREAMS_MAX)]
    with pytest.raises(OverloadedError, match=f"^{CONSOLE_STREAMS_MAX} pages follow this node already"):
        await console.open_stream()
    answer = await asked(context, console, "/v1/console/stream")
    assert (answer[0]["status"], json.loads(answer[1]["body"])["status"]) == (503, 503)
    console.streams.close(opened[0])
    assert not (await console.open_stream()).ended
    await console.stop()


async def test_a_client_that_leaves_ends_its_stream() -> None:
    streams = Streams()
    stream = streams.open([b"{}\n"])
    left = asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    response = LineStreamResponse(stream, streams.close)
    answering = asyncio.ensure_future(response({"type": "http"}, receive, send))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(streams) == 1
    left.set()
    await answering
    assert [message.get("more_body") for message in sent] == [None, True, False]
    assert not any(name == b"content-length" for name, _ in sent[0]["headers"])
    assert len(streams) == 0


async def asked(context: NodeContext, console: Console, path: str, method: str = "GET") -> list[Message]:
    """What the application sends for a request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    await create_app(context, None, console)({**scope, "root_path": "", "scheme": "http"}, receive, send)
    return sent


async def test_the_head_of_a_stream_ends(context: NodeContext) -> None:
    console = Console(context)
    start, *bodies = await asked(context, console, "/v1/console/stream", "HEAD")
    assert start["status"] == 200
    assert (b"content-type", b"application/x-ndjson") in start["headers"]
    assert b"".join(body["body"] for body in bodies) == b""
    assert len(console.streams) == 0
