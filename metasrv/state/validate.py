"""Checks of a command before it is proposed: sizes, counts, ranges (limits.py, invariant 10).

`apply` is total and would take anything; this keeps what is too large out of the log. Pure; services call it on the
event loop, once a request.
"""

from __future__ import annotations

from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import (
    KEY_SIZE_BYTES_MAX,
    TRANSACTION_DEPTH_MAX,
    TRANSACTION_OPERATIONS_MAX,
    VALUE_SIZE_BYTES_MAX,
)
from metasrv.state.format import U64_MAX

SEQUENTIAL_NAME_SIZE_BYTES = 27
"""What `PutSequential` adds to its prefix."""


def validate_command(command: c.Command) -> None:
    """Raise TooLargeError or InvalidRequestError for a command that must not be proposed."""
    if type(command) is c.Transaction:
        _check_transaction(command.branches, command.conditions, (command.if_then, command.else_then))
    elif type(command) is c.BranchTransaction:
        _check_transaction(command.branches, (), ())
    elif type(command) is c.Upsert:
        validate_key(command.key)
        _check_value(command.value)
        _check_numbers(command.match.seq, command.expire_at, command.ttl_ms)
    elif type(command) is c.SetFeature:
        validate_key(command.feature, "the feature name")
    elif type(command) is c.SetClusterSecret:
        validate_key(command.name, "the secret's name")
        _check_value(command.secret)
    elif type(command) is c.RemoveNode:
        _check_numbers(command.node_id)
    elif type(command) is c.AddNode:
        node = command.node
        _check_numbers(node.node_id, node.endpoint.port)
        for text in (node.endpoint.addr, node.grpc_api_addr, node.grpc_api_advertise_address or ""):
            validate_key(text, "the node's address")


def validate_key(key: str, what: str = "the key", spare_bytes: int = 0) -> None:
    """Raise when `key` is longer than the limit less `spare_bytes`, or has no UTF-8 form."""
    if key.isascii():
        size_bytes = len(key)
    else:
        try:
            size_bytes = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidRequestError(f"{what} is not valid Unicode: it has half of a surrogate pair") from None
    if size_bytes + spare_bytes > KEY_SIZE_BYTES_MAX:
        raise TooLargeError(f"{what} in bytes", size_bytes + spare_bytes, KEY_SIZE_BYTES_MAX)


def _check_value(value: bytes) -> None:
    if len(value) > VALUE_SIZE_BYTES_MAX:
        raise TooLargeError("the value in bytes", len(value), VALUE_SIZE_BYTES_MAX)


def _check_numbers(*numbers: int | None) -> None:
    for number in numbers:
        if number is not None and not 0 <= number <= U64_MAX:
            raise InvalidRequestError(f"{number} is not an unsigned 64-bit number")


def _check_transaction(
    branches: tuple[c.Branch, ...],
    conditions: tuple[c.Condition, ...],
    groups: tuple[tuple[c.TransactionOperation, ...], ...],
) -> None:
    # Counted before anything is looked at in detail, so that a huge request is refused cheaply.
    _check_count("branches", len(branches))
    count = len(conditions) + sum(map(len, groups)) + sum(len(branch.operations) for branch in branches)
    _check_count("operations and conditions", count)
    expressions = [(branch.predicate, 1) for branch in branches if branch.predicate is not None]
    seen = len(expressions)
    while expressions:
        expression, depth = expressions.pop()
        if depth > TRANSACTION_DEPTH_MAX:
            raise TooLargeError("the nesting of the boolean tree", depth, TRANSACTION_DEPTH_MAX)
        seen += len(expression.expressions)
        _check_count("boolean expressions", seen)
        count += len(expression.conditions)
        _check_count("operations and conditions", count)
        expressions += [(child, depth + 1) for child in expression.expressions]
        _check_conditions(expression.conditions)
    _check_conditions(conditions)
    for operations in (*groups, *(branch.operations for branch in branches)):
        for operation in operations:
            _check_operation(operation)


def _check_count(what: str, count: int) -> None:
    if count > TRANSACTION_OPERATIONS_MAX:
        raise TooLargeError(f"the number of {what} of the transaction", count, TRANSACTION_OPERATIONS_MAX)


def _check_conditions(conditions: tuple[c.Condition, ...]) -> None:
    for condition in conditions:
        validate_key(condition.key)
        if isinstance(condition.operand, bytes):
            _check_value(condition.operand)
        else:
            _check_numbers(condition.operand)


def _check_operation(operation: c.TransactionOperation) -> None:
    if type(operation) is c.Put:
        validate_key(operation.key)
        _check_value(operation.value)
        _check_numbers(operation.expire_at, operation.ttl_ms, operation.match_seq)
    elif type(operation) is c.Get:
        validate_key(operation.key)
    elif type(operation) is c.Delete:
        validate_key(operation.key)
        _check_numbers(operation.match_seq)
    elif type(operation) is c.DeleteByPrefix:
        validate_key(operation.prefix, "the prefix")
    elif type(operation) is c.FetchIncrease:
        validate_key(operation.key)
        _check_numbers(operation.match_seq, operation.floor)
        if not -(2**63) <= operation.delta < 2**63:
            raise InvalidRequestError(f"{operation.delta} is not a signed 64-bit number")
    elif type(operation) is c.PutSequential:
        validate_key(operation.prefix, "the key made from the prefix", SEQUENTIAL_NAME_SIZE_BYTES)
        validate_key(operation.sequence_key)
        _check_value(operation.value)
        _check_numbers(operation.expires_at_ms, operation.ttl_ms)
