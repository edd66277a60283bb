"""Two exports, key by key; exports of upstream's servers with entries of their log among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metasrv.migration.changes import Change
from metasrv.migration.comparing import Difference, differences, mirror_of
from metasrv.model.errors import BackupError
from metasrv.model.types import KVMeta, SeqV

STATE = "state_machine/0"


def log_id(index: int) -> dict[str, Any]:
    return {"leader_id": {"term": 2, "node_id": 1}, "index": index}


def record_line(key: str, seq: int, data: bytes = b"v", **meta: int) -> list[Any]:
    value = {"seq": seq, "meta": meta or None, "data": list(data)}
    return [STATE, {"GenericKV": {"key": key, "value": value}}]


def upsert_line(index: int, key: str, data: bytes | None) -> list[Any]:
    operation: Any = "Delete" if data is None else {"Update": list(data)}
    command = {"UpsertKV": {"key": key, "seq": "Any", "value": operation, "value_meta": None}}
    payload = {"Normal": {"txid": None, "time_ms": 5_000 + index, "cmd": command}}
    return ["raft_log", {"LogEntry": {"log_id": log_id(index), "payload": payload}}]


def export(path: Path, *records: list[Any], log: tuple[list[Any], ...] = (), committed: int = 9, seq: int = 90) -> str:
    """An export as a server writes it, whose state has applied entry 4."""
    lines = [
        ["header", {"DataHeader": {"key": "header", "value": {"version": "V004"}}}],
        ["raft_log", {"NodeId": 1}],
        ["raft_log", {"Vote": None}],
        ["raft_log", {"Committed": log_id(committed)}],
        ["raft_log", {"Purged": None}],
        *log,
        [STATE, {"Sequences": {"key": "generic-kv", "value": seq}}],
        [STATE, {"StateMachineMeta": {"key": "LastApplied", "value": {"LogId": log_id(4)}}}],
    ]
    for line in records:
        body = line[1]["GenericKV"]
        expire_at = (body["value"]["meta"] or {}).get("expire_at")
        if expire_at is not None:
            key = {"time_ms": expire_at, "seq": body["value"]["seq"]}
            lines.append([STATE, {"Expire": {"key": key, "value": {"seq": body["value"]["seq"], "key": body["key"]}}}])
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *records]))
    return str(path)


def compared(tmp_path: Path, source: str, target: str) -> list[Difference]:
    mirror = mirror_of(source, str(tmp_path / "mirror"))
    return list(differences(mirror, target))


def test_equal_exports_have_no_difference_and_an_unset_time_is_zero(tmp_path: Path) -> None:
    source = export(tmp_path / "a", record_line("a", 1), record_line("b", 2, expire_at=10**12, proposed_at_ms=7))
    target = export(
        tmp_path / "b",
        record_line("a", 1, proposed_at_ms=0),
        record_line("b", 2, expire_at=10**12, proposed_at_ms=7),
    )
    assert compared(tmp_path, source, target) == []


@pytest.mark.parametrize(
    "other",
    [
        record_line("b", 3, proposed_at_ms=7),
        record_line("b", 2, b"w", proposed_at_ms=7),
        record_line("b", 2, proposed_at_ms=8),
        record_line("b", 2, proposed_at_ms=7, expire_at=10**12),
    ],
    ids=["seq", "value", "time", "expiry"],
)
def test_every_part_of_a_record_is_compared(tmp_path: Path, other: list[Any]) -> None:
    source = export(tmp_path / "a", record_line("b", 2, proposed_at_ms=7))
    (found,) = compared(tmp_path, source, export(tmp_path / "b", other))
    assert found.key == "b"
    assert str(found).startswith("'b' (source: seq 2, 1 bytes, expire_at None, proposed_at_ms 7; target: seq ")


def test_missing_and_surplus_keys_at_every_place(tmp_path: Path) -> None:
    source = export(tmp_path / "a", *(record_line(key, at) for at, key in enumerate("bdf\uffff", 1)))
    target = export(tmp_path / "b", *(record_line(key, 10 + at) for at, key in enumerate("acg\U00010000", 1)))
    found = compared(tmp_path, source, target)
    assert [each.key for each in found] == ["a", "b", "c", "d", "f", "g", "\uffff", "\U00010000"]
    assert [each.source is None for each in found] == [True, False, True, False, False, True, False, True]
    assert str(found[0]).endswith("(source: no record; target: seq 11, 1 bytes, expire_at None, proposed_at_ms 0)")


def test_what_makes_them_equal() -> None:
    old, new = SeqV(3, b"old", KVMeta(None, 0)), SeqV(9, b"new", KVMeta(None, 0))
    assert Difference("k", new, None).changes() == [Change("k", 9, new)]
    assert Difference("k", new, old).changes() == [Change("k", 9, new)]
    assert Difference("k", None, old).changes() == [Change("k", 3, None)]
    assert Difference("k", old, new).changes() == [Change("k", 9, None), Change("k", 3, old)], "the source went back"
    same = old._replace(data=b"other")
    assert Difference("k", old, same).changes() == [Change("k", 3, None), Change("k", 3, old)]


def test_entries_of_the_log_count_as_far_as_they_are_committed(tmp_path: Path) -> None:
    log = (
        upsert_line(4, "ignored", b"the state has it"),
        upsert_line(5, "a", b"new"),
        upsert_line(6, "b", None),
        upsert_line(7, "c", b"may be given up yet"),
    )
    source = export(tmp_path / "a", record_line("a", 1), record_line("b", 2), log=log, committed=6)
    found = compared(tmp_path, source, export(tmp_path / "b"))
    assert found == [Difference("a", SeqV(91, b"new", KVMeta(None, 5_005)), None)]
    mirror = mirror_of(export(tmp_path / "c", log=log, committed=7), str(tmp_path / "other"))
    assert (mirror.last_seq, mirror.key_count) == (92, 2)


def test_an_export_out_of_order_or_cut_in_a_line_is_refused(tmp_path: Path) -> None:
    source = export(tmp_path / "a", record_line("a", 1))
    with pytest.raises(BackupError, match="its key does not follow"):
        compared(tmp_path, source, export(tmp_path / "b", record_line("b", 1), record_line("a", 2)))
    cut = tmp_path / "cut"
    cut.write_text(Path(source).read_text()[:-9])
    with pytest.raises(BackupError, match="line 8"):
        mirror_of(str(cut), str(tmp_path / "of cut"))
    with pytest.raises(BackupError, match="No such file"):
        mirror_of(str(tmp_path / "none"), str(tmp_path / "of none"))
