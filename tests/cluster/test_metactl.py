"""metactl to the letter (docs/contract/admin-api.md section 4).

Against three nodes that were started from Databend's own test configuration.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.cli import ctl
from metasrv.cli.node_process import fetch, fetch_status
from metasrv.config.load import load_config
from metasrv.model.types import Endpoint
from metasrv.testing.ports import PortReservation
from tests.support.paths import TESTS

pytestmark = pytest.mark.xdist_group("metactl")

FILES = TESTS / "data" / "databend"
FIXED_PORTS = {
    node_id: {"admin": 28001 + 100 * node_id, "grpc": grpc, "raft": 28003 + 100 * node_id}
    for node_id, grpc in ((1, 9191), (2, 28202), (3, 28302))
}
DEADLINE_SECONDS = 30.0


class Databend:
    """Three nodes started as Databend's test scripts start theirs, in a directory of their own, on free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._reservation = PortReservation()
        self.ports = {
            node_id: {name: self._reservation.take() for name in fixed} for node_id, fixed in FIXED_PORTS.items()
        }
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, node_id: int) -> None:
        text = (FILES / f"node-{node_id}.toml").read_text(encoding="utf-8").replace("0.0.0.0", "127.0.0.1")
        free = {
            str(port): str(self.ports[known][name])
            for known, fixed in FIXED_PORTS.items()
            for name, port in fixed.items()
        }
        # At once: a free port may have the number of another fixed one.
        text = re.sub(rf"\b({'|'.join(free)})\b", lambda found: free[found[0]], text)
        file = self.directory / f"databend-meta-node-{node_id}.toml"
        file.write_text(text, encoding="utf-8")
        option = "-c" if node_id == 2 else "--config-file"
        command = [sys.executable, "-m", "metasrv.cli.server", option, file.name]
        with (self.directory / f"console{node_id}.log").open("wb") as console:
            self._processes[node_id] = subprocess.Popen(
                command, cwd=self.directory, stdout=console, stderr=subprocess.STDOUT
            )
        self.wait(lambda: "Databend Metasrv started" in self.console(node_id), f"node {node_id} to start")

    def console(self, node_id: int) -> str:
        return (self.directory / f"console{node_id}.log").read_text(errors="replace")

    def wait(self, condition: object, what: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            consoles = "\n".join(self.console(node_id) for node_id in self._processes)
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{consoles}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._reservation.release()

    def grpc(self, node_id: int) -> str:
        return f"127.0.0.1:{self.ports[node_id]['grpc']}"

    def admin(self, node_id: int) -> str:
        return f"127.0.0.1:{self.ports[node_id]['admin']}"

    def leader(self) -> int:
        found: list[int] = []

        def known() -> bool:
            statuses = {node_id: fetch_status(Endpoint.parse(self.admin(node_id))) for node_id in self._processes}
            found[:] = [node_id for node_id, status in statuses.items() if status and status["is_leader"]]
            return len(found) == 1 and all(status and status["leader"] for status in statuses.values())

        self.wait(known, "a leader")
        return found[0]


@pytest.fixture(scope="module")
def databend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databend]:
    nodes = Databend(tmp_path_factory.mktemp("databend"))
    try:
        for node_id in FIXED_PORTS:
            nodes.start(node_id)
        yield nodes
    finally:
        nodes.close()


class Ctl:
    """Runs metactl in this process."""

    def __init__(self, databend: Databend, capsys: pytest.CaptureFixture[str]) -> None:
        self.databend = databend
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints on stdout, or on stderr when it is to fail."""
        self._capsys.readouterr()
        assert ctl.main(arguments) == code
        printed = self._capsys.readouterr()
        if code:
            assert printed.out == ""
            return printed.err
        return printed.out

    def grpc(self, command: str, *arguments: str, node_id: int = 2, code: int = 0) -> str:
        return self(command, "--grpc-api-address", self.databend.grpc(node_id), *arguments, code=code)

    def admin(self, command: str, *arguments: str, node_id: int = 2, code: int = 0) -> str:
        return self(command, "--admin-api-address", self.databend.admin(node_id), *arguments, code=code)


@pytest.fixture
def metactl(databend: Databend, capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(databend, capsys)


# ----------------------------------------------------------------------------- the files themselves


@pytest.mark.parametrize("node_id", FIXED_PORTS)
def test_the_files_as_they_are_name_the_known_ports(node_id: int) -> None:
    config = load_config(str(FILES / f"node-{node_id}.toml"), {}, {}).config
    ports = FIXED_PORTS[node_id]
    assert config.admin_endpoint == Endpoint("0.0.0.0", ports["admin"])
    assert config.grpc_endpoint == Endpoint("0.0.0.0", ports["grpc"])
    assert config.grpc_api_advertise_address == f"127.0.0.1:{ports['grpc']}"
    raft = config.raft_config
    assert (raft.id, raft.raft_dir) == (node_id, f"./.databend/meta{node_id}")
    assert raft.raft_listen_endpoint == Endpoint("127.0.0.1", ports["raft"])
    assert raft.raft_advertise_endpoint == Endpoint("localhost", ports["raft"])
    assert (raft.single, raft.join) == (node_id == 1, () if node_id == 1 else ("127.0.0.1:28103",))
    assert raft.heartbeat_interval == 500


@pytest.mark.parametrize(("number", "grpc", "raft"), [(1, 19191, 29103), (2, 29191, 29203), (3, 39191, 29303)])
def test_the_files_of_restored_clusters(number: int, grpc: int, raft: int) -> None:
    config = load_config(str(FILES / f"restored-{number}.toml"), {}, {}).config
    assert (config.grpc_endpoint.port, config.raft_config.raft_api_port) == (grpc, raft)
    assert (config.raft_config.id, config.raft_config.heartbeat_interval) == (number + 3, 200)
    assert config.log.file.dir == f"./.databend/new_logs{number}"
    assert config.grpc_api_advertise_address is None


def test_keys_that_mean_nothing_here_are_accepted_and_named() -> None:
    older = load_config(str(FILES / "older.toml"), {}, {}).config
    assert {"no_sync", "sled_tree_prefix", "raft_api_host", "metric_api_address", "raft_config.no_sync"} <= set(
        older.ignored_keys
    )
    assert older.raft_config.heartbeat_interval == 1000
    newest = load_config(str(FILES / "newest.toml"), {}, {}).config
    assert "raft_config.snapshot_db_block_cache_item" in newest.ignored_keys
    assert (newest.admin_endpoint.port, newest.raft_config.raft_api_port, newest.raft_config.id) == (28002, 28004, 0)


# ----------------------------------------------------------------------------- over gRPC


def test_member_list(databend: Databend, metactl: Ctl) -> None:
    expected = "".join(f"{databend.grpc(node_id)}\n" for node_id in (1, 2, 3))
    assert metactl.grpc("member-list", node_id=3) == expected


STATUS = """\
BinaryVersion: \\S+
DataVersion: V004
RaftLogSize: \\d+
RaftLog:
  - CacheItems: \\d+
  - CacheUsedSize: \\d+
  - WALTotalSize: \\d+
  - WALOpenChunkSize: \\d+
  - WALOffset: \\d+
  - WALClosedChunkCount: \\d+
  - WALClosedChunkTotalSize: \\d+
  - WALClosedChunkSizes:
(    - \\S+: \\d+\n)*\
SnapshotKeyCount: \\d+
Node: id={id} raft=localhost:{raft}
State: {state}
Leader: {leader}
CurrentTerm: \\d+
LastSeq: \\d+
LastLogIndex: \\d+
LastApplied: T\\d+-N\\d+\\.\\d+
(SnapshotLastLogID: T\\d+-N\\d+\\.\\d+\n)?\
(Purged: T\\d+-N\\d+\\.\\d+\n)?\
{replication}\
Voters:
{voters}\
"""


def test_status(databend: Databend, metactl: Ctl) -> None:
    leader = databend.leader()
    texts = {
        node_id: f"id={node_id} raft=localhost:{ports['raft']} grpc={databend.grpc(node_id)}"
        for node_id, ports in databend.ports.items()
    }
    voters = "".join(re.escape(f"  - {text}\n") for text in texts.values())
    replication = "Replication:\n" + "".join(f"  - \\[{node_id}\\] T\\d+-N\\d+\\.\\d+( \\*)?\n" for node_id in texts)
    for node_id, ports in databend.ports.items():
        leads = node_id == leader
        pattern = STATUS.format(
            id=node_id,
            raft=ports["raft"],
            state="Leader" if leads else "Follower",
            leader=re.escape(texts[leader]),
            replication=replication if leads else "",
            voters=voters,
        )
        assert re.fullmatch(pattern, metactl.grpc("status", node_id=node_id))


def test_get_and_upsert(metactl: Ctl) -> None:
    assert metactl.grpc("get", "--key", "absent") == "null\n"
    written = [
        ("key1", "value1"),
        ("key2", '{"a": 1, "b": [2, 3]}'),
        ("key/with/slash", "value/with/slash"),
        ("empty", ""),
        ("schlüssel", "wért"),
    ]
    meta = r"Some\(KVMeta \{ expire_at: None, proposed_at_ms: Some\(\d+\) \}\)"
    some = rf'Some\(SeqV {{ seq: \d+, meta: {meta}, data: "\[binary\]" }}\)'
    for node_id, (key, value) in enumerate(written):
        line = metactl.grpc("upsert", "--key", key, "--value", value, node_id=node_id % 3 + 1)
        assert re.fullmatch(rf"upsert-result: None: None -> {some}\n", line)
        record = json.loads(metactl.grpc("get", "--key", key))
        assert set(record) == {"seq", "meta", "data"}
        assert bytes(record["data"]).decode() == value
    assert re.fullmatch(
        rf"upsert-result: None: {some} -> {some}\n", metactl.grpc("upsert", "--key", "key1", "--value", "2")
    )
    line = metactl.grpc("get", "--key", "key1")
    assert re.fullmatch(r'\{"seq":\d+,"meta":\{"proposed_at_ms":\d+\},"data":\[50\]\}\n', line)


def test_watch(databend: Databend, metactl: Ctl) -> None:
    for name in ("b", "a"):
        metactl.grpc("upsert", "--key", f"app/{name}", "--value", f"1{name}")
    command = [
        sys.executable,
        "-m",
        "metasrv.cli.ctl",
        "watch",
        "--grpc-api-address",
        databend.grpc(3),
        "--prefix",
        "app/",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            existing = [process.stdout.readline() for _ in range(3)]
            metactl.grpc("upsert", "--key", "app/c", "--value", "new")
            metactl.grpc("upsert", "--key", "apq", "--value", "outside")
            metactl.grpc("upsert", "--key", "app/a", "--value", "changed")
            changes = [process.stdout.readline() for _ in range(2)]
        finally:
            process.terminate()
    start = "received-watch-event: "
    masked = [re.sub(r"seq=\d+", "seq=N", line) for line in existing + changes]
    assert masked == [
        f"{start}INIT:(app/a: None -> (seq=N [] '1a'))\n",
        f"{start}INIT:(app/b: None -> (seq=N [] '1b'))\n",
        f"{start}INIT:None\n",
        f"{start}CHANGE:(app/c: None -> (seq=N [] 'new'))\n",
        f"{start}CHANGE:(app/a: (seq=N [] '1a') -> (seq=N [] 'changed'))\n",
    ]


def test_keys_layout(databend: Databend, metactl: Ctl) -> None:
    """The example of upstream's own test, beside what the other tests left."""
    table = "layout/databases/1/tables/"
    keys = [f"{table}users/columns/{name}" for name in ("id", "name", "email")]
    keys += [f"{table}orders/columns/{name}" for name in ("id", "user_id")]
    for key in [*keys, "layout/system/config/max"]:
        metactl.grpc("upsert", "--key", key, "--value", "v")
    directory = databend.directory / ".databend" / "meta1" / "df_meta" / "V004" / "snapshot"
    before = set(directory.glob("*.snap"))
    metactl.admin("trigger-snapshot", node_id=1)
    databend.wait(lambda: set(directory.glob("*.snap")) - before, "a new snapshot file")
    metactl.grpc("upsert", "--key", "layout/later", "--value", "not in the snapshot")

    def layout(*arguments: str) -> list[str]:
        lines = metactl.grpc("keys-layout", *arguments, node_id=1).splitlines()
        assert re.fullmatch(r" \d+", lines[-1]), "the total, under the empty prefix"
        return [line for line in lines if line.startswith("layout")]

    assert layout() == [
        "layout/databases/1/tables/orders/columns 2",
        "layout/databases/1/tables/orders 2",
        "layout/databases/1/tables/users/columns 3",
        "layout/databases/1/tables/users 3",
        "layout/databases/1/tables 5",
        "layout/databases/1 5",
        "layout/databases 5",
        "layout/system/config 1",
        "layout/system 1",
        "layout 6",
    ]
    assert layout("--depth", "2") == ["layout/databases 5", "layout/system 1", "layout 6"]
    assert layout("--depth", "0") == []


def test_export(databend: Databend, metactl: Ctl, tmp_path: Path) -> None:
    metactl.grpc("upsert", "--key", "exported", "--value", "é")
    metactl.grpc("get", "--key", "exported", node_id=3)
    lines = metactl.grpc("export", "--chunk-size", "3", node_id=3).splitlines()
    assert lines[:2] == [
        '["header",{"DataHeader":{"key":"header","value":{"version":"V004"}}}]',
        '["raft_log",{"NodeId":3}]',
    ]
    bodies = [json.loads(line)[1] for line in lines]
    assert [next(iter(body)) for body in bodies[2:8]] == [
        "Vote", "Committed", "Purged", "Sequences", "StateMachineMeta", "StateMachineMeta",
    ]  # fmt: skip
    nodes = {body["Nodes"]["key"]: body["Nodes"]["value"] for body in bodies if "Nodes" in body}
    assert nodes == {
        node_id: {
            "name": str(node_id),
            "endpoint": {"addr": "localhost", "port": ports["raft"]},
            "grpc_api_advertise_address": databend.grpc(node_id),
        }
        for node_id, ports in databend.ports.items()
    }
    values = {body["GenericKV"]["key"]: body["GenericKV"]["value"] for body in bodies if "GenericKV" in body}
    assert bytes(values["exported"]["data"]).decode() == "é"
    assert list(values) == sorted(values)
    target = tmp_path / "backup"
    assert metactl.grpc("export", "--db", str(target), node_id=3) == ""
    assert target.read_text(encoding="utf-8").splitlines() == lines
    # The old form without a command.
    old = metactl("--export", "--grpc-api-address", databend.grpc(3), "--export-chunk-size", "1")
    assert old.splitlines() == lines


def test_bench_client_num_conn(databend: Databend, metactl: Ctl) -> None:
    address = databend.grpc(1)
    assert metactl.grpc("bench-client-num-conn", "--num", "4", node_id=1).splitlines() == [
        f"loop: connect to metasrv {address}, get_kv('foo'), do not drop the connection, num=4",
        *(f"{number}-th: get_kv(foo): Ok(None)" for number in range(1, 5)),
        "bench completed: 4 connections created",
    ]


# ----------------------------------------------------------------------------- over the admin API


def test_trigger_snapshot(databend: Databend, metactl: Ctl) -> None:
    directory = databend.directory / ".databend" / "meta2" / "df_meta" / "V004" / "snapshot"
    before = set(directory.glob("*.snap"))
    metactl.grpc("upsert", "--key", "snapshot", "--value", "1", node_id=2)
    assert metactl.admin("trigger-snapshot", node_id=2) == "triggered snapshot successfully.\n"
    databend.wait(lambda: set(directory.glob("*.snap")) - before, "a new snapshot file")


def test_features(databend: Databend, metactl: Ctl) -> None:
    leader = databend.leader()

    def shown(*enabled: str) -> str:
        names = ["dummy", "dummy_feature2", "users", "migration", "write-limits"]
        return json.dumps({"features": names, "enabled": list(enabled)}, indent=2) + "\n"

    assert metactl.admin("list-features", node_id=leader) == shown()
    on = metactl.admin("set-feature", "--feature", "dummy", "--enable", "true", node_id=leader)
    assert on == "set-feature: Done; features:\n" + shown("dummy")
    for node_id in databend.ports:
        databend.wait(
            lambda node_id=node_id: metactl.admin("list-features", node_id=node_id) == shown("dummy"), "the feature"
        )
    off = metactl.admin("set-feature", "--feature", "dummy", "--enable", "false", node_id=leader)
    assert off == "set-feature: Done; features:\n" + shown()
    error = metactl.admin("set-feature", "--feature", "unknown", "--enable", "true", node_id=leader, code=1)
    assert error == "Error: status code: 400, msg: 'feature' and 'enable' query parameters are required\n"
    follower = next(node_id for node_id in databend.ports if node_id != leader)
    error = metactl.admin("set-feature", "--feature", "dummy", "--enable", "true", node_id=follower, code=1)
    assert re.fullmatch(rf"Error: status code: 404, msg: .*id={follower} current_leader=Some\({leader}\)\n", error)


def test_metrics(databend: Databend, metactl: Ctl) -> None:
    fetch(f"http://{databend.admin(1)}/v1/metrics")  # the first request brings the family that counts requests
    printed = metactl.admin("metrics", node_id=1)
    _, page = fetch(f"http://{databend.admin(1)}/v1/metrics")
    names = [line.split()[2] for line in printed.splitlines() if line.startswith("# TYPE")]
    assert names == [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
    assert "metasrv_server_is_leader" in names


def test_transfer_leader(databend: Databend, metactl: Ctl) -> None:
    for arguments in ((), ("--to",)):
        leader = databend.leader()
        to = leader % 3 + 1
        given = (*arguments, str(to)) if arguments else ()
        printed = metactl.admin("transfer-leader", *given, node_id=leader)
        assert printed == f"triggered leader transfer from {leader} to {to}.\nvoter ids: [1, 2, 3]\n"
        databend.wait(lambda to=to: databend.leader() == to, f"node {to} to lead")
    follower = next(node_id for node_id in databend.ports if node_id != databend.leader())
    error = metactl.admin("transfer-leader", node_id=follower, code=1)
    assert re.fullmatch(
        rf"Error: status code: 404, msg: .*\nid={follower}\ncurrent_leader=Some\(\d\)\nvoter_ids=\[1, 2, 3\]\n", error
    )


# ----------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nonsense", "127.0.0.1:"])
def test_an_address_that_is_none_is_refused_at_once(metactl: Ctl, address: str) -> None:
    """It used to be tried for five seconds, at a port that it does not name."""
    started = time.monotonic()
    error = metactl("get", "--grpc-api-address", address, "--key", "k", code=1)
    assert error.startswith("Error: --grpc-api-address: ")
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("command", [[], ["status"], ["watch"], ["transfer-leader"]])
def test_help_begins_as_upstream_s(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ctl.main([*command, "--help"])
    assert capsys.readouterr().out.startswith("Usage: metactl")
