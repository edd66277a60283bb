"""Writes that the cluster refuses while it is read-only, or because the data would grow past its quota.

Decided when a command is applied, from what the log says alone, so that every node refuses the same commands. A service
asks `refusal_while_read_only` beforehand, which only saves the way through the log. A migration's steps are not clients'
writes, and are taken always. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metasrv.model import commands as c
from metasrv.model.types import NO_LIMITS, WriteLimits
from metasrv.state.effects import EntryEffects
from metasrv.state.operations import SEQUENTIAL_NAME_SIZE_BYTES

READ_ONLY_TEXT = "the cluster is read-only"
"""Begins the sentence of every refusal while the switch is on; clients may look for it."""
OVER_QUOTA_TEXT = "the quota of the cluster is used up"
"""Begins the sentence of a write that would let the data grow past its quota."""
_COUNTER_SIZE_BYTES_MAX = 20
_CHARACTER_SIZE_BYTES_MAX = 4

ApplyCommand = Callable[[EntryEffects, c.Command], c.Reply]


def apply_within_limits(effects: EntryEffects, command: c.Command, apply: ApplyCommand) -> c.Reply:
    """The command's reply, or `RefusedReply` with nothing changed, not even the last sequence number."""
    limits = effects.registry.limits
    # A migration is an operator's act, and ends only with exactly the records of its source: half of it is of no use to
    # anybody. What it stores counts, so that clients are refused once it has ended above the quota.
    if limits is NO_LIMITS or type(command) is c.Migrate:
        return apply(effects, command)
    text = refusal_while_read_only(limits, command)
    if text is not None:
        effects.refused += 1
        return c.RefusedReply(text)
    if not limits.quota_bytes or effects.data_size_bytes + _growth_bound(command) <= limits.quota_bytes:
        return apply(effects, command)
    return _apply_within_quota(effects, command, apply, limits.quota_bytes)


def refusal_while_read_only(limits: WriteLimits, command: c.Command) -> str | None:
    """Why this command is not taken; None when it is. What is no client's write is always taken."""
    if limits.read_only is None or not is_write(command):
        return None
    text = f"{READ_ONLY_TEXT}, an operator has turned writes off"
    return f"{text}: {limits.read_only}" if limits.read_only else text


def is_write(command: c.Command) -> bool:
    """Whether a client asks to change records, in any branch, whether or not it would be taken."""
    if isinstance(command, c.Upsert):
        return True
    return any(type(operation) is not c.Get for group in _groups(command) for operation in group)


def _groups(command: c.Command) -> list[Sequence[c.TransactionOperation]]:
    if isinstance(command, c.Transaction):
        return [*(branch.operations for branch in command.branches), command.if_then, command.else_then]
    if isinstance(command, c.BranchTransaction):
        return [branch.operations for branch in command.branches]
    return []


def _apply_within_quota(effects: EntryEffects, command: c.Command, apply: ApplyCommand, quota_bytes: int) -> c.Reply:
    """Apply it, and undo that if it leaves more data than before and more than the quota."""
    store, before = effects.store, effects.scalars()
    size_before = effects.data_size_bytes
    store.execute("SAVEPOINT command")  # what `apply` raises undoes the whole entry, this point included
    reply = apply(effects, command)
    size_after = effects.data_size_bytes
    if size_after <= quota_bytes or size_after <= size_before:
        store.execute("RELEASE command")
        return reply
    store.execute("ROLLBACK TO command")
    store.execute("RELEASE command")
    store.forget()
    effects.restore(before)
    effects.refused += 1
    return c.RefusedReply(
        f"{OVER_QUOTA_TEXT}: keys and values take {size_before} bytes, the limit is {quota_bytes}, and this write would"
        f" make it {size_after}; what deletes or shrinks is taken"
    )


def _growth_bound(command: c.Command) -> int:
    """At most so many bytes does the command add, whichever branch it takes."""
    if isinstance(command, c.Upsert):
        return _key_bound(command.key) + len(command.value)
    return sum(_operation_bound(operation) for group in _groups(command) for operation in group)


def _operation_bound(operation: c.TransactionOperation) -> int:
    if isinstance(operation, c.Put):
        return _key_bound(operation.key) + len(operation.value)
    if isinstance(operation, c.FetchIncrease):
        return _key_bound(operation.key) + _COUNTER_SIZE_BYTES_MAX
    if isinstance(operation, c.PutSequential):
        counter = _key_bound(operation.sequence_key) + _COUNTER_SIZE_BYTES_MAX
        return counter + _key_bound(operation.prefix) + SEQUENTIAL_NAME_SIZE_BYTES + len(operation.value)
    return 0


def _key_bound(key: str) -> int:
    return len(key) * _CHARACTER_SIZE_BYTES_MAX
