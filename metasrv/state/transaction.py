"""The rules of upserts and transactions (docs/contract/grpc.md sections d.1, d.2 and d.5).

What a command reads, writes and answers. Pure rules over `EntryEffects`; total for every command that can be decoded,
and the same on every node: no clock, no randomness. Runs on the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.state.effects import EntryEffects, RefusedCommandError
from metasrv.state.format import U64_MAX

Operand = TypeVar("Operand", int, bytes)

EXPRESSION_DEPTH_MAX = 64
"""Nesting that is still evaluated; requests are refused far below it (`TRANSACTION_DEPTH_MAX`)."""
_COUNTER = re.compile(rb"[ \t\n\r]*(0|[1-9][0-9]{0,19})[ \t\n\r]*")
"""A JSON text of an unsigned integer of at most 20 digits."""


def apply_upsert(effects: EntryEffects, command: c.Upsert) -> c.UpsertReply:
    """Update, delete or re-stamp one record when its sequence number matches."""
    prev = effects.read(command.key)
    kind, wanted = command.match
    seq = 0 if prev is None else prev.seq
    if (kind == c.MatchKind.EXACT and seq != wanted) or (kind == c.MatchKind.GREATER_EQUAL and seq < wanted):
        return c.UpsertReply(prev, prev)
    if command.operation == c.Operation.DELETE:
        if prev is not None:
            effects.remove(command.key, prev)
        return c.UpsertReply(prev, None)
    if command.operation == c.Operation.AS_IS:
        if prev is None:
            return c.UpsertReply(None, None)
        return c.UpsertReply(prev, effects.write(command.key, prev.data, prev, command.expire_at, command.ttl_ms))
    return c.UpsertReply(prev, effects.write(command.key, command.value, prev, command.expire_at, command.ttl_ms))


def apply_transaction(effects: EntryEffects, command: c.Transaction) -> c.TransactionReply:
    """Run the first branch that holds: `branches`, then `if_then`, then `else_then`."""
    for position, branch in enumerate(command.branches):
        if branch.predicate is None or _holds(effects, branch.predicate, 1):
            return c.TransactionReply(True, _run(effects, branch.operations), f"operation:{position}")
    for condition in command.conditions:
        if not _condition_holds(effects, condition):
            return c.TransactionReply(False, _run(effects, command.else_then), "else")
    return c.TransactionReply(True, _run(effects, command.if_then), "then")


def apply_branch_transaction(effects: EntryEffects, command: c.BranchTransaction) -> c.BranchTransactionReply:
    """Run the first branch that holds; none is no error."""
    for position, branch in enumerate(command.branches):
        if branch.predicate is None or _holds(effects, branch.predicate, 1):
            return c.BranchTransactionReply(position, _run(effects, branch.operations))
    return c.BranchTransactionReply(None, ())


# ----------------------------------------------------------------------------- conditions


def _holds(effects: EntryEffects, expression: c.Expression, depth: int) -> bool:
    """AND and OR of nothing are both true; children are the expressions, then the conditions."""
    if depth > EXPRESSION_DEPTH_MAX:
        raise RefusedCommandError(f"the boolean tree is nested more than {EXPRESSION_DEPTH_MAX} levels")
    if not expression.expressions and not expression.conditions:
        return True
    decides = expression.combine == c.Combine.OR
    for child in expression.expressions:
        if _holds(effects, child, depth + 1) is decides:
            return decides
    for condition in expression.conditions:
        if _condition_holds(effects, condition) is decides:
            return decides
    return not decides


def _condition_holds(effects: EntryEffects, condition: c.Condition) -> bool:
    key, target, operand, comparison = condition
    if target == c.Target.SEQ and isinstance(operand, int):
        return _compare(effects.store.read_seq(key), operand, comparison)
    if target == c.Target.VALUE and isinstance(operand, bytes):
        record = effects.store.read(key)
        return record is not None and _compare(record.data, operand, comparison)
    if target == c.Target.KEYS_WITH_PREFIX and isinstance(operand, int):
        return _compare(effects.store.count_prefix(key, operand + 1), operand, comparison)
    return False


def _compare(left: Operand, right: Operand, comparison: int) -> bool:
    if comparison == c.Comparison.GT:
        return left > right
    if comparison == c.Comparison.GE:
        return left >= right
    if comparison == c.Comparison.LT:
        return left < right
    if comparison == c.Comparison.LE:
        return left <= right
    if comparison == c.Comparison.NE:
        return left != right
    return left == right


# ----------------------------------------------------------------------------- operations


def _run(effects: EntryEffects, operations: tuple[c.TransactionOperation, ...]) -> tuple[c.OperationResponse, ...]:
    return tuple([_OPERATIONS[type(operation)](effects, operation) for operation in operations])


def _get(effects: EntryEffects, operation: c.Get) -> c.GetResponse:
    return c.GetResponse(operation.key, effects.read(operation.key))


def _put(effects: EntryEffects, operation: c.Put) -> c.PutResponse:
    key, value, expire_at, ttl_ms, match_seq = operation
    prev = effects.read(key)
    if match_seq is not None and (0 if prev is None else prev.seq) != match_seq:
        return c.PutResponse(key, prev, prev)
    return c.PutResponse(key, prev, effects.write(key, value, prev, expire_at, ttl_ms))


def _delete(effects: EntryEffects, operation: c.Delete) -> c.DeleteResponse:
    prev = effects.read(operation.key)
    if prev is None or (operation.match_seq is not None and prev.seq != operation.match_seq):
        return c.DeleteResponse(operation.key, False, prev)
    effects.remove(operation.key, prev)
    return c.DeleteResponse(operation.key, True, prev)


def _delete_by_prefix(effects: EntryEffects, operation: c.DeleteByPrefix) -> c.DeleteByPrefixResponse:
    return c.DeleteByPrefixResponse(operation.prefix, effects.remove_prefix(operation.prefix))


def _fetch_increase(effects: EntryEffects, operation: c.FetchIncrease) -> c.FetchIncreaseResponse:
    key, delta, match_seq, floor = operation
    prev = effects.read(key)
    before_seq = 0 if prev is None else prev.seq
    before = counter_of(prev)
    if match_seq is not None and before_seq != match_seq:
        return c.FetchIncreaseResponse(key, before_seq, before, before_seq, before)
    after = min(max(max(before, floor) + delta, 0), U64_MAX)
    effects.write(key, b"%d" % after, prev)
    return c.FetchIncreaseResponse(key, before_seq, before, effects.seq, after)


def _put_sequential(effects: EntryEffects, operation: c.PutSequential) -> c.PutResponse:
    """The counter takes the first sequence number, the record the second."""
    counter = _fetch_increase(effects, c.FetchIncrease(operation.sequence_key, 1))
    key = operation.prefix + sequential_name(counter.before)
    return _put(effects, c.Put(key, operation.value, operation.expires_at_ms, operation.ttl_ms))


def counter_of(record: SeqV | None) -> int:
    """The number a counter record holds; 0 when it is absent or no JSON text of a u64."""
    match = None if record is None else _COUNTER.fullmatch(record.data)
    number = 0 if match is None else int(match[1])
    return number if number <= U64_MAX else 0


def sequential_name(number: int) -> str:
    """21 digits in groups of three: `000_000_000_000_001_200_123`."""
    digits = f"{number:021d}"
    return "_".join(digits[start : start + 3] for start in range(0, 21, 3))


_OPERATIONS: dict[type[Any], Callable[[EntryEffects, Any], c.OperationResponse]] = {
    c.Get: _get,
    c.Put: _put,
    c.Delete: _delete,
    c.DeleteByPrefix: _delete_by_prefix,
    c.FetchIncrease: _fetch_increase,
    c.PutSequential: _put_sequential,
}
