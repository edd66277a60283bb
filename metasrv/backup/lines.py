"""The lines of a backup, read: one JSON array each, in the format of data version V004 (docs/contract/grpc.md section g).

Versions V002 and V003 have the same lines of the state under the same names, and others for the log; both are read. What
a line says becomes a value of this module. Knows no file. Pure; runs in a program of its own.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any, NamedTuple

from metasrv.model.errors import BackupError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.model.types import I64_MAX, U64_MAX, Endpoint, LogId, Node
from metasrv.state.bulk import BulkRecord

VERSIONS = ("V002", "V003", "V004")
_RECORDS_SEQUENCE = "generic-kv"
_ASCII_KEY_CHARACTERS_MAX = KEY_SIZE_BYTES_MAX // 4


class Header(NamedTuple):
    version: str


class NodeIdLine(NamedTuple):
    node_id: int | None


class LogEntryLine(NamedTuple):
    """An entry of the log; `payload` is what `log_lines.py` reads."""

    log_id: LogId
    payload: Any


class LastSequence(NamedTuple):
    seq: int


class LastApplied(NamedTuple):
    log_id: LogId


class CommittedLine(NamedTuple):
    """The last entry that is known to be committed; None where the backup does not say."""

    log_id: LogId | None


class LastMembership(NamedTuple):
    """Ids only; their addresses stand in the lines of the nodes."""

    log_id: LogId
    voters: tuple[int, ...]
    learners: tuple[int, ...]


class NodeLine(NamedTuple):
    node: Node


class ExpireLine(NamedTuple):
    """A row of the expire index, which the records say as well."""

    seq: int


class Ignored(NamedTuple):
    """A line that says nothing a restore needs."""

    kind: str


Line = (
    Header
    | NodeIdLine
    | LogEntryLine
    | LastSequence
    | LastApplied
    | CommittedLine
    | LastMembership
    | NodeLine
    | ExpireLine
    | BulkRecord
    | Ignored
)


def parse_line(text: bytes | str) -> Line:
    """What one line says. Raises BackupError, whose text does not name the line's number."""
    try:
        tree, body = json.loads(text)
        (kind,) = body
        value = body[kind]
        if kind == "GenericKV":
            return _record(value["key"], value["value"])
        parse = _PARSERS.get(kind)
        if parse is None or type(tree) is not str:
            raise BackupError(f"its kind {kind!r} is not known to this version of metactl")
        return parse(value)
    except KeyError as error:
        raise BackupError(f"its member {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BackupError(f"it is no line of a backup: {error}") from error


def _record(key: Any, value: Any) -> BulkRecord:
    data = value["data"]
    data = b64decode(data, validate=True) if type(data) is str else bytes(data)
    meta = value.get("meta") or {}
    seq, expire_at, proposed_at_ms = value["seq"], meta.get("expire_at"), meta.get("proposed_at_ms") or 0
    if type(key) is not str or (len(key) > _ASCII_KEY_CHARACTERS_MAX and len(key.encode()) > KEY_SIZE_BYTES_MAX):
        raise BackupError(f"its key is not a text of at most {KEY_SIZE_BYTES_MAX} bytes")
    if len(data) > VALUE_SIZE_BYTES_MAX:
        raise BackupError(f"its value has {len(data)} bytes, the limit is {VALUE_SIZE_BYTES_MAX}")
    if type(seq) is not int or not 0 < seq <= I64_MAX:
        raise BackupError(f"its sequence number {seq!r} is not a number from 1 to {I64_MAX}")
    if type(proposed_at_ms) is not int or not 0 <= proposed_at_ms <= I64_MAX:
        raise BackupError(f"its time {proposed_at_ms!r} is not a number up to {I64_MAX}")
    if expire_at is not None and (type(expire_at) is not int or not 0 <= expire_at <= U64_MAX):
        raise BackupError(f"its expiry {expire_at!r} is not a number up to {U64_MAX}")
    return BulkRecord(key, seq, expire_at, proposed_at_ms, data)


def _header(value: Any) -> Header:
    version = value["value"]["version"]
    if version not in VERSIONS:
        raise BackupError(f"the backup has data version {version}; this version of metactl reads {', '.join(VERSIONS)}")
    return Header(version)


def _raft_state(value: Any) -> Line:
    """V002 and V003: the node's id, vote and committed entry, under their keys."""
    if value["key"] == "Id":
        return NodeIdLine(int(value["value"]["NodeId"]))
    if value["key"] == "Committed":
        return _committed(value["value"]["Committed"])
    return Ignored("RaftStateKV")


def _committed(value: Any) -> CommittedLine:
    return CommittedLine(None if value is None else log_id_of(value))


def _log_entry(value: Any) -> LogEntryLine:
    return LogEntryLine(log_id_of(value["log_id"]), value["payload"])


def _sequence(value: Any) -> Line:
    if value["key"] != _RECORDS_SEQUENCE:
        return Ignored("Sequences")
    seq = value["value"]
    if type(seq) is not int or not 0 <= seq <= I64_MAX:
        raise BackupError(f"the last sequence number {seq!r} is not a number up to {I64_MAX}")
    return LastSequence(seq)


def _state_meta(value: Any) -> Line:
    if value["key"] == "LastApplied":
        return LastApplied(log_id_of(value["value"]["LogId"]))
    if value["key"] == "LastMembership":
        stored = value["value"]["Membership"]
        log_id = stored["log_id"]
        return membership_of(LogId() if log_id is None else log_id_of(log_id), stored["membership"])
    return Ignored("StateMachineMeta")


def membership_of(log_id: LogId, tree: Any) -> LastMembership:
    """A membership as upstream writes it. Raises KeyError, TypeError, ValueError or AttributeError."""
    voters = sorted({int(node_id) for config in tree["configs"] for node_id in config})
    learners = sorted({int(node_id) for node_id in tree.get("nodes") or ()} - set(voters))
    return LastMembership(log_id, tuple(voters), tuple(learners))


def _node(value: Any) -> NodeLine:
    return NodeLine(node_of(value["key"], value["value"]))


def node_of(node_id: Any, value: Any) -> Node:
    """A node as upstream writes it. Raises KeyError, TypeError, ValueError or AttributeError."""
    endpoint = Endpoint(str(value["endpoint"]["addr"]), int(value["endpoint"]["port"]))
    advertised = value.get("grpc_api_advertise_address")
    return Node(
        int(node_id), endpoint, str(value.get("grpc_api_addr") or ""), None if advertised is None else str(advertised)
    )


def log_id_of(value: Any) -> LogId:
    """A log id as upstream writes it. Raises KeyError, TypeError or ValueError."""
    leader = value["leader_id"]
    log_id = LogId(int(leader["term"]), int(value["index"]), int(leader.get("node_id") or 0))
    if not all(0 <= number <= I64_MAX for number in log_id):
        raise ValueError(f"log id {tuple(log_id)} is out of range")
    return log_id


_PARSERS: dict[str, Callable[[Any], Line]] = {
    "DataHeader": _header,
    "NodeId": lambda value: NodeIdLine(None if value is None else int(value)),
    "Vote": lambda value: Ignored("Vote"),
    "Committed": _committed,
    "Purged": lambda value: Ignored("Purged"),
    "LogEntry": _log_entry,
    "RaftStateKV": _raft_state,
    "Logs": lambda value: _log_entry(value["value"]),
    "LogMeta": lambda value: Ignored("LogMeta"),
    "Sequences": _sequence,
    "StateMachineMeta": _state_meta,
    "Nodes": _node,
    "Expire": lambda value: ExpireLine(int((value.get("value") or {}).get("seq") or value["key"]["seq"])),
    "ClientLastResps": lambda value: Ignored("ClientLastResps"),
}
"""By the kind of a line. `RaftStateKV`, `Logs`, `LogMeta` and `ClientLastResps` are of older versions."""
