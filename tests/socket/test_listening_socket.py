"""Listening sockets: what they accept sends small writes at once, on every event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from metasrv.process.listening_socket import listening_socket


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_small_writes_to_clients_are_not_delayed(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Otherwise each part of a streamed answer waits some 40 ms for the acknowledgement of the one before."""

    async def option_of_accepted() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_connect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listening_socket(socket.AF_INET, ("127.0.0.1", 0), 5)
        async with await asyncio.start_server(on_connect, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            found = await accepted
            writer.close()
            await writer.wait_closed()
            return found

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(option_of_accepted()) != 0
