"""Watch streams of real nodes, recorded while faults strike.

One stream of everything a node applies. When it ends it is opened again, with a flush of what exists. `watch_log.py`
judges what the streams told. Runs on an event loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from metasrv.client.answers import watch_event_of
from metasrv.client.connection import Connection, Credentials
from metasrv.model.errors import RequestError
from metasrv.model.types import Endpoint, SeqV
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from verification.watch_log import Change, WatchedStream

FIRST_KEY = " "
LAST_KEY = "~"
"""All keys of a workload lie between these two."""
REOPEN_SECONDS = 0.1


class WatchRecorder:
    """`async with WatchRecorder({1: endpoint, ...}) as recorder:` records until it is left."""

    def __init__(self, endpoints: dict[int, Endpoint]) -> None:
        self.streams: list[WatchedStream] = []
        """All streams, the latest of each node last."""
        self._endpoints = endpoints
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for node_id, endpoint in self._endpoints.items():
            self._tasks.append(asyncio.create_task(self._record(node_id, endpoint), name=f"watch node {node_id}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and error is None:
                raise outcome

    @property
    def node_ids(self) -> list[int]:
        """The nodes that are watched."""
        return sorted(self._endpoints)

    def latest(self, node_id: int) -> WatchedStream | None:
        """The stream of a node that is open now."""
        mine = [stream for stream in self.streams if stream.node_id == node_id]
        return mine[-1] if mine and mine[-1].is_open else None

    async def wait_for(self, node_ids: list[int], key: str, timeout_s: float) -> list[int]:
        """Wait until the open stream of each node has told of `key`; returns the nodes whose stream has not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            missing = [node_id for node_id in node_ids if not self._knows(node_id, key)]
            if not missing or loop.time() > deadline:
                return missing
            await asyncio.sleep(0.02)

    def _knows(self, node_id: int, key: str) -> bool:
        stream = self.latest(node_id)
        return stream is not None and stream.flushed and stream.knows(key)

    async def _record(self, node_id: int, endpoint: Endpoint) -> None:
        request = pb.WatchRequest(key=FIRST_KEY, key_end=LAST_KEY, initial_flush=True)
        while True:
            stream = WatchedStream(node_id)
            connection = Connection(str(endpoint), Credentials())
            try:
                await self._follow(connection, request, stream)
            except RequestError as error:
                stream.end = str(error)
            finally:
                await connection.close()
            await asyncio.sleep(REOPEN_SECONDS)

    async def _follow(self, connection: Connection, request: pb.WatchRequest, stream: WatchedStream) -> None:
        answers = connection.stream(m.WATCH, request, None)
        try:
            async for answer in answers:
                if not stream.is_recorded:
                    stream.is_recorded = True
                    self.streams.append(stream)
                event = watch_event_of(answer.message)
                if event.is_marker:
                    stream.marker()
                elif event.is_initialization:
                    stream.existing(event.key, *_identity(event.current))
                else:
                    stream.changed(Change(event.key, _identity(event.prev)[0], *_identity(event.current)))
            stream.end = "the server ended the watch"
        finally:
            await answers.aclose()


def _identity(record: SeqV | None) -> tuple[int | None, bytes]:
    return (None, b"") if record is None else (record.seq, record.data)
