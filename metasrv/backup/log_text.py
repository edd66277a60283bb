"""Entries of the log as text, as upstream's tool shows its own: commands with their keys, not their values.

Values are shown when asked for. Secrets never are. Pure; runs in a program of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from metasrv.model import commands as c
from metasrv.model.entries import Entry, MembershipEntry, NoopEntry
from metasrv.model.types import Membership

_SIGNS = {
    c.Comparison.EQ: "==",
    c.Comparison.GT: ">",
    c.Comparison.GE: ">=",
    c.Comparison.LT: "<",
    c.Comparison.LE: "<=",
    c.Comparison.NE: "!=",
}
_MILLISECONDS = 1000


def payload_text(entry: Entry) -> str:
    """What an entry holds, on one line. Several commands stand in brackets: an entry of upstream has one."""
    if isinstance(entry, NoopEntry):
        return "blank"
    if isinstance(entry, MembershipEntry):
        return _membership_text(entry.after)
    texts = [_command_text(command) for command in entry.commands]
    cmd = f"cmd: {texts[0]}" if len(texts) == 1 else f"cmds: [{', '.join(texts)}]"
    return f"normal:time: {_moment_text(entry.time_ms)} {cmd}"


def value_lines(entry: Entry, *, decoded: bool, raw: bool) -> Iterator[str]:
    """The values that an entry writes, below its own line: as text where they are text, and as numbers."""
    if isinstance(entry, NoopEntry | MembershipEntry):
        return
    for shows, mark, text_of in ((decoded, "", _decoded_text), (raw, " raw", _raw_text)):
        if not shows:
            continue
        for command in entry.commands:
            if isinstance(command, c.Upsert) and command.operation is c.Operation.UPDATE:
                name = "raw" if mark else "value"
                yield f"    {name}({command.key}): {text_of(command.value)}"
            for place, operation in _writes(command):
                key = operation.key if isinstance(operation, c.Put) else operation.prefix
                kind = "put" if isinstance(operation, c.Put) else "put_sequential"
                meta = mark or _lifetime_text(operation)
                yield f"    {place}.{kind} {key}{meta}:"
                yield f"      {text_of(operation.value)}"


def _moment_text(time_ms: int) -> str:
    """UTC, or the number if it is beyond the calendar."""
    try:
        moment = datetime.fromtimestamp(time_ms / _MILLISECONDS, UTC)
    except (OverflowError, ValueError, OSError):
        return str(time_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


def _membership_text(membership: Membership) -> str:
    voters = ",".join(f"{node_id}:EmptyNode" for node_id in sorted(membership.voters))
    learners = ",".join(f"{node_id}:EmptyNode" for node_id in sorted(membership.learners))
    return f"membership:{{voters:[{{{voters}}}], learners:[{learners}]}}"


# ----------------------------------------------------------------------------- commands


def _command_text(command: c.Command) -> str:
    if isinstance(command, c.Upsert):
        return f"upsert_kv:{command.key}({_match_text(command.match)}) = {_update_text(command)}"
    if isinstance(command, c.Transaction):
        branches = ",".join(map(_branch_text, command.branches))
        operations = f"operations:[{branches}] " if branches else ""
        conditions = ",".join(map(_condition_text, command.conditions))
        return (
            f"txn:TxnRequest{{{operations}if:[{conditions}] "
            f"then:{_operations_text(command.if_then)} else:{_operations_text(command.else_then)}}}"
        )
    if isinstance(command, c.BranchTransaction):
        return f"kv_txn:KvTransactionRequest{{branches:[{','.join(map(_branch_text, command.branches))}]}}"
    if isinstance(command, c.AddNode):
        node, mode = command.node, "override" if command.overriding else "no-override"
        grpc = node.grpc_api_advertise_address or ""
        return f"add_node({mode}):{node.node_id}=id={node.node_id} raft={node.endpoint} grpc={grpc}"
    if isinstance(command, c.RemoveNode):
        return f"remove_node:{command.node_id}"
    if isinstance(command, c.SetFeature):
        return f"set_feature:{command.feature}:{str(command.enable).lower()}"
    if isinstance(command, c.Migrate):
        return f"migrate:{command.step.name.lower()} run={command.run} records={len(command.records)}"
    if isinstance(command, c.SetReadOnly):
        return f"set_read_only:{str(command.read_only is not None).lower()}"
    if isinstance(command, c.SetQuota):
        return f"set_quota:{command.quota_bytes}"
    kind = "set_secret" if isinstance(command, c.SetClusterSecret) else "replace_secret"
    return f"{kind}:{command.name}"


def _match_text(match: c.MatchSeq) -> str:
    if match.kind is c.MatchKind.EXACT:
        return f"Exact({match.seq})"
    return f"GE({match.seq if match.kind is c.MatchKind.GREATER_EQUAL else 0})"


def _update_text(command: c.Upsert) -> str:
    operation = {c.Operation.UPDATE: 'Update("[binary]")', c.Operation.DELETE: "Delete", c.Operation.AS_IS: "AsIs"}
    lifetime = ", ".join(_lifetime_parts(command.expire_at, command.ttl_ms))
    return f"{operation[command.operation]} ({lifetime or None})"


def _branch_text(branch: c.Branch) -> str:
    predicate = "true" if branch.predicate is None else _expression_text(branch.predicate)
    return f"if:({predicate}) then:{_operations_text(branch.operations)}"


def _expression_text(expression: c.Expression) -> str:
    parts = [f"({_expression_text(inner)})" for inner in expression.expressions]
    parts += map(_condition_text, expression.conditions)
    return f" {expression.combine.name} ".join(parts)


def _condition_text(condition: c.Condition) -> str:
    operand: Any = condition.operand
    target = condition.target.name.lower()
    if isinstance(operand, bytes):
        operand = f"{len(operand)} bytes"
    return f"{condition.key} {_SIGNS[condition.comparison]} {target}({operand})"


def _operations_text(operations: tuple[c.TransactionOperation, ...]) -> str:
    return f"[{','.join(map(_operation_text, operations))}]"


def _operation_text(operation: c.TransactionOperation) -> str:
    if isinstance(operation, c.Put):
        expiry = "" if operation.expire_at is None else f" expire_at: {operation.expire_at}"
        seq = "" if operation.match_seq is None else f" match_seq: {operation.match_seq}"
        ttl = "" if operation.ttl_ms is None else f"  ttl: {_duration_text(operation.ttl_ms)}"
        return f"Put(Put key={operation.key}{seq}{expiry}{ttl})"
    if isinstance(operation, c.Get):
        return f"Get(Get key={operation.key})"
    if isinstance(operation, c.Delete):
        seq = "" if operation.match_seq is None else f" match_seq: {operation.match_seq}"
        return f"Delete(Delete key={operation.key}{seq})"
    if isinstance(operation, c.DeleteByPrefix):
        return f"DeleteByPrefix(DeleteByPrefix prefix={operation.prefix})"
    if isinstance(operation, c.FetchIncrease):
        return f"FetchIncreaseU64(FetchIncreaseU64 key={operation.key} delta={operation.delta})"
    return f"PutSequential(PutSequential prefix={operation.prefix} seq_key={operation.sequence_key})"


def _duration_text(duration_ms: int) -> str:
    if duration_ms and duration_ms < _MILLISECONDS:
        return f"{duration_ms}ms"
    return f"{duration_ms / _MILLISECONDS:g}s" if duration_ms % _MILLISECONDS else f"{duration_ms // _MILLISECONDS}s"


# ----------------------------------------------------------------------------- values


def _writes(command: c.Command) -> Iterator[tuple[str, c.Put | c.PutSequential]]:
    """Each operation that writes a value, with its place in the command."""
    sides: list[tuple[str, tuple[c.TransactionOperation, ...]]] = []
    if isinstance(command, c.Transaction):
        sides += [(f"txn.operations[{n}].ops", branch.operations) for n, branch in enumerate(command.branches)]
        sides += [("txn.if_then", command.if_then), ("txn.else_then", command.else_then)]
    elif isinstance(command, c.BranchTransaction):
        sides += [(f"kv_txn.branches[{n}].ops", branch.operations) for n, branch in enumerate(command.branches)]
    for place, operations in sides:
        for number, operation in enumerate(operations):
            if isinstance(operation, c.Put | c.PutSequential):
                yield f"{place}[{number}]", operation


def _lifetime_text(operation: c.Put | c.PutSequential) -> str:
    expire_at = operation.expire_at if isinstance(operation, c.Put) else operation.expires_at_ms
    parts = _lifetime_parts(expire_at, operation.ttl_ms)
    return f" ({', '.join(parts)})" if parts else ""


def _lifetime_parts(expire_at: int | None, ttl_ms: int | None) -> list[str]:
    given = (("expire_at", expire_at), ("ttl_ms", ttl_ms))
    return [f"{name}={value}" for name, value in given if value is not None]


def _decoded_text(value: bytes) -> str:
    """A value that is readable text, in quotes; Databend's own schemas are not known here."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    return f'"{text}"' if text and text.isprintable() else f"unknown-prefix({len(value)} bytes)"


def _raw_text(value: bytes) -> str:
    return f"[{', '.join(map(str, value))}]"
