"""Proposals and reads whose callers get their answers at once, for tests of these alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from metasrv.model.commands import Command, Reply
from metasrv.raft.core.answers import Applied, Outcomes, ReadsConfirmed, Rejected
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.core.settling import settle
from metasrv.tracing.times import RequestTimes


class SettledOutcomes(Outcomes):
    """Nothing gathers here."""

    def applied(self, waiters: Sequence[Any], replies: tuple[Reply, ...]) -> None:
        settle([Applied(waiters, replies)], (), ())

    def rejected(self, waiters: Sequence[Any], error: Exception) -> None:
        settle((), [Rejected(waiters, error)], ())

    def confirmed(self, waiters: Sequence[Any], read_indexes: Sequence[int]) -> None:
        settle((), (), [ReadsConfirmed(waiters, read_indexes)])


def settled_proposals(node_id: int, log_time: LogTime) -> Proposals:
    return Proposals(node_id, log_time, SettledOutcomes())


def settled_reads(node_id: int) -> ReadIndex:
    return ReadIndex(node_id, SettledOutcomes())


def submit(
    proposals: Proposals,
    command: Command,
    encoded: bytes,
    now: float,
    timeout_seconds: float,
    times: RequestTimes | None = None,
) -> asyncio.Future[Reply]:
    """As `Driver.submit`."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    proposals.submit(command, encoded, now, timeout_seconds, future, times)
    return future


def register(reads: ReadIndex, read_index: int) -> asyncio.Future[int]:
    """As `ReadBarriers.read_index` does."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    reads.register(read_index, future)
    return future
