"""What the cluster's limits must do, in the order of the log: a model of the read-only switch and of the quota.

Looks at each entry as the first node applies it; that the others do the same is checked with everything else that an
entry does (`invariants.py`). Decides from the commands what is a write, without the product's help.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry
from metasrv.state.machine import StateMachine

READ_ONLY = "the cluster is read-only"


class LimitChecks:
    """See the module. Begins with a cluster without limits, as every history does."""

    def __init__(self, violation: Callable[[str], None], count: Callable[[str], None]) -> None:
        self._violation = violation
        self._count = count
        self._read_only = False
        self._quota_bytes = 0
        self._size_bytes = 0
        self._index = 0

    def applied(self, index: int, entry: RegularEntry, replies: tuple[c.Reply, ...], state: StateMachine) -> None:
        """An entry took effect; only the first time anywhere counts, not again on a node that lost its disk."""
        if index <= self._index:
            return
        self._index = index
        quota_bytes = self._quota_bytes
        for command, reply in zip(entry.commands, replies, strict=True):
            self._check(index, command, reply)
        size_bytes = state.data_size_bytes
        if quota_bytes and quota_bytes == self._quota_bytes and size_bytes > max(quota_bytes, self._size_bytes):
            self._violation(
                f"entry {index} lets the data grow from {self._size_bytes} to {size_bytes} bytes, past {quota_bytes}"
            )
        self._size_bytes = size_bytes

    def _check(self, index: int, command: c.Command, reply: c.Reply) -> None:
        if isinstance(command, c.SetReadOnly):
            self._read_only = command.read_only is not None
        elif isinstance(command, c.SetQuota):
            self._quota_bytes = command.quota_bytes
        refused = isinstance(reply, c.RefusedReply)
        if refused:
            self._count("writes refused by limits")
        by_switch = isinstance(reply, c.RefusedReply) and reply.text.startswith(READ_ONLY)
        if by_switch is not (self._read_only and writes(command)):
            self._violation(
                f"entry {index}: the cluster is {'' if self._read_only else 'not '}read-only, and"
                f" {type(command).__name__} is answered {reply}"
            )
        elif refused and not by_switch and not self._quota_bytes:
            self._violation(f"entry {index}: {type(command).__name__} is refused without a limit: {reply}")


def writes(command: c.Command) -> bool:
    """Whether a client asks for anything but reading."""
    match command:
        case c.Upsert():
            return True
        case c.Transaction(branches, _, if_then, else_then):
            operations = [*if_then, *else_then, *(one for branch in branches for one in branch.operations)]
        case c.BranchTransaction(branches):
            operations = [one for branch in branches for one in branch.operations]
        case _:
            return False
    return not all(isinstance(operation, c.Get) for operation in operations)
