"""Waiting for what sets no event: the other side of a socket, another process. Not for unit tests, which do not wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_SECONDS = 0.002


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(POLL_SECONDS)
