"""A stream of changes from a node that shows again and again that it keeps up with its leader.

A node tells watchers what it applies. One that was cut off from the others, or restarted with an older state, tells
them nothing wrong and nothing new. So the node is asked for a linearizable read, which it can only answer with all that
was acknowledged before: once before the stream begins, and every few seconds beside it. Knows one connection, no other
endpoint. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.protobuf.message import Message

from metasrv.client.connection import Answer, CallFailedError, Connection
from metasrv.client.outcomes import Outcome
from metasrv.model.errors import NotDoneError
from metasrv.model.limits import CLIENT_WATCH_BUFFER_MESSAGES_MAX
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

CHECK_SECONDS = 5.0
"""Pause between two proofs of a running stream."""
CHECK_SECONDS_MAX = 5.0
"""Longest wait for the answer to one of them."""
_NOTHING = pb.RaftRequest(data='{"MGetKV":{"keys":[]}}')
"""Reads no key, behind a read barrier as every read (docs/contract/grpc.md section e)."""


async def level_stream(
    connection: Connection, method: m.Method, request: Message, start_seconds: float
) -> AsyncGenerator[Answer, None]:
    """The replies of a stream; raises CallFailedError when it breaks or its node falls behind."""
    await _prove(connection, start_seconds)
    handshakes = connection.handshakes
    waiting: asyncio.Queue[Answer | None] = asyncio.Queue(CLIENT_WATCH_BUFFER_MESSAGES_MAX)

    async def read() -> None:
        begun = False
        stream = connection.stream(method, request, None, start_seconds=start_seconds)
        async with aclosing(stream) as answers:
            async for answer in answers:
                if not begun and connection.handshakes != handshakes:
                    failed = NotDoneError(f"{connection.endpoint}: the node may have restarted before the watch began")
                    raise CallFailedError(Outcome(failed, None))
                begun = True
                await waiting.put(answer)

    async def prove() -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await _prove(connection, CHECK_SECONDS_MAX)

    tasks = (asyncio.create_task(read(), name="watch-read"), asyncio.create_task(prove(), name="watch-proof"))

    def ended(_: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        if waiting.empty():
            waiting.put_nowait(None)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        while not (waiting.empty() and any(task.done() for task in tasks)):
            answer = await waiting.get()
            if answer is not None:
                yield answer
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _prove(connection: Connection, seconds: float) -> None:
    """Make sure that the node has all that was acknowledged so far."""
    stream = connection.stream(m.KV_READ_V1, _NOTHING, seconds, start_seconds=seconds)
    try:
        async with aclosing(stream) as answers:
            async for _ in answers:
                break
    except CallFailedError as error:
        if error.outcome.silent:
            failed = NotDoneError(f"{connection.endpoint}: the node does not show that it keeps up with its leader")
            raise CallFailedError(Outcome(failed, None, silent=True)) from error
        raise
