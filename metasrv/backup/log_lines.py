"""Entries of upstream's log as commands: what a backup of a running upstream node has beside its snapshot.

Such a backup holds the newest writes only as lines of the log, one command an entry. They are applied by the state
machine, as the entries of this server are. Pure; runs in a program of its own.
"""

from __future__ import annotations

import json
from typing import Any

from metasrv.backup.lines import MALFORMED, LastMembership, LogEntryLine, membership_of, node_of, number
from metasrv.grpc_api.kv_json import byte_string, parse_write
from metasrv.model import commands as c
from metasrv.model.codec import encode_command
from metasrv.model.entries import Entry, NoopEntry, RegularEntry
from metasrv.model.errors import BackupError, CodecError, InvalidRequestError, TooLargeError
from metasrv.model.types import I64_MAX
from metasrv.state.command_rules import validate_command

_COMPARISONS = tuple(c.Comparison)


def entry_of(line: LogEntryLine, time_ms: int) -> Entry:
    """The entry to apply; `time_ms` is the log time of the one before, for an entry without one. Raises BackupError.

    An entry that changes no record (blank, or a membership) becomes a no-op.
    """
    try:
        if line.payload == "Blank" or membership_in(line) is not None:
            return NoopEntry(line.log_id.node_id)
        normal = line.payload["Normal"]
        stamped = normal.get("time_ms")
        command = _command(normal["cmd"])
        validate_command(command)
        encode_command(command)
        time_ms = time_ms if stamped is None else number(stamped, I64_MAX)
        return RegularEntry(time_ms, line.log_id.node_id, (command,))
    except InvalidRequestError as error:
        raise BackupError(f"its command cannot be read: {error}") from error
    except KeyError as error:
        raise BackupError(f"its command is not known, or lacks {error}") from error
    except (*MALFORMED, CodecError, TooLargeError) as error:
        raise BackupError(f"its command cannot be read: {error}") from error


def membership_in(line: LogEntryLine) -> LastMembership | None:
    """The membership that the entry begins; None for any other entry. Raises BackupError."""
    if type(line.payload) is not dict or "Membership" not in line.payload:
        return None
    try:
        return membership_of(line.log_id, line.payload["Membership"])
    except MALFORMED as error:
        raise BackupError(f"its membership cannot be read: {error}") from error


def _command(tree: Any) -> c.Command:
    (name,) = tree
    body = tree[name]
    if name == "UpsertKV":
        return parse_write(json.dumps({name: body}))
    if name == "AddNode":
        return c.AddNode(node_of(body["node_id"], body["node"]), bool(body.get("overriding")))
    if name == "RemoveNode":
        return c.RemoveNode(int(body["node_id"]))
    if name == "SetFeature":
        return c.SetFeature(str(body["feature"]), bool(body["enable"]))
    if name == "Transaction":
        return c.Transaction(
            tuple(map(_branch, body.get("operations") or ())),
            tuple(map(_condition, body.get("condition") or ())),
            tuple(map(_operation, body.get("if_then") or ())),
            tuple(map(_operation, body.get("else_then") or ())),
        )
    if name == "KvTransaction":
        return c.BranchTransaction(tuple(map(_branch, body.get("branches") or ())))
    raise KeyError(name)


def _branch(tree: Any) -> c.Branch:
    predicate = tree.get("predicate")
    return c.Branch(
        None if predicate is None else _expression(predicate), tuple(map(_operation, tree.get("operations") or ()))
    )


def _expression(tree: Any) -> c.Expression:
    combine = c.Combine.OR if tree.get("operator") in (1, "Or", "OR") else c.Combine.AND
    return c.Expression(
        combine,
        tuple(map(_expression, tree.get("sub_expressions") or ())),
        tuple(map(_condition, tree.get("conditions") or ())),
    )


def _condition(tree: Any) -> c.Condition:
    expected = tree.get("expected") or 0
    comparison = _COMPARISONS[expected] if 0 <= expected < len(_COMPARISONS) else c.Comparison.EQ
    target = tree.get("target")
    if target is None:
        return c.Condition(tree["key"], c.Target.NONE, 0, comparison)
    (name,) = target
    if name == "Value":
        return c.Condition(tree["key"], c.Target.VALUE, byte_string(target[name], name), comparison)
    kind = {"Seq": c.Target.SEQ, "KeysWithPrefix": c.Target.KEYS_WITH_PREFIX}[name]
    return c.Condition(tree["key"], kind, int(target[name]), comparison)


def _operation(tree: Any) -> c.TransactionOperation:
    request = tree.get("request")
    if request is None:
        return c.Get("")  # as on the wire: no request set behaves as a get of the empty key
    (name,) = request
    body = request[name]
    if name == "Put":
        value = byte_string(body["value"], "value")
        return c.Put(body["key"], value, body.get("expire_at"), body.get("ttl_ms"), body.get("match_seq"))
    if name == "Get":
        return c.Get(body["key"])
    if name == "Delete":
        return c.Delete(body["key"], body.get("match_seq"))
    if name == "DeleteByPrefix":
        return c.DeleteByPrefix(body["prefix"])
    if name == "FetchIncreaseU64":
        return c.FetchIncrease(body["key"], int(body["delta"]), body.get("match_seq"), int(body.get("max_value") or 0))
    if name == "PutSequential":
        value = byte_string(body["value"], "value")
        return c.PutSequential(body["prefix"], body["sequence_key"], value, body.get("expires_at_ms"), body.get("ttl_ms"))
    raise KeyError(name)
