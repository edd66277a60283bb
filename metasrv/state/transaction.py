"""The rules of upserts and transactions (docs/contract/grpc.md sections d.1, d.2 and d.5).

What may be asked, and what a command reads, writes and answers. Pure rules over `EntryEffects`; total for every command
that can be decoded, and the same on every node: no clock, no randomness. Runs on the event loop.
"""

from __future__ import annotations

from typing import TypeVar

from metasrv.model import commands as c
from metasrv.model.errors import TooLargeError
from metasrv.model.limits import EXPRESSION_DEPTH_MAX, TRANSACTION_DEPTH_MAX, TRANSACTION_OPERATIONS_MAX
from metasrv.state.effects import EntryEffects, RefusedCommandError
from metasrv.state.operations import OPERATION_VALIDATORS, apply_operations
from metasrv.state.validate import validate_key, validate_numbers, validate_value

Operand = TypeVar("Operand", int, bytes)


def validate_upsert(command: c.Upsert) -> None:
    validate_key(command.key)
    validate_value(command.value)
    validate_numbers(command.match.seq, command.expire_at, command.ttl_ms)


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


def validate_transaction(command: c.Transaction) -> None:
    _validate_parts(command.branches, command.conditions, (command.if_then, command.else_then))


def apply_transaction(effects: EntryEffects, command: c.Transaction) -> c.TransactionReply:
    """Run the first branch that holds: `branches`, then `if_then`, then `else_then`."""
    for position, branch in enumerate(command.branches):
        if branch.predicate is None or _holds(effects, branch.predicate, 1):
            return c.TransactionReply(True, apply_operations(effects, branch.operations), f"operation:{position}")
    for condition in command.conditions:
        if not _condition_holds(effects, condition):
            return c.TransactionReply(False, apply_operations(effects, command.else_then), "else")
    return c.TransactionReply(True, apply_operations(effects, command.if_then), "then")


def validate_branch_transaction(command: c.BranchTransaction) -> None:
    _validate_parts(command.branches, (), ())


def apply_branch_transaction(effects: EntryEffects, command: c.BranchTransaction) -> c.BranchTransactionReply:
    """Run the first branch that holds; it is not an error when none does."""
    for position, branch in enumerate(command.branches):
        if branch.predicate is None or _holds(effects, branch.predicate, 1):
            return c.BranchTransactionReply(position, apply_operations(effects, branch.operations))
    return c.BranchTransactionReply(None, ())


# ----------------------------------------------------------------------------- conditions


def _holds(effects: EntryEffects, expression: c.Expression, depth: int) -> bool:
    """Whether the tree holds. AND and OR of nothing are true; children are the expressions, then the conditions."""
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


# ----------------------------------------------------------------------------- validation


def _validate_parts(
    branches: tuple[c.Branch, ...],
    conditions: tuple[c.Condition, ...],
    groups: tuple[tuple[c.TransactionOperation, ...], ...],
) -> None:
    # Counted before anything is looked at in detail, so that a huge request is refused cheaply.
    _validate_count("branches", len(branches))
    count = len(conditions) + sum(map(len, groups)) + sum(len(branch.operations) for branch in branches)
    _validate_count("operations and conditions", count)
    expressions = [(branch.predicate, 1) for branch in branches if branch.predicate is not None]
    seen = len(expressions)
    while expressions:
        expression, depth = expressions.pop()
        if depth > TRANSACTION_DEPTH_MAX:
            raise TooLargeError("the nesting of the boolean tree", depth, TRANSACTION_DEPTH_MAX)
        seen += len(expression.expressions)
        _validate_count("boolean expressions", seen)
        count += len(expression.conditions)
        _validate_count("operations and conditions", count)
        expressions += [(child, depth + 1) for child in expression.expressions]
        _validate_conditions(expression.conditions)
    if conditions:
        _validate_conditions(conditions)
    for operations in (*groups, *(branch.operations for branch in branches)):
        for operation in operations:
            OPERATION_VALIDATORS[type(operation)](operation)


def _validate_count(what: str, count: int) -> None:
    if count > TRANSACTION_OPERATIONS_MAX:
        raise TooLargeError(f"the number of {what} of the transaction", count, TRANSACTION_OPERATIONS_MAX)


def _validate_conditions(conditions: tuple[c.Condition, ...]) -> None:
    for condition in conditions:
        validate_key(condition.key)
        if isinstance(condition.operand, bytes):
            validate_value(condition.operand)
        else:
            validate_numbers(condition.operand)
