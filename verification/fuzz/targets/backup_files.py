"""Archives and exports, as somebody hands them to `metactl`: refused with a sentence, or a directory that a node opens.

The first byte says how the rest is read: whether the right last line of an archive is added, since no change of a line
would come past its checksum, and whether the members of the new cluster are given.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from io import BytesIO

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.inspecting import inspect, report
from metasrv.backup.offline import stopped_node, whole_state
from metasrv.backup.restoring import Wanted, parse_members, restore
from metasrv.grpc_api.export_lines import ArchiveHead, archive_line, export_lines
from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry, RegularEntry
from metasrv.model.errors import BackupError, DataDamagedError, IdentityError, StorageError
from metasrv.model.types import Endpoint, LogId, Member, Membership, Node
from metasrv.process.data_directory import holds_data
from metasrv.state.machine import StateMachine
from verification.fuzz.target import Target, no_logged_errors

COMPLETED, GIVEN = 1, 2
"""Bits of the first byte: the last line of an archive is added; the members are given."""
MEMBERS = parse_members(["1=127.0.0.1:28103"])
MEMORY = "/dev/shm"


def _nowhere(lines: int, size_bytes: int) -> None:
    del lines, size_bytes


def _backup(data: bytes) -> tuple[bytes, bool]:
    """The file, and whether the members are given."""
    how, body = data[0] if data else 0, data[1:]
    if how & COMPLETED:
        if not body.endswith(b"\n"):
            body += b"\n"
        end = {"lines": body.count(b"\n"), "sha256": hashlib.sha256(body).hexdigest()}
        body += (archive_line("End", end) + "\n").encode()
    return body, bool(how & GIVEN)


def _run(data: bytes) -> None:
    backup, given = _backup(data)
    reader = ArchiveReader(BytesIO(backup), "backup")
    try:
        found = inspect(reader, _nowhere)
        for line in report(reader, found, encrypted=False):
            line.encode("utf-8", "backslashreplace")
    except BackupError:
        return
    root = tempfile.mkdtemp(prefix="metasrv-fuzz-", dir=MEMORY if os.path.isdir(MEMORY) else None)
    try:
        with no_logged_errors():
            _restored(backup, os.path.join(root, "data"), given)
    finally:
        shutil.rmtree(root)


def _restored(backup: bytes, raft_dir: str, given: bool) -> None:
    wanted = Wanted(raft_dir, None, MEMBERS if given else {})
    try:
        made = restore(ArchiveReader(BytesIO(backup), "backup"), wanted, 0, _nowhere, replace=False)
    except (BackupError, DataDamagedError, IdentityError, StorageError):
        if holds_data(raft_dir):
            raise AssertionError("a backup was refused, and left data behind") from None
        return
    with stopped_node(raft_dir) as node, whole_state(node) as machine, machine.open_reader() as view:
        again = "".join(f"{line}\n" for line in export_lines(view, made.node_id, node.purged)).encode()
    copied = inspect(ArchiveReader(BytesIO(again), "export"), _nowhere)
    if copied.keys != made.applied.key_count:
        raise AssertionError(f"{made.applied.key_count} keys were restored, and {copied.keys} are exported")


# ----------------------------------------------------------------------------- inputs to begin with


def _exported() -> tuple[list[str], str]:
    """The lines of a small state, and the first line of an archive of it."""
    with tempfile.TemporaryDirectory(prefix="metasrv-fuzz-") as directory:
        machine = StateMachine.open(os.path.join(directory, "state.db"))
        try:
            node = Node(1, Endpoint("127.0.0.1", 28103), "0.0.0.0:9191", "127.0.0.1:9191")
            members = Membership({1: Member(node.endpoint, "directory")}, {})
            machine.apply_entry(LogId(1, 1, 1), MembershipEntry(1, Membership(), members))
            put = c.MatchSeq(c.MatchKind.ANY, 0)
            commands: tuple[c.Command, ...] = (
                c.AddNode(node, True),
                c.SetFeature("dummy", True),
                c.Upsert("a/k", put, c.Operation.UPDATE, b"value"),
                c.Upsert("a/l", put, c.Operation.UPDATE, b"\xff\x00", ttl_ms=3_600_000),
            )
            for index, command in enumerate(commands, start=2):
                machine.apply_entry(LogId(1, index, 1), RegularEntry(1_700_000_000_000 + index, 1, (command,)))
            with machine.open_reader() as view:
                lines = list(export_lines(view, 1, None))
        finally:
            machine.close()
    return lines, ArchiveHead("cluster", 1, 1_700_000_000_000, True, 5, 1, ("dummy",)).line()


def _seeds() -> tuple[bytes, ...]:
    exported, head = _exported()
    plain = "\n".join(exported).encode()
    payloads = (
        '"Blank"',
        '{"Normal":{"txid":null,"time_ms":9,"cmd":{"UpsertKV":{"key":"b","seq":"Any","value":{"Update":[1]},"value_meta":null}}}}',
        '{"Normal":{"cmd":{"Transaction":{"condition":[{"key":"b","expected":2,"target":{"Seq":1}}],"if_then":'
        '[{"request":{"FetchIncreaseU64":{"key":"n","delta":2}}},{"request":{"DeleteByPrefix":{"prefix":"a/"}}}]}}}}',
        '{"Normal":{"cmd":{"AddNode":{"node_id":2,"node":{"endpoint":{"addr":"h","port":1}},"overriding":true}}}}',
        '{"Membership":{"configs":[[1,2]],"nodes":{"1":{},"2":{}}}}',
        '{"Normal":{"cmd":{"KvTransaction":{"branches":[{"predicate":{"operator":"Or","conditions":[]},"operations":'
        '[{"request":{"Put":{"key":"b","value":[1],"ttl_ms":5}}}]}]}}}}',
    )
    log = [
        f'["raft_log",{{"LogEntry":{{"log_id":{{"leader_id":{{"term":1,"node_id":1}},"index":{index}}},"payload":{text}}}}}]'
        for index, text in enumerate(payloads, start=6)
    ]
    with_log = "\n".join([*exported[:4], *log, *exported[4:]]).encode()
    old = (
        b'["header",{"DataHeader":{"key":"header","value":{"version":"V002"}}}]\n'
        b'["raft_state",{"RaftStateKV":{"key":"Id","value":{"NodeId":1}}}]\n'
        b'["raft_log",{"Logs":{"key":1,"value":{"log_id":{"leader_id":{"term":1},"index":1},"payload":"Blank"}}}]\n'
        b'["state_machine/0",{"Expire":{"key":{"time_ms":5,"seq":1},"value":{"seq":1,"key":"k"}}}]\n'
    )
    return (
        b"",
        bytes([0]) + plain,
        bytes([GIVEN]) + plain,
        bytes([COMPLETED]) + head.encode() + b"\n" + plain,
        bytes([COMPLETED | GIVEN]) + head.encode() + b"\n" + with_log,
        bytes([0]) + with_log,
        bytes([GIVEN]) + old,
        bytes([0]) + head.encode() + b"\n" + plain + b"\n" + archive_line("End", {"lines": 1, "sha256": ""}).encode(),
    )


TARGET = Target("backup_files", _run, _seeds(), input_size_bytes_max=8192)
