"""The lines of a backup: what each kind says, which versions are read, what is refused and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metasrv.backup import lines as l
from metasrv.backup.lines import parse_line
from metasrv.backup.log_lines import entry_of
from metasrv.model import commands as c
from metasrv.model.entries import NoopEntry, RegularEntry
from metasrv.model.errors import BackupError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.model.types import Endpoint, LogId, Node
from metasrv.state.bulk import BulkRecord

LOG_ID = {"leader_id": {"term": 3, "node_id": 1}, "index": 9}


def line(kind: str, body: Any, tree: str = "state_machine/0") -> l.Line:
    return parse_line(json.dumps([tree, {kind: body}]).encode())


def record(**changed: Any) -> l.Line:
    value = {"seq": 4, "meta": {"proposed_at_ms": 7}, "data": [102, 0, 255], **changed}
    return line("GenericKV", {"key": value.pop("key", "k"), "value": value})


def test_records_in_numbers_and_in_base64() -> None:
    assert record() == BulkRecord("k", 4, None, 7, b"f\x00\xff")
    assert record(data="ZgD/") == record()
    assert record(meta=None) == BulkRecord("k", 4, None, 0, b"f\x00\xff")
    assert record(meta={"expire_at": 2**64 - 1, "proposed_at_ms": 7}) == BulkRecord("k", 4, 2**64 - 1, 7, b"f\x00\xff")
    assert record(key="k" * KEY_SIZE_BYTES_MAX)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": [256]},
        {"data": [-1]},
        {"data": "Zg="},
        {"data": None},
        {"seq": 0},
        {"seq": 2**63},
        {"seq": "4"},
        {"meta": {"expire_at": -1}},
        {"meta": {"proposed_at_ms": 2**63}},
        {"key": 5},
        {"key": "k" * (KEY_SIZE_BYTES_MAX + 1)},
        {"key": "\u00e4" * (KEY_SIZE_BYTES_MAX // 2 + 1)},
    ],
)
def test_a_record_that_no_server_wrote_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BackupError):
        record(**changed)


def test_lines_of_the_present_version() -> None:
    assert line("DataHeader", {"key": "header", "value": {"version": "V004"}}, "header") == l.Header("V004")
    assert line("NodeId", 5, "raft_log") == l.NodeIdLine(5)
    assert line("NodeId", None, "raft_log") == l.NodeIdLine(None)
    assert line("Sequences", {"key": "generic-kv", "value": 17}) == l.LastSequence(17)
    assert line("StateMachineMeta", {"key": "LastApplied", "value": {"LogId": LOG_ID}}) == l.LastApplied(LogId(3, 9, 1))
    stored = {"log_id": None, "membership": {"configs": [[2, 1], [2, 3]], "nodes": {"4": {}, "1": {}}}}
    expected = l.LastMembership(LogId(), (1, 2, 3), (4,))
    assert line("StateMachineMeta", {"key": "LastMembership", "value": {"Membership": stored}}) == expected
    node = {"name": "0", "endpoint": {"addr": "h", "port": 1}, "grpc_api_advertise_address": "h:p"}
    assert line("Nodes", {"key": 0, "value": node}) == l.NodeLine(Node(0, Endpoint("h", 1), "", "h:p"))
    assert line("Expire", {"key": {"time_ms": 8, "seq": 2}, "value": {"key": "k"}}) == l.ExpireLine(2)
    assert line("Committed", None, "raft_log") == l.CommittedLine(None)
    assert line("Committed", LOG_ID, "raft_log") == l.CommittedLine(LogId(3, 9, 1))
    for kind in ("Vote", "Purged"):
        assert line(kind, None, "raft_log") == l.Ignored(kind)


def test_lines_of_older_versions() -> None:
    for version in ("V002", "V003"):
        assert line("DataHeader", {"key": "header", "value": {"version": version}}, "header") == l.Header(version)
    assert line("RaftStateKV", {"key": "Id", "value": {"NodeId": 3}}, "raft_state") == l.NodeIdLine(3)
    assert line("RaftStateKV", {"key": "HardState", "value": {}}, "raft_state") == l.Ignored("RaftStateKV")
    committed = {"key": "Committed", "value": {"Committed": LOG_ID}}
    assert line("RaftStateKV", committed, "raft_state") == l.CommittedLine(LogId(3, 9, 1))
    assert line("LogMeta", {"key": "LastPurged", "value": {}}, "raft_log") == l.Ignored("LogMeta")
    body = {"key": 9, "value": {"log_id": LOG_ID, "payload": "Blank"}}
    assert line("Logs", body, "raft_log") == l.LogEntryLine(LogId(3, 9, 1), "Blank")


@pytest.mark.parametrize("version", ["V001", "V005", "V0", None])
def test_another_version_is_refused_and_the_known_ones_are_named(version: object) -> None:
    with pytest.raises(BackupError, match=f"data version {version}; .* reads V002, V003, V004"):
        line("DataHeader", {"key": "header", "value": {"version": version}}, "header")


def test_what_is_no_line_is_refused() -> None:
    with pytest.raises(BackupError, match="'Whatever' is not known"):
        line("Whatever", {})
    for text in (
        b"",
        b"{}",
        b"[1]",
        b'["t",{}]',
        b'["t",{"a":1,"b":2}]',
        b'["t",["x"]]',
        b"\xff",
        b'["state',
        b"[" * 9999,
    ):
        with pytest.raises(BackupError):
            parse_line(text)
    with pytest.raises(BackupError, match="'value' is missing"):
        line("GenericKV", {"key": "k"})


def entry(payload: Any, time_ms: int = 50) -> Any:
    return entry_of(l.LogEntryLine(LogId(3, 9, 1), payload), time_ms)


def command(tree: Any) -> Any:
    (found,) = entry({"Normal": {"time_ms": 70, "cmd": tree}}).commands
    return found


def test_entries_of_the_log() -> None:
    assert entry("Blank") == entry({"Membership": {"configs": [[1]], "nodes": {}}}) == NoopEntry(1)
    upsert = {"UpsertKV": {"key": "k", "seq": {"GE": 1}, "value": {"Update": [1]}, "value_meta": {"expire_at": 9}}}
    expected = c.Upsert("k", c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1), c.Operation.UPDATE, b"\x01", 9)
    assert entry({"Normal": {"time_ms": 70, "cmd": upsert}}) == RegularEntry(70, 1, (expected,))
    assert entry({"Normal": {"time_ms": None, "cmd": upsert}}).time_ms == 50
    node = {"name": "2", "endpoint": {"addr": "h", "port": 1}}
    added = command({"AddNode": {"node_id": 2, "node": node, "overriding": True}})
    assert added == c.AddNode(Node(2, Endpoint("h", 1), "", None), True)
    assert command({"RemoveNode": {"node_id": 2}}) == c.RemoveNode(2)
    assert command({"SetFeature": {"feature": "dummy", "enable": True}}) == c.SetFeature("dummy", True)


def test_transactions_of_the_log() -> None:
    conditions = [
        {"key": "a", "expected": 1, "target": {"Seq": 5}},
        {"key": "b", "expected": 0, "target": {"Value": [1, 2]}},
        {"key": "c", "expected": 77, "target": {"KeysWithPrefix": 3}},
        {"key": "d", "expected": 2, "target": None},
    ]
    parsed = (
        c.Condition("a", c.Target.SEQ, 5, c.Comparison.GT),
        c.Condition("b", c.Target.VALUE, b"\x01\x02", c.Comparison.EQ),
        c.Condition("c", c.Target.KEYS_WITH_PREFIX, 3, c.Comparison.EQ),
        c.Condition("d", c.Target.NONE, 0, c.Comparison.GE),
    )
    requests = [
        {"Put": {"key": "k", "value": [1], "expire_at": 5, "ttl_ms": 6, "match_seq": 7}},
        {"Get": {"key": "k"}},
        {"Delete": {"key": "k", "prev_value": True, "match_seq": None}},
        {"DeleteByPrefix": {"prefix": "p"}},
        {"FetchIncreaseU64": {"key": "n", "delta": -2, "max_value": 4}},
        {"PutSequential": {"prefix": "p", "sequence_key": "s", "value": [2], "expires_at_ms": 5, "ttl_ms": None}},
        None,
    ]
    operations = [{"request": request} for request in requests]
    expected = (
        c.Put("k", b"\x01", 5, 6, 7),
        c.Get("k"),
        c.Delete("k"),
        c.DeleteByPrefix("p"),
        c.FetchIncrease("n", -2, None, 4),
        c.PutSequential("p", "s", b"\x02", 5, None),
        c.Get(""),
    )
    tree = {"condition": conditions, "if_then": operations, "else_then": [operations[0]]}
    assert command({"Transaction": tree}) == c.Transaction((), parsed, expected, expected[:1])
    predicate = {"operator": 1, "sub_expressions": [], "conditions": conditions}
    branch = c.Branch(c.Expression(c.Combine.OR, (), parsed), expected)
    branches = [{"predicate": predicate, "operations": operations}]
    assert command({"KvTransaction": {"branches": branches}}) == c.BranchTransaction((branch,))
    assert command({"Transaction": {"operations": branches}}) == c.Transaction((branch,), (), (), ())


@pytest.mark.parametrize(
    "payload",
    [
        {"Normal": {"cmd": {"Whatever": {}}}},
        {"Normal": {"cmd": {"UpsertKV": {"key": "k"}}}},
        {"Normal": {"cmd": {"RemoveNode": {}}}},
        {"Normal": {"cmd": {"Transaction": {"if_then": [{"request": {"Whatever": {}}}]}}}},
        {"Whatever": {}},
        5,
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(payload: object) -> None:
    with pytest.raises(BackupError):
        entry(payload)
