"""Gives callers their answers: the one place where what the core decided becomes the result of a future.

Runs on the event loop. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from metasrv.raft.core.answers import Applied, ReadsConfirmed, Rejected


def settle(applied: Sequence[Applied], rejected: Sequence[Rejected], confirmed: Sequence[ReadsConfirmed]) -> None:
    """Answer every caller that still waits, in this order; each one is an `asyncio.Future`."""
    for waiters, replies in applied:
        for waiter, reply in zip(waiters, replies, strict=True):
            if not waiter.done():
                waiter.set_result(reply)
    for waiters, error in rejected:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
    for waiters, read_indexes in confirmed:
        for waiter, read_index in zip(waiters, read_indexes, strict=True):
            if not waiter.done():
                waiter.set_result(read_index)
