"""Databend's scripts for its control tool, made anew from the contract: programs of its names, run from a build folder.

One node is filled, looked at, stopped, dumped and exported by `databend-metactl`; one tenant of it is carried over to
three new nodes. docs/contract/admin-api.md section 4.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from metasrv.testing.process_node import ProcessNode
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.paths import ROOT

SCRIPT = ROOT / "scripts" / "databend-names.sh"
TIMEOUT_SECONDS = 60
CATALOG = {
    "__fd_database/acme/default": "1",
    "__fd_database_by_id/1": "meta",
    "__fd_database_id_to_name/1": "name",
    "__fd_table/1/t": "2",
    "__fd_table_by_id/2": "table",
    "__fd_users/acme/root": "user",
    "__fd_users/other/root": "user",
}
STATE_LINES = 4
"""Sequences, LastApplied, LastMembership and one node."""
LUA = """
local client = metactl.new_grpc_client("%s")
local reply = assert(client:transaction(metactl.new_txn(
    {metactl.eq_seq("__fd_id_gen/table_id", 0)}, {metactl.put_op("__fd_id_gen/table_id", "")})))
print(reply.success, reply.execution_path)
"""
STATE = (
    r"RaftLogState\(RaftLogState\(vote: <T\d+-N1:->, last: T\d+-N1\.\d+, committed: None, purged: None, "
    r"user_data: LogStoreMeta\{ node_id: Some\(1\) \}\)\)"
)
DUMP = [
    r"RaftLog:",
    r"ChunkId\(00_000_000_000_000_000_000\)",
    rf"  R-00000: \[000_000_000, \d{{3}}_\d{{3}}_\d{{3}}\) Size\(\d+\): {STATE}",
    r"  R-00001: .* Size\(\d+\): Append\(log_id: T\d+-N\d+\.1, payload: \w+.*\)",
    r".*membership:\{voters:\[\{1:EmptyNode\}\], learners:\[\]\}\)",
    r".*normal:time: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} cmd: add_node\(override\):1=id=1 raft=\S+ grpc=.*",
    r".*cmd: txn:TxnRequest\{if:\[\] then:\[Put\(Put key=__fd_database/acme/default\)\] else:\[\]\}\)",
]


class Programs(NamedTuple):
    """A build folder with the two programs."""

    folder: Path

    def ctl(self, *arguments: object, given: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [self.folder / "databend-metactl", *map(str, arguments)],
            input=given,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            cwd=self.folder,
            env=_environment(),
        )
        assert ran.returncode == code, f"{arguments}: {ran}"
        return ran


def _environment() -> dict[str, str]:
    """Without the path of this checkout: the programs have to find what they run."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHON": sys.executable}


def put_names(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, folder],
        capture_output=True,
        text=True,
        env=_environment() | changed,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    folder = tmp_path / "target" / "debug"
    assert put_names(folder).returncode == 0
    return Programs(folder)


async def test_a_node_is_filled_dumped_filtered_and_restored_into_a_new_cluster(
    programs: Programs, start_cluster: StartCluster, tmp_path: Path
) -> None:
    source: ProcessCluster = start_cluster(1)
    node = source.nodes[1]
    with running(programs, node):
        fill(programs, node)

    dump = programs.ctl("dump-raft-log-wal", "--raft-dir", node.raft_dir).stdout.splitlines()
    for line, expected in zip([*dump[:4], *selected(dump)], DUMP, strict=True):
        assert re.fullmatch(expected, line), f"{line!r} is not {expected}"
    values = programs.ctl("dump-raft-log-wal", "--raft-dir", node.raft_dir, "-V", "-R").stdout
    assert '    txn.if_then[0].put __fd_table/1/t:\n      "2"\n' in values
    assert "    txn.if_then[0].put __fd_table/1/t raw:\n      [50]\n" in values

    exported, filtered = tmp_path / "all.json", tmp_path / "acme.json"
    programs.ctl("--export", "--raft-dir", node.raft_dir, "--db", exported)
    report = programs.ctl("filter-tenant", "--tenant", "acme", "--input", exported, "--output", filtered).stderr
    kept = len([key for key in CATALOG if "/other/" not in key]) + len(["the generator"]) + STATE_LINES
    assert report.splitlines()[-1].endswith(f"kept={kept}, dropped=1")
    piped = programs.ctl("filter-tenant", "--tenant", "acme", given=exported.read_text())
    assert piped.stdout == filtered.read_text()
    await restore(programs, start_cluster(3), filtered)


@contextmanager
def running(programs: Programs, node: ProcessNode) -> Iterator[None]:
    """The node, run by the program `databend-meta`."""
    node.write_config()
    command = [str(programs.folder / "databend-meta"), "--config-file", str(node.config_file)]
    with node.console.open("wb") as console:
        process = subprocess.Popen(command, stdout=console, stderr=console, cwd=node.raft_dir.parent, env=_environment())
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while "Databend Metasrv started" not in node.output():
            assert process.poll() is None, node.output()
            assert time.monotonic() < deadline, node.output()
            time.sleep(0.05)
        if sys.platform == "linux":
            assert Path(f"/proc/{process.pid}/comm").read_text() == "databend-meta\n"  # for `killall databend-meta`
        yield
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0


def fill(programs: Programs, node: ProcessNode) -> None:
    """What a client and an operator do."""
    grpc, admin = ("--grpc-api-address", node.grpc), ("--admin-api-address", node.admin)
    for key, value in CATALOG.items():
        printed = programs.ctl("upsert", *grpc, "--key", key, "--value", value).stdout
        assert re.fullmatch(r"upsert-result: None: None -> Some\(SeqV .*\)\n", printed)
    assert programs.ctl("lua", given=LUA % str(node.grpc)).stdout == "true\tthen\n"
    record = json.loads(programs.ctl("get", *grpc, "--key", "__fd_table/1/t").stdout)
    assert record["data"] == list(b"2")
    assert programs.ctl("trigger-snapshot", *admin).stdout == "triggered snapshot successfully.\n"
    status = programs.ctl("status", *grpc).stdout
    assert "DataVersion: V004\n" in status
    assert "State: Leader\n" in status
    assert "metasrv_server_is_leader 1\n" in programs.ctl("metrics", *admin).stdout
    online = programs.ctl("export", *grpc).stdout
    assert online.count('"GenericKV"') == len(CATALOG) + 1


def selected(dump: list[str]) -> list[str]:
    """The first record of three sorts: a membership, a node, a write."""
    return [next(line for line in dump if part in line) for part in ("membership:", "add_node(override)", "txn:")]


async def restore(programs: Programs, new: ProcessCluster, backup: Path) -> None:
    """Import into three nodes, start them, and operate the cluster."""
    members = [flag for node_id, node in new.nodes.items() for flag in ("--initial-cluster", f"{node_id}={node.raft}")]
    for node_id, node in new.nodes.items():
        programs.ctl("import", "--raft-dir", node.raft_dir, "--id", node_id, "--db", backup, *members)
    await new.boot()
    await new.wait_for_ready()
    await new.wait_until_equal()
    async with new.client(2) as client:
        found = {key: record.data.decode() for key, record in await client.list_prefix("")}
    expected = {key: value for key, value in CATALOG.items() if "/other/" not in key}
    assert found == {**expected, "__fd_id_gen/table_id": ""}

    leader = await new.wait_for_leader()
    target = next(node_id for node_id in new.nodes if node_id != leader)
    admin = ("--admin-api-address", new.nodes[leader].admin)
    moved = programs.ctl("transfer-leader", *admin, "--to", target, "--wait").stdout.splitlines()
    assert moved == [
        f"triggered leader transfer from {leader} to {target}.",
        "voter ids: [1, 2, 3]",
        f"node {target} leads.",
    ]
    admin = ("--admin-api-address", new.nodes[target].admin)
    changed = programs.ctl("set-feature", *admin, "--feature", "dummy", "--enable", "true").stdout
    head, _, listed = changed.partition("\n")
    assert head == "set-feature: Done; features:"
    assert json.loads(listed) == json.loads(programs.ctl("list-features", *admin).stdout)
    assert json.loads(listed)["enabled"] == ["dummy"]


def test_the_programs_replace_themselves_and_nothing_else(tmp_path: Path) -> None:
    assert put_names(tmp_path).returncode == 0
    again = put_names(tmp_path)
    assert (again.returncode, again.stdout.split()) == (0, [f"{tmp_path}/databend-meta", f"{tmp_path}/databend-metactl"])
    (tmp_path / "databend-metactl").write_text("of another origin")
    refused = put_names(tmp_path)
    assert refused.returncode == 1
    assert "databend-metactl is there already" in refused.stderr
    assert (tmp_path / "databend-metactl").read_text() == "of another origin"
    missing = put_names(tmp_path / "new", PYTHON="/nowhere/python")
    assert (missing.returncode, "there is no Python at /nowhere/python" in missing.stderr) == (1, True)
    assert not (tmp_path / "new").exists()
