"""A real node under a service manager: it says when it serves, that it lives, and that it stops."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from metasrv import __version__
from tests.conftest import StartCluster

WATCHDOG_MICROSECONDS = 300_000


async def test_a_node_tells_its_service_manager(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        cluster.start(
            1, NOTIFY_SOCKET=listener.getsockname(), WATCHDOG_USEC=str(WATCHDOG_MICROSECONDS), METASRV_COMMIT="c0ffee"
        )
        heard: list[str] = []

        async def until(text: str) -> None:
            async with asyncio.timeout(20):
                while not any(text in one for one in heard):
                    heard.append((await loop.sock_recv(listener, 4096)).decode())

        await until("READY=1")
        status = await cluster.status(1)
        assert status is not None, "a node that says it is ready serves"
        assert status["is_leader"]
        assert status["binary_version"] == f"{__version__}+c0ffee"
        heard.clear()
        for _ in range(3):
            heard.append((await asyncio.wait_for(loop.sock_recv(listener, 4096), 5)).decode())
        assert heard == ["WATCHDOG=1"] * 3
        stopping = asyncio.create_task(cluster.stop(1))
        await until("STOPPING=1")
        assert await stopping == 0
