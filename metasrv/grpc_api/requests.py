"""From protobuf requests to commands: the inward half of the wire (docs/contract/grpc.md sections a.3 and d.5).

Total for every message that protobuf can parse: unknown enum numbers and unset oneofs have a meaning, limits are
checked later by `metasrv.state.validate`. Hot path: runs on the event loop once per transaction, some microseconds each.
"""

from __future__ import annotations

from collections.abc import Sequence

from metasrv.model import commands as c
from metasrv.protocol.proto import meta_pb2 as pb

_COMPARISONS = tuple(c.Comparison)
_NOTHING: tuple[c.TransactionOperation, ...] = ()
_NO_CONDITIONS: tuple[c.Condition, ...] = ()


def transaction_from(request: pb.TxnRequest) -> c.Transaction:
    """The command of a `Transaction` call."""
    return c.Transaction(
        tuple(map(_branch, request.operations)),
        _conditions(request.condition),
        _operations(request.if_then),
        _operations(request.else_then),
    )


def branch_transaction_from(request: pb.KvTransactionRequest) -> c.BranchTransaction:
    """The command of a `KvTransaction` call."""
    return c.BranchTransaction(tuple(map(_branch, request.branches)))


def _branch(branch: pb.ConditionalOperation) -> c.Branch:
    predicate = _expression(branch.predicate) if branch.HasField("predicate") else None
    return c.Branch(predicate, _operations(branch.operations))


def _expression(expression: pb.BooleanExpression) -> c.Expression:
    combine = c.Combine.OR if expression.operator == pb.BooleanExpression.OR else c.Combine.AND
    return c.Expression(
        combine,
        tuple(map(_expression, expression.sub_expressions)),
        _conditions(expression.conditions),
    )


def _conditions(conditions: Sequence[pb.TxnCondition]) -> tuple[c.Condition, ...]:
    if not conditions:
        return _NO_CONDITIONS
    return tuple([_condition(condition) for condition in conditions])


def _condition(condition: pb.TxnCondition) -> c.Condition:
    expected = condition.expected
    comparison = _COMPARISONS[expected] if 0 <= expected < len(_COMPARISONS) else c.Comparison.EQ
    target = condition.WhichOneof("target")
    if target == "seq":
        return c.Condition(condition.key, c.Target.SEQ, condition.seq, comparison)
    if target == "value":
        return c.Condition(condition.key, c.Target.VALUE, condition.value, comparison)
    if target == "keys_with_prefix":
        return c.Condition(condition.key, c.Target.KEYS_WITH_PREFIX, condition.keys_with_prefix, comparison)
    return c.Condition(condition.key, c.Target.NONE, 0, comparison)


def _operations(operations: Sequence[pb.TxnOp]) -> tuple[c.TransactionOperation, ...]:
    if not operations:
        return _NOTHING
    if len(operations) == 1:
        return (_operation(operations[0]),)
    return tuple([_operation(operation) for operation in operations])


def _operation(operation: pb.TxnOp) -> c.TransactionOperation:
    request = operation.WhichOneof("request")
    if request == "put":
        return _put(operation.put)
    if request == "get":
        return c.Get(operation.get.key)
    if request == "delete":
        delete = operation.delete
        return c.Delete(delete.key, delete.match_seq if delete.HasField("match_seq") else None)
    if request == "delete_by_prefix":
        return c.DeleteByPrefix(operation.delete_by_prefix.prefix)
    if request == "fetch_increase_u64":
        increase = operation.fetch_increase_u64
        match_seq = increase.match_seq if increase.HasField("match_seq") else None
        return c.FetchIncrease(increase.key, increase.delta, match_seq, increase.max_value)
    if request == "put_sequential":
        return _put_sequential(operation.put_sequential)
    return c.Get("")  # no request set behaves as a get of the empty key


def _put(put: pb.TxnPutRequest) -> c.Put:
    has = put.HasField
    return c.Put(
        put.key,
        put.value,
        put.expire_at if has("expire_at") else None,
        put.ttl_ms if has("ttl_ms") else None,
        put.match_seq if has("match_seq") else None,
    )


def _put_sequential(put: pb.PutSequential) -> c.PutSequential:
    has = put.HasField
    return c.PutSequential(
        put.prefix,
        put.sequence_key,
        put.value,
        put.expires_at_ms if has("expires_at_ms") else None,
        put.ttl_ms if has("ttl_ms") else None,
    )
