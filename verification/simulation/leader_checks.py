"""Invariants of leaders; part of `invariants.py`.

* A leader counts for a follower only what the follower's log holds, and only acknowledgements of its own term (D9).
* It adds a membership change only when the change before it and its own first entry are committed (D6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metasrv.model.entries import KIND_MEMBERSHIP
from metasrv.raft.core.engine import LEADER
from metasrv.raft.core.messages import AppendReply, Message
from metasrv.raft.log.format import TERM, kind_of
from verification.simulation.machine import Process


class LeaderChecks:
    """`report` hears of each violation."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._processes: dict[int, Process] = {}

    def opened(self, process: Process) -> None:
        self._processes[process.machine.node_id] = process
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

    def ended(self, process: Process) -> None:
        if self._processes.get(process.machine.node_id) is process:
            del self._processes[process.machine.node_id]

    def check(self, process: Process) -> None:
        """After a step of a leader that changed something."""
        self._check_matches(process)
        self._check_membership_changes(process)

    def _check_matches(self, process: Process) -> None:
        engine, store = process.consensus.replica.engine, process.consensus.replica.store
        term, membership = engine.term(), engine.membership()
        for node_id, member in membership.voters.items():
            other, match = self._processes.get(node_id), engine.match_index(node_id)
            if other is None or other is process or match == 0 or other.machine.damaged:
                continue
            theirs = other.consensus.replica.store
            known = member.incarnation == other.data.directory.identity.incarnation
            if not known or theirs.getCurrentTerm() != term or match < max(theirs.first_index, store.first_index):
                continue
            here, there = store.entry_at(match), theirs.entry_at(match)
            if here is None or there is None or here[TERM] != there[TERM]:
                self._report(
                    f"node {process.machine.node_id} leads term {term} and counts entry {match} for node {node_id},"
                    f" whose log does not hold it (last {theirs.last_index})"
                )

    def _check_membership_changes(self, process: Process) -> None:
        engine, store = process.consensus.replica.engine, process.consensus.replica.store
        commit, term, before = engine.commit_index(), engine.term(), 0
        for index in range(commit + 1, store.last_index + 1):
            entry = store.entry_at(index)
            if entry is None or kind_of(entry) != KIND_MEMBERSHIP:
                continue
            if entry[TERM] == term and (before or commit < engine.noop_index()):
                earlier = f"the change at {before}" if before else "its first entry"
                self._report(
                    f"node {process.machine.node_id} leads term {term} and has added the membership change at {index}"
                    f" although {earlier} is not committed"
                )
            before = index
