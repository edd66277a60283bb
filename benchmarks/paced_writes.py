"""Writes at a steady pace, and what each took. Knows nothing of who is asked."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from grpc.aio import AioRpcError


async def write_at_pace(write: Callable[[], Awaitable[object]], number: int, options: argparse.Namespace) -> list[float]:
    """One of `options.writers` clients that write `options.rate` times a second together; seconds of each write."""
    took: list[float] = []
    pause_seconds = options.writers / options.rate
    begun = time.perf_counter()
    due = begun + pause_seconds * number / options.writers
    while due < begun + options.seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent = time.perf_counter()
        with contextlib.suppress(AioRpcError):  # the leader changed, which is reported; the time counts
            await write()
        took.append(time.perf_counter() - sent)
        due = max(due + pause_seconds, sent)
    return took
