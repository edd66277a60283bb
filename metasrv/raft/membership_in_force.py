"""The membership that a node's files say is in force. Pure reading; runs before the loop's work begins, or offline."""

from __future__ import annotations

from metasrv.model.entries import MembershipEntry, decode_entry
from metasrv.model.types import Membership
from metasrv.raft.log.format import CONTENT
from metasrv.raft.log.store import LogStore
from metasrv.state.machine import StateMachine


def membership_in_force(store: LogStore, machine: StateMachine) -> Membership:
    """The membership at start: the newest one in the log, or the applied one."""
    for index in range(store.last_index, machine.last_applied.index, -1):
        entry = store.entry_at(index)
        if entry is not None:
            decoded = decode_entry(entry[CONTENT])
            if isinstance(decoded, MembershipEntry):
                return decoded.after
    return machine.membership
