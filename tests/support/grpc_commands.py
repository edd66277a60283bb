"""Commands of the state machine as a foreign client sends them, and the answers as the state machine's own replies."""

from __future__ import annotations

from typing import Any

from metasrv.client import answers
from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_wire import Wire

COMPARISONS = list(c.Comparison)


def condition_out(condition: c.Condition) -> pb.TxnCondition:
    target: dict[str, Any] = {}
    if condition.target is c.Target.SEQ:
        target["seq"] = condition.operand
    elif condition.target is c.Target.VALUE:
        target["value"] = condition.operand
    elif condition.target is c.Target.KEYS_WITH_PREFIX:
        target["keys_with_prefix"] = condition.operand
    return pb.TxnCondition(key=condition.key, expected=COMPARISONS.index(condition.comparison), **target)  # type: ignore[arg-type]


def expression_out(expression: c.Expression) -> pb.BooleanExpression:
    return pb.BooleanExpression(
        operator=pb.BooleanExpression.OR if expression.combine is c.Combine.OR else pb.BooleanExpression.AND,
        sub_expressions=map(expression_out, expression.expressions),
        conditions=map(condition_out, expression.conditions),
    )


def operation_out(operation: c.TransactionOperation) -> pb.TxnOp:
    if isinstance(operation, c.Get):
        return pb.TxnOp(get=pb.TxnGetRequest(key=operation.key))
    if isinstance(operation, c.Put):
        return pb.TxnOp(put=pb.TxnPutRequest(**operation._asdict()))
    if isinstance(operation, c.Delete):
        return pb.TxnOp(delete=pb.TxnDeleteRequest(**operation._asdict()))
    if isinstance(operation, c.DeleteByPrefix):
        return pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix=operation.prefix))
    if isinstance(operation, c.FetchIncrease):
        key, delta, match_seq, floor = operation
        return pb.TxnOp(
            fetch_increase_u64=pb.FetchIncreaseU64(key=key, delta=delta, match_seq=match_seq, max_value=floor)
        )
    return pb.TxnOp(put_sequential=pb.PutSequential(**operation._asdict()))


def branch_out(branch: c.Branch) -> pb.ConditionalOperation:
    predicate = None if branch.predicate is None else expression_out(branch.predicate)
    return pb.ConditionalOperation(predicate=predicate, operations=map(operation_out, branch.operations))


def record_of_tree(tree: dict[str, Any] | None) -> SeqV | None:
    if tree is None:
        return None
    meta = None if tree["meta"] is None else KVMeta(tree["meta"].get("expire_at"), tree["meta"].get("proposed_at_ms"))
    return SeqV(tree["seq"], bytes(tree["data"]), meta)


def send(wire: Wire, command: c.Command) -> c.Reply:
    """The command as a foreign client would send it, and its answer as the state machine's own reply."""
    if isinstance(command, c.Transaction):
        request = pb.TxnRequest(
            operations=map(branch_out, command.branches),
            condition=map(condition_out, command.conditions),
            if_then=map(operation_out, command.if_then),
            else_then=map(operation_out, command.else_then),
        )
        return answers.transaction_reply_of(wire.transaction(request))
    if isinstance(command, c.BranchTransaction):
        return answers.branch_transaction_reply_of(wire.kv_transaction(*map(branch_out, command.branches)))
    assert isinstance(command, c.Upsert)
    seq: Any = "Any"
    if command.match.kind is not c.MatchKind.ANY:
        seq = {"Exact" if command.match.kind is c.MatchKind.EXACT else "GE": command.match.seq}
    names = {c.Operation.UPDATE: command.value, c.Operation.DELETE: "Delete", c.Operation.AS_IS: "AsIs"}
    prev, result = wire.upsert(command.key, names[command.operation], seq, command.expire_at, command.ttl_ms)
    return c.UpsertReply(record_of_tree(prev), record_of_tree(result))


def records_of(wire: Wire, prefix: str = "") -> dict[str, SeqV]:
    return {item.key: answers.record_of(item.value) for item in wire.list_prefix(prefix)}
