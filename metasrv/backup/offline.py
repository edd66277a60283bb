"""What a stopped node has, read without starting it: its state, and on top of it the entries that only its log holds.

Those entries may be acknowledged writes, or writes that nobody was told of; one node alone cannot tell, so all count.
They are applied to a copy, never to the node's own state. Runs in a program of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from metasrv.model.entries import decode_entry
from metasrv.model.errors import DataDamagedError
from metasrv.model.types import LogId, Membership, Node
from metasrv.process.data_directory import DataDirectory, Identity
from metasrv.raft.log.format import INDEX, LogEntry
from metasrv.raft.log.store import LogStore
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.bulk import copy_state
from metasrv.state.machine import StateMachine


class StoppedNode(NamedTuple):
    """A locked directory of a stopped node, its log read and checked."""

    identity: Identity
    damage: str
    """What is known to be wrong with its state; mostly empty."""
    state_path: str
    term: int
    """The newest term that it has heard of."""
    last_log_id: LogId
    applied: LogId
    """What its state has applied."""
    entries: list[LogEntry]
    """The entries behind that."""
    membership: Membership
    """The newest in its log, committed or not."""
    nodes: Mapping[int, Node]
    """Those registered in its state."""


@contextmanager
def stopped_node(root: str, *, held: bool = False) -> Iterator[StoppedNode]:
    """Lock and read the directory of a stopped node; `held` when this program has the lock.

    Raises IdentityError, DataDamagedError, StorageError.
    """
    directory = DataDirectory.open_present(root, held=held)
    try:
        store = LogStore.open(directory.log_path, create_entries=None)
        writer = store.open_writer()
        try:
            if not os.path.exists(directory.state_path):
                raise DataDamagedError(directory.state_path, "file", "missing", "see `metasrv check`")
            machine = StateMachine.open(directory.state_path)
            try:
                applied, membership = machine.last_applied, membership_in_force(store, machine)
                nodes = dict(machine.nodes)
                if machine.installed_tail() is None:
                    store.check_against_state(applied.index)
            finally:
                machine.close()
            entries = [
                entry
                for index in range(applied.index + 1, store.last_index + 1)
                if (entry := store.entry_at(index)) is not None
            ]
            if entries and entries[0][INDEX] != applied.index + 1:
                raise DataDamagedError(
                    directory.log_path,
                    f"entry {applied.index + 1}",
                    "it is missing, and the state has not applied it",
                    "see `metasrv check`",
                )
            last = LogId(store.last_term, store.last_index) if entries else applied
            yield StoppedNode(
                directory.identity,
                directory.damage(),
                directory.state_path,
                max(store.getCurrentTerm(), store.last_term),
                last,
                applied,
                entries,
                membership,
                nodes,
            )
        finally:
            writer.close()
    finally:
        directory.close()


def copy_with_log(node: StoppedNode, destination: str) -> None:
    """Write a state file with everything the node has to `destination`. Raises DataDamagedError or StorageError."""
    copy_state(node.state_path, destination)
    machine = StateMachine.open(destination)
    try:
        for content, index, term in node.entries:
            entry = decode_entry(content)
            machine.apply_entry(LogId(term, index, entry.leader_id), entry)
    finally:
        machine.close()


@contextmanager
def whole_state(node: StoppedNode) -> Iterator[StateMachine]:
    """The state with everything the node has, to read from; a copy, where the log has more than the state."""
    if not node.entries:
        machine = StateMachine.open(node.state_path)
        try:
            yield machine
        finally:
            machine.close()
        return
    with tempfile.TemporaryDirectory(prefix="metasrv-", dir=os.path.dirname(node.state_path)) as place:
        path = os.path.join(place, "state.db")
        copy_with_log(node, path)
        machine = StateMachine.open(path)
        try:
            yield machine
        finally:
            machine.close()
