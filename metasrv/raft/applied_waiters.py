"""Requests that wait until this node's state has applied an index: the last step of a read (invariant 5).

Runs on the event loop. The caller sets the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class AppliedWaiters:
    """Requests that wait until the local state has applied an index."""

    def __init__(self, applied_index: Callable[[], int]) -> None:
        self._applied_index = applied_index
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, index: int) -> None:
        """Return when `index` is applied; the caller sets the deadline."""
        if self._applied_index() >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((index, future))
        await future

    def resolve(self) -> None:
        if not self._waiters:
            return
        applied = self._applied_index()
        left: list[tuple[int, asyncio.Future[None]]] = []
        for index, future in self._waiters:
            if future.done():
                continue
            if index <= applied:
                future.set_result(None)
            else:
                left.append((index, future))
        self._waiters = left

    def fail(self, error: Exception) -> None:
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_exception(error)
