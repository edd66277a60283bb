"""Group commit: proposals wait here, leave as one log entry, and get their replies when it is applied.

A lone proposal leaves at once. Among several callers a batch leaves when no proposal has come for a fraction of a
millisecond, more where there are more callers, or some milliseconds after its first (ARCHITECTURE.md section 4): each
batch costs every node a message, a sync and a transaction, so larger batches halve the cost of a write and shorten its
latency. The sign that a batch is complete is a pause, not a count: on a busy loop proposals arrive one after the other,
so the count seen so far is always too low. Every proposal ends as done, not done, or unknown (D15), by its deadline at
the latest, and its outcome goes to `answers.py`. No clock and no future of its own; runs on the event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from metasrv.model.commands import Command, Reply
from metasrv.model.entries import RegularEntry, encode_regular_entry, time_ms_of
from metasrv.model.errors import NotDoneError, NotLeaderError, OverloadedError, UnknownOutcomeError
from metasrv.model.limits import (
    ENTRY_COMMANDS_MAX,
    ENTRY_SIZE_BYTES_TARGET,
    PROPOSALS_WAITING_BYTES_MAX,
    PROPOSALS_WAITING_MAX,
)
from metasrv.raft.core.answers import Outcomes, Waiter
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.patience import WRITE_GRACE_SECONDS
from metasrv.raft.log.format import CONTENT
from metasrv.raft.log.store import LogStore
from metasrv.tracing.times import BatchTimes, RequestTimes

PACE_SECONDS_MAX = 0.01
"""A batch never waits longer for company."""
PAUSE_SECONDS_MIN = 0.0002
PAUSE_SECONDS_MAX = 0.001
PAUSE_SECONDS_PER_CALLER = 0.000_012_5
"""A burst is over after this time without a new proposal: few callers come back soon, many one after the other."""
_NEVER = math.inf


class _Proposal(NamedTuple):
    command: Command
    encoded: bytes
    waiter: Waiter
    deadline: float
    times: RequestTimes | None


class _Batch(NamedTuple):
    term: int
    entry: RegularEntry
    proposals: list[_Proposal]
    times: BatchTimes


class Proposals:
    """One node's proposals: those that wait, and its batches that are in the log but not yet applied."""

    def __init__(self, node_id: int, log_time: LogTime, outcomes: Outcomes) -> None:
        self._own_id = node_id
        self._outcomes = outcomes
        self._log_time = log_time
        self._waiting: deque[_Proposal] = deque()
        self._waiting_bytes = 0
        self._oldest_at = 0.0
        self._newest_at = 0.0
        self._next_deadline = _NEVER
        """No proposal is overdue before this moment."""
        self._lost_at: float | None = None
        """When this node was first seen not to lead while its own proposals were in the log."""
        self._in_flight: dict[int, _Batch] = {}
        self._in_flight_count = 0
        self._unsynced: BatchTimes | None = None
        """Stamps of the batch whose write to the log is under way."""
        self._callers = 0
        """How many callers propose at present: the most proposals recently pending at once."""
        self.failed = 0
        """Proposals that ended in an error, for the metrics."""

    def pending(self) -> int:
        """Proposals not yet answered."""
        return len(self._waiting) + self._in_flight_count

    def waiting(self) -> int:
        return len(self._waiting)

    def submit(
        self,
        command: Command,
        encoded: bytes,
        now: float,
        timeout_seconds: float,
        waiter: Waiter,
        times: RequestTimes | None = None,
    ) -> None:
        """Queue one proposal of `waiter`'s; raises OverloadedError at the limits, before anything was taken.

        `times` are the stamps of the client's request, which get those of its batch.
        """
        if len(self._waiting) >= PROPOSALS_WAITING_MAX:
            raise OverloadedError(f"{PROPOSALS_WAITING_MAX} writes already wait for the log; try again later")
        if self._waiting_bytes + len(encoded) > PROPOSALS_WAITING_BYTES_MAX and self._waiting:
            raise OverloadedError(f"writes of {self._waiting_bytes} bytes already wait for the log; try again later")
        if not self._waiting:
            self._oldest_at = now
        self._newest_at = now
        deadline = now + timeout_seconds
        self._next_deadline = min(self._next_deadline, deadline)
        self._waiting.append(_Proposal(command, encoded, waiter, deadline, times))
        self._waiting_bytes += len(encoded)
        self._callers = max(self._callers, len(self._waiting) + self._in_flight_count)

    def seconds_to_wait(self, now: float) -> float:
        """Seconds until a batch should leave; 0.0 when it should leave now."""
        if self._callers <= 1 or len(self._waiting) >= ENTRY_COMMANDS_MAX:
            return 0.0
        pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN + self._callers * PAUSE_SECONDS_PER_CALLER)
        return max(0.0, min(self._newest_at + pause, self._oldest_at + PACE_SECONDS_MAX) - now)

    def expire(self, now: float, leads: bool) -> None:
        """End what is overdue, as unknown when it is in the log already, otherwise as not done; called at each tick.

        What is in the log also ends some time after this node stopped leading: its caller would learn nothing by waiting.
        """
        if leads or not self._in_flight:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = now
        elif now - self._lost_at >= WRITE_GRACE_SECONDS:
            error = UnknownOutcomeError(
                "the write is in the log, but this node no longer leads; it may still take effect"
            )
            self._drop(list(self._in_flight), error)
        if now < self._next_deadline:
            return
        self._next_deadline = _NEVER
        error = UnknownOutcomeError("the write is in the log but was not committed in time; it may still take effect")
        for batch in self._in_flight.values():
            self._expire(batch.proposals, now, error)
        # Nobody waits for these any more, and their entry may have left this log: then nothing would be applied there.
        for index in [i for i, batch in self._in_flight.items() if all(_over(p, now) for p in batch.proposals)]:
            self._in_flight_count -= len(self._in_flight.pop(index).proposals)
        # They stay in the queue, where `take_batch` skips them.
        self._expire(
            self._waiting, now, NotDoneError("the write was not taken into the log in time; it was not executed")
        )

    def _expire(self, proposals: Iterable[_Proposal], now: float, error: Exception) -> None:
        overdue = []
        for proposal in proposals:
            if proposal.deadline <= now:
                overdue.append(proposal)
            else:
                self._next_deadline = min(self._next_deadline, proposal.deadline)
        self._fail(overdue, error)

    def take_batch(self) -> tuple[bytes, RegularEntry, list[_Proposal]] | None:
        """The next log entry and whom to answer; abandoned proposals are left out."""
        pending = self.pending()
        if pending < self._callers:  # some callers have left
            self._callers = max(pending, self._callers // 2)
        taken: list[_Proposal] = []
        size_bytes = 0
        while self._waiting and len(taken) < ENTRY_COMMANDS_MAX:
            proposal = self._waiting[0]
            if taken and size_bytes + len(proposal.encoded) > ENTRY_SIZE_BYTES_TARGET:
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(proposal.encoded)
            if proposal.waiter.done():  # its deadline passed while it waited: certainly not executed
                continue
            taken.append(proposal)
            size_bytes += len(proposal.encoded)
        if not taken:
            return None
        time_ms = self._log_time.now_ms()  # stamped by the leader, never going back (invariant 2)
        content = encode_regular_entry(time_ms, self._own_id, [p.encoded for p in taken])
        entry = RegularEntry(time_ms, self._own_id, tuple(p.command for p in taken))
        return content, entry, taken

    def lead(self, log: LogStore, applied_index: int) -> None:
        """A term of leadership begins: stamp no earlier time than earlier leaders have put into this log."""
        for index in range(applied_index + 1, log.last_index + 1):
            entry = log.entry_at(index)
            time_ms = None if entry is None else time_ms_of(entry[CONTENT])
            if time_ms is not None:
                self._log_time.saw(time_ms)

    def entered(self, index: int, term: int, entry: RegularEntry, proposals: list[_Proposal], now: float = 0.0) -> None:
        """The batch is in this leader's log at `index`, to be written to the disk from `now` on.

        A batch of an earlier term may be registered there: another leader cut it off this log, but not off every log.
        """
        if index in self._in_flight:
            text = "another leader took this write out of this node's log; it may still take effect"
            self._drop([index], UnknownOutcomeError(text))
        self._unsynced = times = BatchTimes(index, term, now)
        for proposal in proposals:
            if proposal.times is not None:
                proposal.times.batch = times
        self._in_flight[index] = _Batch(term, entry, proposals, times)
        self._in_flight_count += len(proposals)

    def synced(self, now: float) -> None:
        """The disk has what is in the log."""
        if self._unsynced is not None:
            self._unsynced.synced_at, self._unsynced = now, None

    def own_entry(self, index: int, term: int) -> RegularEntry | None:
        """The decoded entry at `index` if this node proposed it, which saves decoding it again."""
        batch = self._in_flight.get(index)
        return batch.entry if batch is not None and batch.term == term else None

    def took_effect(self, index: int, term: int, began_at: float, ended_at: float) -> float | None:
        """When the state took the entry at `index`; `applied` follows.

        Returns for how many seconds it had been in the log; None for an entry that this node has not proposed.
        """
        batch = self._in_flight.get(index)
        if batch is None or batch.term != term:
            return None
        batch.times.committed_at, batch.times.applied_at = began_at, ended_at
        return began_at - batch.times.taken_at

    def applied(self, index: int, term: int, replies: tuple[Reply, ...]) -> None:
        """The entry at `index` took effect: answer its proposals, by position."""
        batch = self._in_flight.pop(index, None)
        if batch is None:
            return
        self._in_flight_count -= len(batch.proposals)
        if batch.term != term:
            # Another entry was committed in its place, so this one never will be.
            error = NotLeaderError(None, "another leader's entry took the place of this write; it was not executed")
            self._fail(batch.proposals, error)
            return
        if batch.proposals:
            self._outcomes.applied([proposal.waiter for proposal in batch.proposals], replies)

    def not_leader(self, leader_id: int | None) -> None:
        """This node does not lead: what still waits was certainly not executed."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        self._fail(waiting, NotLeaderError(leader_id))

    def state_replaced(self, index: int) -> None:
        """A snapshot up to `index` was installed: the outcome of batches up to it is unknown."""
        error = UnknownOutcomeError("a snapshot replaced the state while this write was pending")
        self._drop([position for position in self._in_flight if position <= index], error)

    def stop(self, waiting_error: NotDoneError) -> None:
        """The node stops: waiting proposals were not executed, those in the log may have been."""
        waiting, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        self._fail(waiting, waiting_error)
        error = UnknownOutcomeError("the node stopped before this write was known to be committed")
        self._drop(list(self._in_flight), error)

    def _drop(self, indexes: Iterable[int], error: Exception) -> None:
        """End batches of whose outcome this node will not hear."""
        for index in indexes:
            batch = self._in_flight.pop(index, None)
            if batch is not None:
                self._in_flight_count -= len(batch.proposals)
                self._fail(batch.proposals, error)

    def _fail(self, proposals: list[_Proposal], error: Exception) -> None:
        waiters = [proposal.waiter for proposal in proposals if not proposal.waiter.done()]
        if waiters:
            self.failed += len(waiters)
            self._outcomes.rejected(waiters, error)


def _over(proposal: _Proposal, now: float) -> bool:
    """Nobody waits for the proposal any more."""
    return proposal.deadline <= now or proposal.waiter.done()
