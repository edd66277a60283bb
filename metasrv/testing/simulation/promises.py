"""What a node has told others it must still know, and what a leader counts must be there.

 * a term, a vote and an acknowledged entry that left a node are on its disk: every later start finds them;
 * a leader commits nothing that its own disk does not hold;
 * a leader counts for a follower only what the follower's log holds, and only acknowledgements of its own term;
 * a leader adds a membership change only when the one before it and its own first entry are committed.

Sees messages as they leave and writes as they end. Catches a broken promise where it is broken, many steps before any
client could notice. Part of `invariants.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metasrv.entries import KIND_MEMBERSHIP
from metasrv.raft.engine import LEADER
from metasrv.raft.log_format import PendingWrite
from metasrv.raft.messages import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    LeaderPing,
    LeaderSeen,
    Message,
    RequestVote,
    SnapshotChunk,
    VoteGranted,
)
from metasrv.testing.simulation.machine import Process

_SPEAKS_OF_TERM = AppendEntries | AppendReply | HigherTerm | LeaderPing | LeaderSeen | SnapshotChunk


@dataclass(slots=True)
class _Promised:
    """By one data directory."""

    incarnation: str
    term: int = 0
    vote: str | None = None
    """Of that term."""
    acknowledged_term: int = 0
    acknowledged_index: int = 0
    """The highest entry acknowledged to the leader of that term."""


class Promises:
    """`report` hears of each violation."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._promised: dict[int, _Promised] = {}
        self._durable_index: dict[Process, int] = {}
        self._processes: dict[int, Process] = {}

    # ------------------------------------------------------------------ a process's life

    def opened(self, process: Process) -> None:
        node_id, replica = process.machine.node_id, process.consensus.replica
        incarnation = process.data.directory.identity.incarnation
        promised = self._promised.get(node_id)
        if promised is None or promised.incarnation != incarnation:
            promised = self._promised[node_id] = _Promised(incarnation)
        elif not process.machine.damaged:
            self._compare(process, promised)
        self._processes[node_id] = process
        self._durable_index[process] = replica.store.last_index
        self._watch_messages(process, promised)
        self._watch_writes(process)
        self._watch_acknowledgements(process)

    def ended(self, process: Process) -> None:
        self._durable_index.pop(process, None)
        if self._processes.get(process.machine.node_id) is process:
            del self._processes[process.machine.node_id]

    def _compare(self, process: Process, promised: _Promised) -> None:
        store, name = process.consensus.replica.store, f"node {process.machine.node_id}"
        term, vote = store.getCurrentTerm(), store.getVotedForNodeId()
        if term < promised.term:
            self._report(f"{name} starts in term {term} although it has spoken of term {promised.term} (promise forgotten)")
        elif term == promised.term and promised.vote is not None and vote != promised.vote:
            self._report(
                f"{name} starts with vote {vote} of term {term} although it has voted for node {promised.vote}"
                " (promise forgotten)"
            )
        elif term == promised.acknowledged_term and store.last_index < promised.acknowledged_index:
            self._report(
                f"{name} starts with a log up to {store.last_index} although it has acknowledged entry"
                f" {promised.acknowledged_index} of term {term} (promise forgotten)"
            )

    # ------------------------------------------------------------------ what is watched

    def _watch_messages(self, process: Process, promised: _Promised) -> None:
        driver: Any = process.consensus.replica.driver
        flush = driver._flush
        own = str(process.machine.node_id)

        def noted(messages: list[tuple[int, Message]]) -> None:
            for node_id, message in messages:
                _note(promised, own, node_id, message)
            flush(messages)

        driver._flush = noted

    def _watch_writes(self, process: Process) -> None:
        writer: Any = process.data.writer
        write = writer.write

        def noted(pending: PendingWrite) -> None:
            write(pending)
            if process in self._durable_index:
                self._durable_index[process] = pending.last_index

        writer.write = noted

    def _watch_acknowledgements(self, process: Process) -> None:
        engine: Any = process.consensus.replica.engine
        receive = engine.receive

        def checked(node_id: int, message: Message) -> None:
            if isinstance(message, AppendReply) and engine.role() == LEADER and message.term != engine.term():
                self._report(
                    f"node {process.machine.node_id} leads term {engine.term()} and counts an acknowledgement of"
                    f" node {node_id} from term {message.term}"
                )
            receive(node_id, message)

        engine.receive = checked

    # ------------------------------------------------------------------ after each step

    def check(self, process: Process) -> None:
        """Of a leader, after a step that changed something."""
        engine = process.consensus.replica.engine
        durable = self._durable_index.get(process)
        if engine.role() != LEADER or durable is None:
            return
        if engine.commit_index() > durable:
            self._report(
                f"node {process.machine.node_id} has committed {engine.commit_index()} as the leader, but its own disk"
                f" ends at {durable}"
            )
        self._check_matches(process)
        self._check_membership_changes(process)

    def _check_matches(self, process: Process) -> None:
        engine, store = process.consensus.replica.engine, process.consensus.replica.store
        term, membership = engine.term(), engine.membership()
        for node_id in membership.voters:
            other, match = self._processes.get(node_id), engine.match_index(node_id)
            if other is None or other is process or match == 0 or other.machine.damaged:
                continue
            theirs = other.consensus.replica.store
            member = membership.voters[node_id]
            known = member.incarnation == other.data.directory.identity.incarnation
            if not known or theirs.getCurrentTerm() != term or match < max(theirs.first_index, store.first_index):
                continue
            here, there = store.entry_at(match), theirs.entry_at(match)
            if here is None or there is None or here[2] != there[2]:
                self._report(
                    f"node {process.machine.node_id} leads term {term} and counts entry {match} for node {node_id},"
                    f" whose log does not hold it (last {theirs.last_index})"
                )

    def _check_membership_changes(self, process: Process) -> None:
        engine, store = process.consensus.replica.engine, process.consensus.replica.store
        commit, term, before = engine.commit_index(), engine.term(), 0
        for index in range(commit + 1, store.last_index + 1):
            entry = store.entry_at(index)
            if entry is None or entry[0][0] != KIND_MEMBERSHIP:
                continue
            if entry[2] == term and (before or commit < engine.noop_index()):
                earlier = f"the change at {before}" if before else "its first entry"
                self._report(
                    f"node {process.machine.node_id} leads term {term} and has added the membership change at {index}"
                    f" although {earlier} is not committed"
                )
            before = index


def _note(promised: _Promised, own: str, node_id: int, message: Message) -> None:
    """What this message promises."""
    if isinstance(message, VoteGranted | RequestVote):
        vote: str | None = str(node_id) if isinstance(message, VoteGranted) else own
    elif isinstance(message, _SPEAKS_OF_TERM):
        vote = None
    else:
        return
    if message.term > promised.term:
        promised.term, promised.vote = message.term, vote
    elif message.term == promised.term and vote is not None:
        promised.vote = vote
    if isinstance(message, AppendReply) and message.success:
        index = message.next_index - 1
        if message.term > promised.acknowledged_term:
            promised.acknowledged_term, promised.acknowledged_index = message.term, index
        elif message.term == promised.acknowledged_term:
            promised.acknowledged_index = max(promised.acknowledged_index, index)
