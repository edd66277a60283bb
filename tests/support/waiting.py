"""Waiting for what sets no event: the other side of a socket, another process. Not for unit tests, which do not wait."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable

POLL_SECONDS = 0.002


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(POLL_SECONDS)


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Return once the process accepts connections on this machine's `port`; fail when it ends or after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < deadline, f"nothing listens at port {port} after {seconds} s"
            time.sleep(0.05)
