"""Backups as files: an archive that is whole, one that is not, and the data directories that are made of them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.backup.archive import ArchiveReader, ArchiveWriter
from metasrv.backup.inspecting import inspect, report
from metasrv.backup.offline import stopped_node, whole_state
from metasrv.backup.restoring import Member, Restored, Wanted, parse_members, restore
from metasrv.grpc_api.export_lines import ArchiveHead, export_lines
from metasrv.model import commands as c
from metasrv.model.codec import encode_command
from metasrv.model.entries import decode_entry, encode_regular_entry
from metasrv.model.errors import BackupError, DataDamagedError
from metasrv.model.limits import BACKUP_LINE_SIZE_BYTES_MAX, BACKUP_SECRETS_MAX
from metasrv.model.types import Endpoint, KVMeta, LogId, Node, SeqV
from metasrv.node.opening import open_data
from metasrv.process.data_directory import holds_data
from metasrv.raft.log.format import CONTENT, TERM
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.scrubbing import check_sums

ENDPOINT = Endpoint("127.0.0.1", 28103)
HEAD = ArchiveHead("the cluster", 1, 1_700_000_000_000, True, 30, 1, ("dummy",))
ENTRIES = 20
FIRST_INDEX = 3
"""The entries before are those of a new cluster."""
THREE = ["4=localhost:29103", "5=localhost:29203,6=localhost:29303"]


def quiet(lines: int, size_bytes: int) -> None:
    """No progress."""


def commands() -> Iterator[c.Command]:
    yield c.AddNode(Node(1, ENDPOINT, "127.0.0.1:9191", "localhost:9191"), True)
    yield c.SetFeature("dummy", True)
    yield c.SetClusterSecret("token", b"secret")
    any_seq = c.MatchSeq(c.MatchKind.ANY)
    yield c.Upsert("large", any_seq, c.Operation.UPDATE, b"x" * 3000)
    yield c.Upsert("\u00e4/\n", any_seq, c.Operation.UPDATE, bytes(range(256)), 2**64 - 1)
    for number in range(ENTRIES):
        expire_at = 4_000_000_000 + number if number % 3 == 0 else None
        yield c.Upsert(f"d{number % 4}/k{number}", any_seq, c.Operation.UPDATE, b"v" * number, expire_at)


def make_node(root: Path, applied: int = 100) -> str:
    """A node that has stopped; its state has applied so many of the entries in its log."""
    data = open_data(str(root), 1, ENDPOINT, bootstrap=True)
    data.store.setCurrentTerm(2, "1")
    for index, command in enumerate(commands(), FIRST_INDEX):
        data.store.add(encode_regular_entry(1_700_000_000_000 + index, 1, [encode_command(command)]), index, 2)
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    for index in range(2, min(applied, data.store.last_index) + 1):
        entry = data.store.entry_at(index)
        assert entry is not None
        data.machine.apply_entry(LogId(entry[TERM], index, 1), decode_entry(entry[CONTENT]))
    data.close()
    return str(root)


def exported(root: str, head: ArchiveHead | None = None, node_id: int = 1) -> list[str]:
    with stopped_node(root) as node, whole_state(node) as machine, machine.open_reader() as view:
        return list(export_lines(view, node_id, node.purged, head))


def archive(root: str, head: ArchiveHead = HEAD) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    writer.write(exported(root, head))
    writer.finish()
    return file.getvalue()


def reading(data: bytes) -> ArchiveReader:
    return ArchiveReader(io.BytesIO(data), "the backup")


def restored(data: bytes, root: Path | str, node_id: int | None = None, members: list[str] | None = None) -> Restored:
    wanted = Wanted(str(root), node_id, parse_members(members or []))
    return restore(reading(data), wanted, 123, quiet, replace=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_node(tmp_path_factory.mktemp("source") / "data")


@pytest.fixture(scope="module")
def whole(source: str) -> bytes:
    return archive(source)


# ----------------------------------------------------------------------------- archives


def test_an_inspection_names_what_is_in_an_archive(whole: bytes) -> None:
    reader = reading(whole)
    lines = list(report(reader, inspect(reader, quiet), encrypted=False))
    assert "ClusterId: the cluster" in lines
    assert "SavedAt: 2023-11-14T22:13:20Z" in lines
    assert "LastApplied: T2-N1.27" in lines
    assert "Features: dummy" in lines
    assert [line for line in lines if line.startswith("Secrets: ")]
    assert "Keys: 22" in lines
    assert "KeysThatExpire: 8" in lines
    assert lines[lines.index("KeysByPrefix:") + 1 :][:5] == [
        "  - (no slash) 1",
        *(f"  - d{number}/ 5" for number in range(4)),
    ]
    assert lines[-1] == f"SHA-256: {reader.sha256} confirmed"


def test_every_flipped_byte_of_an_archive_is_noticed(whole: bytes) -> None:
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        with pytest.raises(BackupError):
            inspect(reading(bytes(damaged)), quiet)


def test_an_archive_that_was_cut_off_anywhere_is_noticed(whole: bytes) -> None:
    for size_bytes in range(0, len(whole) - 1, 7):
        with pytest.raises(BackupError):
            inspect(reading(whole[:size_bytes]), quiet)
    inspect(reading(whole[:-1]), quiet)  # nothing but the end of the last line is missing
    with pytest.raises(BackupError, match="something follows"):
        inspect(reading(whole + b"\n"), quiet)


def test_a_line_at_the_limit_is_read_and_one_past_it_is_not(monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    longest = max(map(len, whole.splitlines(keepends=True)))
    assert longest < BACKUP_LINE_SIZE_BYTES_MAX
    monkeypatch.setattr("metasrv.backup.archive.BACKUP_LINE_SIZE_BYTES_MAX", longest)
    inspect(reading(whole), quiet)
    monkeypatch.setattr("metasrv.backup.archive.BACKUP_LINE_SIZE_BYTES_MAX", longest - 1)
    with pytest.raises(BackupError, match=rf"line \d+: it is longer than {longest - 1} bytes"):
        inspect(reading(whole), quiet)


def test_a_backup_without_a_header_is_refused_with_its_line(source: str) -> None:
    lines = exported(source)
    with pytest.raises(BackupError, match="line 1: the first line of a backup names its data version"):
        inspect(reading("\n".join(lines[1:]).encode()), quiet)
    with pytest.raises(BackupError, match="it is empty"):
        inspect(reading(b""), quiet)
    with pytest.raises(BackupError, match=f"line {len(lines) + 1}: another backup begins here"):
        inspect(reading("\n".join([*lines, lines[0]]).encode()), quiet)


def test_an_archive_of_a_cluster_that_is_being_moved_into_is_told_and_not_restored(source: str, tmp_path: Path) -> None:
    assert "migrating_from" not in HEAD.line()
    part = archive(source, HEAD._replace(migrating_from="old"))
    reader = reading(part)
    told = list(report(reader, inspect(reader, quiet), encrypted=False))
    assert "MigratingFrom: old; it has only some of the records, and is not restored" in told
    with pytest.raises(BackupError, match="were moved into its cluster, and has only some of them"):
        restored(part, tmp_path / "new", 5, THREE)
    assert not holds_data(str(tmp_path / "new"))


# ----------------------------------------------------------------------------- directories


@pytest.mark.parametrize("kind", ["archive", "export"])
def test_what_was_restored_exports_the_same_bytes(source: str, whole: bytes, tmp_path: Path, kind: str) -> None:
    lines = exported(source)
    data = whole if kind == "archive" else "\n".join(lines).encode()
    restored(data, tmp_path / "new")
    again = exported(str(tmp_path / "new"))
    # The new log begins with two entries, of which the first holds the place of those before.
    assert lines[4] == '["raft_log",{"Purged":null}]'
    assert json.loads(again[4])[1]["Purged"]["index"] == json.loads(lines[3])[1]["Committed"]["index"] - 1
    assert [*again[:4], *again[5:]] == [*lines[:4], *lines[5:]]


def test_with_other_members_only_named_lines_differ(source: str, whole: bytes, tmp_path: Path) -> None:
    restored(whole, tmp_path / "new", 5, THREE)
    before, after = exported(source), exported(str(tmp_path / "new"), node_id=5)
    kinds = {next(iter(json.loads(line)[1])) for line in set(before) ^ set(after)}
    assert kinds == {"NodeId", "Purged", "StateMachineMeta", "Nodes"}
    meta = [json.loads(line)[1]["StateMachineMeta"] for line in set(before) ^ set(after) if "StateMachineMeta" in line]
    assert {body["key"] for body in meta} == {"LastMembership"}


def test_the_nodes_of_a_restored_cluster_begin_with_the_same(whole: bytes, tmp_path: Path) -> None:
    hashes, clusters, memberships = set(), set(), []
    for node_id in (4, 5, 6):
        made = restored(whole, tmp_path / str(node_id), node_id, THREE)
        data = open_data(str(tmp_path / str(node_id)), node_id, ENDPOINT, bootstrap=False)
        assert data.machine.rows_fit()
        assert check_sums(data.directory.state_path) is not None
        assert data.machine.features == ("dummy",)
        assert "token" not in data.machine.secrets
        assert data.store.last_index == data.machine.last_applied.index == 27
        assert data.directory.identity.cluster_id == data.machine.cluster_id == made.cluster_id
        own = membership_in_force(data.store, data.machine).voters[node_id]
        assert own.incarnation == data.directory.identity.incarnation
        hashes.add(data.machine.state_hash())
        clusters.add(made.cluster_id)
        memberships.append(data.machine.membership)
        data.close()
    assert len(hashes) == len(clusters) == 1
    assert memberships[0] == memberships[1] == memberships[2]
    assert len({member.incarnation for member in memberships[0].voters.values()}) == 3


def test_another_token_other_members_or_a_single_member_give_another_cluster(whole: bytes, tmp_path: Path) -> None:
    members = parse_members(THREE)
    made = [
        restore(reading(whole), Wanted(str(tmp_path / str(number)), 4, given, token), 1, quiet, replace=False)
        for number, (given, token) in enumerate(
            [(members, ""), (members, "drill"), ({**members, 7: Member(ENDPOINT, "")}, ""), ({4: members[4]}, "")] * 2
        )
    ]
    clusters = [each.cluster_id for each in made]
    assert clusters[:3] == clusters[4:7]
    assert len(set(clusters)) == 5  # that of a single member is random


def test_data_that_is_there_is_kept_or_moved_aside(source: str, whole: bytes, tmp_path: Path) -> None:
    root = make_node(tmp_path / "used")
    before = exported(root)
    with pytest.raises(BackupError, match="already holds the data of a node"):
        restored(whole, root)
    made = restore(reading(whole), Wanted(root, 5, parse_members(THREE)), 123, quiet, replace=True)
    assert made.aside == os.path.join(root, "aside-123")
    assert exported(made.aside) == before
    assert exported(root) != before
    assert not os.path.exists(os.path.join(root, "building"))


def test_a_damaged_backup_changes_nothing(whole: bytes, tmp_path: Path) -> None:
    root = make_node(tmp_path / "used")
    before = exported(root)
    for data in (whole[:-200], whole.replace(b"k19", b"k18"), b""):
        with pytest.raises((BackupError, DataDamagedError)):
            restore(reading(data), Wanted(root, None, {}), 123, quiet, replace=True)
        assert exported(root) == before
        assert sorted(os.listdir(root)) == ["LOCK", "df_meta", "node.json"]


def test_a_node_that_has_run_since_is_not_put_back(whole: bytes, tmp_path: Path) -> None:
    root, members = str(tmp_path / "new"), parse_members(THREE)
    wanted = Wanted(root, 4, members)
    restore(reading(whole), wanted, 1, quiet, replace=True)
    restore(reading(whole), wanted, 2, quiet, replace=True)  # nothing has happened yet
    data = open_data(root, 4, ENDPOINT, bootstrap=False)
    data.store.setCurrentTerm(9, "5")
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    data.close()
    with pytest.raises(BackupError, match="already run as a node of the cluster that this backup makes"):
        restore(reading(whole), wanted, 3, quiet, replace=True)
    restore(reading(whole), wanted._replace(token="another"), 4, quiet, replace=True)


def test_entries_that_only_the_log_has_are_exported_and_the_state_stays(tmp_path: Path, source: str) -> None:
    root = make_node(tmp_path / "behind", applied=7)
    assert exported(root) == exported(source)
    with stopped_node(root) as node:
        assert node.applied.index == 7
        assert node.last_log_id.index == 27


def test_whose_directory_it_is_has_to_be_clear(whole: bytes, source: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"--id is missing: which of the nodes \[4, 5, 6\]"):
        restored(whole, tmp_path / "a", None, THREE)
    with pytest.raises(BackupError, match=r"node 9 is none of the members \[4, 5, 6\]"):
        restored(whole, tmp_path / "b", 9, THREE)
    lines = [line for line in exported(source) if "Nodes" not in line]
    with pytest.raises(BackupError, match="no address of node 1; say with --initial-cluster"):
        restored("\n".join(lines).encode(), tmp_path / "c")
    lines = [line for line in lines if "LastMembership" not in line]
    with pytest.raises(BackupError, match="names no members; say with --initial-cluster"):
        restored("\n".join(lines).encode(), tmp_path / "d")
    assert restored("\n".join(lines).encode(), tmp_path / "e", None, ["9=h:1"]).node_id == 9


def test_a_part_that_is_missing_from_an_export_is_noticed(source: str, tmp_path: Path) -> None:
    lines = exported(source)
    with pytest.raises(BackupError, match="8 lines of the expire index for 7 records"):
        restored("\n".join(lines[:-2]).encode(), tmp_path / "a")
    lowered = [line.replace('"generic-kv","value":22', '"generic-kv","value":21') for line in lines]
    with pytest.raises(BackupError, match="sequence number 22, the last that was given out is 21"):
        restored("\n".join(lowered).encode(), tmp_path / "b")
    with pytest.raises(DataDamagedError, match="stands twice"):
        restored("\n".join([*lines, lines[-1]]).encode(), tmp_path / "c")


def test_entries_of_upstreams_log_are_applied_on_top(source: str, tmp_path: Path) -> None:
    def log_line(index: int, payload: object) -> str:
        log_id = {"leader_id": {"term": 3, "node_id": 2}, "index": index}
        return json.dumps(["raft_log", {"LogEntry": {"log_id": log_id, "payload": payload}}])

    def upserting(key: str) -> dict[str, object]:
        command = {"key": key, "seq": "Any", "value": {"Update": [1, 2]}, "value_meta": None}
        return {"Normal": {"time_ms": 1_800_000_000_000, "cmd": {"UpsertKV": command}}}

    node = {"name": "2", "endpoint": {"addr": "h", "port": 7}, "grpc_api_advertise_address": None}
    adding = {"Normal": {"time_ms": None, "cmd": {"AddNode": {"node_id": 2, "node": node, "overriding": False}}}}
    membership = {"Membership": {"configs": [[1, 2]], "nodes": {"1": {}, "2": {}}}}
    lines = exported(source)
    log = [
        log_line(27, upserting("the state has it")),
        log_line(28, upserting("new")),
        log_line(29, "Blank"),
        log_line(30, adding),
        log_line(31, membership),
    ]
    made = restored("\n".join([*lines[:5], *log, *lines[5:]]).encode(), tmp_path / "new")
    assert made.voters == (1, 2)
    with stopped_node(str(tmp_path / "new")) as stopped, whole_state(stopped) as machine:
        assert machine.last_applied == LogId(3, 31, 2)
        assert machine.get("the state has it", 0) is None
        record = machine.get("new", 0)
        assert record is not None
        assert (record.seq, record.data) == (23, b"\x01\x02")
        assert machine.nodes[2].endpoint == Endpoint("h", 7)
        assert machine.rows_fit()
    for wrong, text in (
        ([log[1], log[3]], "log entries 29 to 29 are missing"),
        ([log[2], log[1]], "log entry 28 follows 29"),
        ([log_line(28, {"Normal": {"cmd": {"Whatever": {}}}})], "log entry 28: its command is not known"),
    ):
        with pytest.raises(BackupError, match=text):
            restored("\n".join([*lines[:5], *wrong, *lines[5:]]).encode(), tmp_path / "wrong")


def test_the_log_of_a_young_node_of_upstream_is_all_that_its_backup_has(tmp_path: Path) -> None:
    """Nothing was purged, and no snapshot made: every write is a line of the log, one command each."""
    node = {"name": "7", "endpoint": {"addr": "h", "port": 7}, "grpc_api_advertise_address": "h:9191"}
    put = {"request": {"Put": {"key": "k", "value": [102], "prev_value": True, "expire_at": None, "ttl_ms": None}}}
    transaction = {"condition": [{"key": "k", "expected": 0, "target": {"Seq": 0}}], "if_then": [put], "else_then": []}
    payloads = [
        {"Membership": {"configs": [[7]], "nodes": {"7": {}}}},
        "Blank",
        {"Normal": {"time_ms": 5, "cmd": {"AddNode": {"node_id": 7, "node": node, "overriding": False}}}},
        {"Normal": {"time_ms": 6, "cmd": {"Transaction": transaction}}},
        {"Normal": {"time_ms": 7, "cmd": {"UpsertKV": {"key": "u", "seq": {"GE": 0}, "value": {"Update": [1]}}}}},
    ]
    last = {"leader_id": {"term": 1, "node_id": 7}, "index": len(payloads) - 1}
    lines = [
        ["header", {"DataHeader": {"key": "header", "value": {"version": "V004"}}}],
        ["raft_log", {"NodeId": 7}],
        ["raft_log", {"Vote": {"leader_id": last["leader_id"], "committed": True}}],
        ["raft_log", {"Committed": last}],
        ["raft_log", {"Purged": None}],
        *(["raft_log", {"LogEntry": {"log_id": {**last, "index": n}, "payload": p}}] for n, p in enumerate(payloads)),
        ["state_machine/0", {"Sequences": {"key": "generic-kv", "value": 0}}],
    ]
    made = restored("\n".join(map(json.dumps, lines)).encode(), tmp_path / "new", None)
    assert (made.node_id, made.voters) == (7, (7,))
    with stopped_node(str(tmp_path / "new")) as stopped, whole_state(stopped) as machine:
        assert machine.last_applied == LogId(1, 4, 7)
        assert {key: machine.get(key, 0) for key in ("k", "u")} == {
            "k": SeqV(1, b"f", KVMeta(None, 6)),
            "u": SeqV(2, b"\x01", KVMeta(None, 7)),
        }
        assert machine.nodes[7].grpc_api_advertise_address == "h:9191"


def test_members_are_named_in_any_of_upstreams_forms() -> None:
    expected = {number: Member(Endpoint("localhost", 29003 + 100 * (number - 3)), "") for number in (4, 5, 6)}
    assert parse_members(THREE) == expected
    assert parse_members(["4=localhost:29103", "5=localhost:29203", "6=localhost:29303"]) == expected
    with_client = parse_members(["4=[::1]:1,localhost:9191"])
    assert with_client == {4: Member(Endpoint("::1", 1), "localhost:9191")}
    for wrong in (
        ["4"],
        ["=h:1"],
        ["x=h:1"],
        ["4=h"],
        ["h:1"],
        ["4=h:1,h:2,h:3"],
        ["4=h:1", "4=h:2"],
        ["4=h:1", "5=h:1"],
    ):
        with pytest.raises(BackupError, match="--initial-cluster"):
            parse_members(wrong)


# ----------------------------------------------------------------------------- secrets


def archive_with_secrets(root: str) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    writer.write(exported(root, HEAD.with_secrets()))
    writer.finish()
    return file.getvalue()


def secrets_in(root: Path) -> dict[str, bytes]:
    with stopped_node(str(root)) as node, whole_state(node) as machine:
        return dict(machine.secrets)


def test_secrets_are_restored_where_the_archive_holds_them(source: str, tmp_path: Path) -> None:
    data = archive_with_secrets(source)
    reader = reading(data)
    lines = list(report(reader, inspect(reader, quiet), encrypted=True))
    assert "Kind: archive, format 2" in lines
    assert "SecretsHeld: 0 users, no key of tokens" in lines
    assert "Encrypted: yes" in lines
    assert restored(data, tmp_path / "with", 4, THREE).secrets == 1
    assert secrets_in(tmp_path / "with") == {"token": b"secret"}
    assert restored(archive(source), tmp_path / "without", 4, THREE).secrets is None
    assert secrets_in(tmp_path / "without") == {}


@pytest.mark.parametrize("what", ["unannounced", "twice", "no text", "too many"])
def test_a_secret_that_does_not_belong_there_is_refused(source: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = archive_with_secrets(source).splitlines(keepends=True)
    if what == "unannounced":
        lines[0] = (HEAD.line() + "\n").encode()
    elif what == "twice":
        lines.insert(1, lines[1])
    elif what == "no text":
        lines[1] = b'["archive",{"Secret":{"name":"token","data":"?"}}]\n'
    else:
        assert BACKUP_SECRETS_MAX > 1000
        monkeypatch.setattr("metasrv.backup.archive.BACKUP_SECRETS_MAX", 0)
    with pytest.raises(BackupError, match=r"line [23]: .*secret"):
        inspect(reading(b"".join(lines)), quiet)
