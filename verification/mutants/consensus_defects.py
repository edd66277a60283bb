"""Defects of elections, replication, reads, membership and answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from metasrv.consensus import Place
from metasrv.model.commands import Command, Reply
from metasrv.model.entries import encode_membership_entry
from metasrv.model.errors import NotDoneError, NotLeaderError, UnknownOutcomeError
from metasrv.model.types import Endpoint, Membership
from metasrv.node import beginning
from metasrv.raft.belonging import Belonging
from metasrv.raft.clock_hand_over import ClockHandOver
from metasrv.raft.consensus import RaftConsensus
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.messages import AppendEntries, LeaderPing, PreVote, RequestVote, SnapshotChunk
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.log.store import LogStore
from metasrv.raft.membership import MembershipChanges
from metasrv.raft.replica import Replica
from metasrv.raft.snapshots import Snapshots
from metasrv.raft.stalled_leader import StalledLeader
from metasrv.state.snapshot import SnapshotInfo
from verification.mutants.patching import Mutant, Replacement

_FAR = 2**40


def _commits_tail_during_snapshot() -> list[Replacement]:
    real = Guards._from_leader

    def from_leader(self: Guards, node_id: int, message: Any, now: float) -> None:
        during = isinstance(message, LeaderPing | SnapshotChunk)
        real(self, node_id, message, now)
        if during and message.term == self._engine.term():
            self._engine.learn_commit(self._store.last_index)

    return [(Guards, "_from_leader", from_leader)]


def _appends_during_snapshot() -> list[Replacement]:
    """A follower takes the leader's commit index as its own, whatever entries it holds."""
    real = Guards._append

    def append(self: Guards, node_id: int, message: AppendEntries) -> None:
        real(self, node_id, message)
        self._engine.learn_commit(min(message.commit_index, self._store.last_index))

    return [(Guards, "_append", append)]


def _acknowledgement_without_term() -> list[Replacement]:
    def in_term(self: Guards, node_id: int, term: int) -> bool:
        if term > self._engine.term():
            self._higher_term(node_id, term)
            return False
        return self._engine.role() == 2 and node_id in self._engine.membership()

    return [(Guards, "_in_term", in_term)]


def _vote_for_shorter_log() -> list[Replacement]:
    request, pre = Guards._request_vote, Guards._pre_vote

    def request_vote(self: Guards, node_id: int, message: RequestVote, now: float) -> None:
        request(self, node_id, message._replace(last_index=_FAR, last_term=_FAR), now)

    def pre_vote(self: Guards, node_id: int, message: PreVote, now: float) -> None:
        pre(self, node_id, message._replace(last_index=_FAR, last_term=_FAR), now)

    return [(Guards, "_request_vote", request_vote), (Guards, "_pre_vote", pre_vote)]


def _every_append_truncates() -> list[Replacement]:
    def append(self: Guards, node_id: int, message: AppendEntries) -> None:
        self._engine.receive(node_id, message)

    return [(Guards, "_append", append)]


def _every_append_truncates_unguarded() -> list[Replacement]:
    """Without the log's own guard, which refuses to cut off what is committed and stops the node."""
    real = LogStore.deleteEntriesFrom

    def delete(self: LogStore, position: int) -> None:
        floor, self.commit_floor = self.commit_floor, lambda: 0
        try:
            real(self, position)
        finally:
            self.commit_floor = floor

    return [*_every_append_truncates(), (LogStore, "deleteEntriesFrom", delete)]


def _changes_overlap() -> list[Replacement]:
    async def change(self: MembershipChanges, make: Callable[[Membership], Membership], deadline: float) -> None:
        await self._free()
        self._require_leader()
        before = self._engine.membership()
        after = make(before)
        if after == before:
            return
        index, _ = self._append(encode_membership_entry(self._own_id, before, after))
        while self._applied_index() < index:
            if self._clock.monotonic() > deadline:
                raise UnknownOutcomeError("the membership change is in the log but was not committed in time")
            await asyncio.sleep(0.005)

    class Unlocked:
        def locked(self) -> bool:
            return False

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_error: object) -> None: ...

    initialize = MembershipChanges.__init__

    def without_lock(self: Any, **given: Any) -> None:
        initialize(self, **given)
        self._lock = Unlocked()

    return [(MembershipChanges, "__init__", without_lock), (MembershipChanges, "_change", change)]


def _begins_without_asking() -> list[Replacement]:
    async def ask(_consensus: RaftConsensus, _target: Endpoint) -> NotDoneError:
        return NotDoneError("was not asked")

    return [(beginning, "_ask", ask), (beginning, "_doubt", lambda _answer, _node: "")]


def _installed_time_is_not_seen() -> list[Replacement]:
    """Log time goes on from the entries that a node has stamped or applied, whatever state it was given."""
    real = Replica._install

    def install(self: Replica, info: SnapshotInfo) -> None:
        with patch.object(self.log_time, "saw"):
            real(self, info)

    return [(Replica, "_install", install)]


def _wrong_clock_leads() -> list[Replacement]:
    async def consider(_self: ClockHandOver) -> None: ...

    return [(ClockHandOver, "consider", consider)]


def _read_index_at_once() -> list[Replacement]:
    def register(_self: ReadIndex, read_index: int, waiter: Any) -> None:
        waiter.set_result(read_index)

    return [(ReadIndex, "register", register)]


def _read_round_of_before() -> list[Replacement]:
    """A read counts the confirmation that was under way when it came."""
    real = ReadIndex.register

    def register(self: ReadIndex, read_index: int, waiter: Any) -> None:
        real(self, read_index, waiter)
        self._waiters[-1] = self._waiters[-1]._replace(round=max(1, self._confirmed))

    return [(ReadIndex, "register", register)]


def _reads_anywhere() -> list[Replacement]:
    async def read_barrier(_self: RaftConsensus, _timeout_ms: int) -> None:
        return None

    return [(RaftConsensus, "read_barrier", read_barrier)]


def _unknown_is_tried_again() -> list[Replacement]:
    real = RaftConsensus.propose

    async def propose(self: RaftConsensus, command: Command, timeout_ms: int) -> Reply:
        try:
            return await real(self, command, timeout_ms // 2)
        except UnknownOutcomeError:
            return await real(self, command, timeout_ms // 2)

    return [(RaftConsensus, "propose", propose)]


def _in_log_said_not_done() -> list[Replacement]:
    def not_leader(self: Proposals, leader_id: int | None) -> None:
        waiting, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        batches, self._in_flight, self._in_flight_count = list(self._in_flight.values()), {}, 0
        for proposals in (waiting, *(batch.proposals for batch in batches)):
            self._fail(proposals, NotLeaderError(leader_id))

    return [(Proposals, "not_leader", not_leader)]


def _answers_of_another_term() -> list[Replacement]:
    """Whatever is committed at an index answers the proposals that were put there, even another leader's entry."""
    real = Proposals.applied

    def applied(self: Proposals, index: int, term: int, replies: tuple[Reply, ...]) -> None:
        batch = self._in_flight.get(index)
        if batch is not None and len(replies) >= len(batch.proposals):
            self._in_flight[index] = batch._replace(term=term)
            replies = replies[: len(batch.proposals)]
        real(self, index, term, replies)

    return [(Proposals, "applied", applied)]


def _taken_back_forgotten() -> list[Replacement]:
    """A leader that lost an entry and leads again puts another batch in its place and forgets the first (S11)."""

    def entered(self: Proposals, index: int, term: int, entry: Any, proposals: Any, now: float = 0.0) -> None:
        self._in_flight.pop(index, None)
        real(self, index, term, entry, proposals, now)

    real = Proposals.entered
    return [(Proposals, "entered", entered)]


def _late_snapshot_installed() -> list[Replacement]:
    real = Replica._install

    def install(self: Replica, info: SnapshotInfo) -> None:
        with patch.object(self.store, "entry_at", return_value=None):
            real(self, info)

    return [(Replica, "_install", install)]


def _transfer_never_ends() -> list[Replacement]:
    return [(Snapshots, "end_unwanted", lambda _self, _wants, _lags: None)]


def _id_in_use_is_given_away() -> list[Replacement]:
    return [(IdHolders, "refuse_if_heard", lambda _self, _node_id, _holder: None)]


def _stalled_leader_leads_on() -> list[Replacement]:
    def look(self: StalledLeader, now: float) -> None:
        self._disk.look(now)

    return [(StalledLeader, "look", look), (Replica, "_serves", lambda _self: True)]


def _removed_node_never_asks() -> list[Replacement]:
    return [(Belonging, "_whom_to_ask", lambda _self: [])]


def _anybody_says_who_is_out() -> list[Replacement]:
    async def place(self: RaftConsensus, node_id: int, incarnation: str, _timeout_ms: int) -> Place:
        return self.belonging.place(node_id, incarnation)

    return [(RaftConsensus, "place", place)]


CONSENSUS_MUTANTS = (
    Mutant(
        "tail committed during snapshot",
        "a follower commits its own tail while a snapshot comes (D1)",
        _commits_tail_during_snapshot,
        ("overtaken leader",),
    ),
    Mutant(
        "tail committed by heartbeat",
        "a follower commits its tail up to the leader's commit index, matched or not",
        _appends_during_snapshot,
        ("overtaken leader",),
    ),
    Mutant(
        "acknowledgement without term",
        "an acknowledgement of an earlier term counts (D9)",
        _acknowledgement_without_term,
        ("transfers in a loop", "slow paths", "drop, double, reorder"),
    ),
    Mutant(
        "vote for a shorter log",
        "a vote is given to a node whose log is behind",
        _vote_for_shorter_log,
        ("candidate that lags",),
    ),
    Mutant(
        "every append truncates",
        "entries behind an old append are deleted although they agree (D12)",
        _every_append_truncates,
    ),
    Mutant(
        "every append truncates, unguarded",
        "as before, and the log does not refuse to cut off what is committed",
        _every_append_truncates_unguarded,
    ),
    Mutant(
        "membership changes overlap",
        "a change is taken while another is not committed (D6)",
        _changes_overlap,
        ("add two nodes at once",),
    ),
    Mutant(
        "id in use given away",
        "a member that is heard is put out by another directory that asks for its id",
        _id_in_use_is_given_away,
        ("id reuse",),
    ),
    Mutant(
        "stalled leader keeps leading",
        "a leader whose state waits for its disk beats on, applies nothing and is never replaced (R14)",
        _stalled_leader_leads_on,
        ("stalled leader",),
    ),
    Mutant(
        "removed node never asks",
        "a node that was removed goes on as if it were a member",
        _removed_node_never_asks,
        ("remove follower", "remove partitioned"),
    ),
    Mutant(
        "anybody says who is out",
        "a node that asks whether it is a member believes what any other has applied, however old",
        _anybody_says_who_is_out,
        ("add node", "split"),
    ),
    Mutant(
        "read index without a round",
        "a read is answered without asking the majority (D14)",
        _read_index_at_once,
        ("deaf leader",),
    ),
    Mutant(
        "read index of an old round",
        "a read counts a confirmation from before it came",
        _read_round_of_before,
        ("deaf leader",),
    ),
    Mutant("stale reads", "any node answers reads from what it has", _reads_anywhere),
    Mutant(
        "unknown outcome tried again",
        "a write whose outcome is open is sent a second time (D15)",
        _unknown_is_tried_again,
    ),
    Mutant(
        "in the log, said not done",
        "a deposed leader says of its uncommitted writes that they are not done (D15)",
        _in_log_said_not_done,
    ),
    Mutant(
        "taken back, never answered",
        "a write that another leader took out of the log is forgotten when its node leads again (S11, D15)",
        _taken_back_forgotten,
        ("overtaken leader", "transfers in a loop"),
    ),
    Mutant(
        "late snapshot put in place",
        "a snapshot replaces a log that holds its last entry already (S12)",
        _late_snapshot_installed,
        ("answers that lag",),
    ),
    Mutant(
        "transfer never ends",
        "a snapshot that its sender will not go on with keeps the log from being purged (R5)",
        _transfer_never_ends,
        ("lagging follower", "transfers in a loop", "slow paths"),
    ),
    Mutant(
        "answer of another's entry",
        "a proposal is answered with what another leader put at its index",
        _answers_of_another_term,
        ("overtaken leader",),
    ),
    Mutant(
        "begins without asking",
        "an empty first node begins a cluster without asking whether there is one (R12)",
        _begins_without_asking,
        ("wipe the first node, alone",),
    ),
    Mutant(
        "time of a snapshot not seen",
        "a node that leads after it got a snapshot stamps times that have passed (R22)",
        _installed_time_is_not_seen,
        ("leads after a snapshot",),
    ),
    Mutant("wrong clock leads", "a leader whose clock is far off its majority goes on leading", _wrong_clock_leads),
)
