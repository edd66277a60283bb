"""What must hold after every step of every node, whatever happens.

Sees each process's engine, log and state after each of its steps, each entry as it takes effect, and each start. The
first node that commits or applies an index decides what is there; every other must agree forever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from metasrv.model import commands as c
from metasrv.model.entries import KIND_MEMBERSHIP, Entry, MembershipEntry, RegularEntry, decode_entry
from metasrv.model.types import LogId
from metasrv.raft.core.engine import LEADER
from metasrv.raft.log.format import CONTENT, TERM, PendingWrite, kind_of
from metasrv.state.machine import StateMachine
from verification.simulation.deliveries import Deliveries
from verification.simulation.leader_checks import LeaderChecks
from verification.simulation.limit_checks import LimitChecks
from verification.simulation.machine import Process
from verification.simulation.promises import Promises

VIOLATIONS_MAX = 20
"""Enough: the first violations tell why, the rest are their consequences."""
TAG_PREFIX = "log/"
"""Prefix of the records that clients write once each, to find out how often a write took effect."""


class _Position(NamedTuple):
    role: int
    term: int
    vote: str | None
    commit: int
    applied: int
    last: int
    first: int


class _Effect(NamedTuple):
    """What one entry did, to be the same on every node."""

    term: int
    time_ms: int
    seq: int
    key_count: int
    expire_count: int
    state_hash: bytes
    """What nodes compare among themselves while they run."""
    replies: tuple[c.Reply, ...]


class Invariants:
    """Implements `Witness`."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        """Events by name, for figures: a run without a snapshot proves nothing about snapshots."""
        self.leaders: dict[int, int] = {}
        """Who led each term."""
        self.committed: dict[int, tuple[int, bytes]] = {}
        """Term and content of every committed entry, by index."""
        self._committed_in: dict[int, int] = {}
        """The term in which each entry was first seen to be committed."""
        self.highest_commit = 0
        self.effects: dict[int, _Effect] = {}
        self.executed: dict[str, int] = {}
        """How often each tagged write took effect."""
        self.promises = Promises(self.violation)
        self._deliveries = Deliveries(self.violation)
        self._leader_checks = LeaderChecks(self.violation)
        self._limit_checks = LimitChecks(self.violation, self.count)
        self._positions: dict[Process, _Position] = {}

    def violation(self, text: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(text)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # ------------------------------------------------------------------ a process's life

    def opened(self, process: Process) -> None:
        replica, machine = process.consensus.replica, process.machine
        self.promises.opened(machine.node_id, replica.store, damaged=machine.damaged)
        self._learn_committed(process, replica.store.first_index, replica.machine.last_applied.index)
        self._compare_state(process, "opens its state")
        self._leader_checks.opened(process)
        self.check(process)

    def written(self, node_id: int, pending: PendingWrite) -> None:
        self.promises.written(node_id, pending)

    def sending(self, node_id: int, to_id: int, payload: bytes) -> None:
        self.promises.sending(node_id, to_id, payload)
        self._deliveries.sent(node_id, to_id, payload)

    def received(self, node_id: int, life: int, from_id: int, generation: int, payload: bytes) -> None:
        self._deliveries.received(node_id, life, from_id, generation, payload)

    def emptied(self, node_id: int) -> None:
        self.promises.emptied(node_id)

    def removed(self, node_id: int, incarnation: str) -> None:
        """It must not be a member in the newest membership that is committed: it would never come back by itself."""
        self.count("nodes that learned that they are out")
        for index in sorted(self.committed, reverse=True):
            content = self.committed[index][1]
            if kind_of((content, index, 0)) != KIND_MEMBERSHIP:
                continue
            entry = decode_entry(content)
            member = entry.after.member(node_id) if isinstance(entry, MembershipEntry) else None
            if member is not None and member.incarnation == incarnation:
                self.violation(f"node {node_id} takes itself for removed, but entry {index} has it as a member")
            return

    def ended(self, process: Process) -> None:
        self._positions.pop(process, None)
        self._leader_checks.ended(process)

    def installed(self, process: Process) -> None:
        self.counts["snapshots installed"] += 1
        self.promises.installed(process.machine.node_id, process.state.last_applied.index)
        self._compare_state(process, "installs a snapshot")

    # ------------------------------------------------------------------ after each step

    def check(self, process: Process) -> None:
        replica = process.consensus.replica
        engine, store = replica.engine, replica.store
        found = (
            engine.role(),
            engine.term(),
            store.getVotedForNodeId(),
            engine.commit_index(),
            engine.applied_index(),
            store.last_index,
            store.first_index,
        )
        before = self._positions.get(process)
        if found == before:
            return
        now = _Position(*found)
        self._positions[process] = now
        name = f"node {process.machine.node_id}"
        if now.role == LEADER:
            leader_id = self.leaders.setdefault(now.term, process.machine.node_id)
            if leader_id != process.machine.node_id:
                self.violation(f"{name} leads term {now.term}, which node {leader_id} has led (election safety)")
            if before is None or before.role != LEADER:
                self.counts["elections won"] += 1
                self._check_leader_complete(process, name)
        if before is not None:
            self._check_not_back(name, before, now)
        if not now.applied <= now.commit <= now.last:
            self.violation(f"{name}: applied {now.applied}, committed {now.commit}, last {now.last} are out of order")
        if now.applied != replica.machine.last_applied.index:
            self.violation(f"{name}: the engine has applied {now.applied}, the state {replica.machine.last_applied}")
        durable = self.promises.durable(process.machine.node_id)
        if now.applied > durable.last_index or (now.role == LEADER and now.commit > durable.last_index):
            self.violation(f"{name}: {now.commit} is committed, {now.applied} applied, {durable} on its disk (D4)")
        if now.first > now.applied:
            self.violation(f"{name}: the log begins at {now.first}, but only {now.applied} is applied")
        newest = replica.snapshots.newest
        if newest is not None and newest.log_id.index > self.highest_commit:
            # A snapshot may be ahead of its node's state after a power loss, but never of what is committed.
            self.violation(f"{name}: a snapshot up to {newest.log_id} is ahead of what is committed")
        if before is None or now.commit > before.commit:
            self._learn_committed(process, now.first if before is None else before.commit + 1, now.commit)
        if now.role == LEADER:
            self._leader_checks.check(process)

    def _check_not_back(self, name: str, before: _Position, now: _Position) -> None:
        if now.first > before.first:
            self.counts["log purges"] += 1
        if now.last < before.last:
            self.counts["log tails cut"] += 1
        for what in ("term", "commit", "applied", "first"):
            if getattr(now, what) < getattr(before, what):
                self.violation(f"{name}: its {what} went back from {getattr(before, what)} to {getattr(now, what)}")
        if now.term == before.term and before.vote is not None and now.vote != before.vote:
            self.violation(f"{name}: its vote of term {now.term} went from node {before.vote} to {now.vote}")

    def _check_leader_complete(self, process: Process, name: str) -> None:
        """Check that a leader has every entry that was committed in an earlier term (Raft, figure 3).

        Late votes can still elect a leader of a term that is over; it need not know what was committed after it.
        """
        store = process.consensus.replica.store
        for index in range(max(store.first_index, 1), self.highest_commit + 1):
            known, entry = self.committed.get(index), store.entry_at(index)
            if known is None or self._committed_in[index] >= store.getCurrentTerm():
                continue
            if entry is None or (entry[TERM], entry[CONTENT]) != known:
                self.violation(f"{name} leads without the committed entry {index} (leader completeness)")
                return

    def _learn_committed(self, process: Process, first: int, last: int) -> None:
        store = process.consensus.replica.store
        for index in range(first, last + 1):
            entry = store.entry_at(index)
            if entry is None:
                continue
            found = (entry[TERM], entry[CONTENT])
            known = self.committed.get(index)
            if known is None:
                known = self.committed[index] = found
                self._committed_in[index] = store.getCurrentTerm()
            if known != found:
                self.violation(
                    f"node {process.machine.node_id} commits another entry {index} (term {found[0]})"
                    f" than was committed before (term {known[0]})"
                )
        self.highest_commit = max(self.highest_commit, last)

    # ------------------------------------------------------------------ effects

    def applied(self, process: Process, log_id: LogId, entry: Entry, replies: tuple[c.Reply, ...]) -> None:
        if process.machine.differs:
            return  # its copy was changed on purpose; the other nodes say what the entry does
        state = process.state
        effect = _Effect(*_found(state), replies)
        known = self.effects.get(log_id.index)
        if known is None:
            self.effects[log_id.index] = effect
            self._first_effect(log_id, entry, effect)
            if isinstance(entry, RegularEntry):
                self._limit_checks.applied(log_id.index, entry, replies, state)
        elif known != effect:
            what = "hash of the state" if known.state_hash != effect.state_hash else "effect"
            self.violation(f"node {process.machine.node_id}: entry {log_id} had another {what} than elsewhere")

    def _first_effect(self, log_id: LogId, entry: Entry, effect: _Effect) -> None:
        before = self.effects.get(log_id.index - 1)
        if before is not None and (effect.seq < before.seq or effect.time_ms < before.time_ms):
            self.violation(f"entry {log_id} takes sequence number or time back: {before[1:3]} to {effect[1:3]}")
        self.counts["entries committed"] += 1
        if isinstance(entry, MembershipEntry):
            self.counts["membership changes"] += 1
        if isinstance(entry, RegularEntry):
            for reply in effect.replies:
                for tag in _tags_written(reply):
                    self.executed[tag] = self.executed.get(tag, 0) + 1

    def _compare_state(self, process: Process, doing: str) -> None:
        if process.machine.differs:
            return
        state = process.state
        known = self.effects.get(state.last_applied.index)
        found = _found(state)
        if known is not None and known[:-1] != found:
            name = f"node {process.machine.node_id}"
            self.violation(f"{name} {doing} at {state.last_applied}, which differs: {found}, not {known[:-1]}")


def _found(state: StateMachine) -> tuple[int, int, int, int, int, bytes]:
    """The first fields of an effect."""
    counted = (state.last_time_ms, state.last_seq, state.key_count, state.expire_count)
    return (state.last_applied.term, *counted, state.state_hash())


def _tags_written(reply: c.Reply) -> Iterator[str]:
    if isinstance(reply, c.TransactionReply):
        for response in reply.responses:
            if isinstance(response, c.PutResponse) and response.key.startswith(TAG_PREFIX):
                yield response.key
