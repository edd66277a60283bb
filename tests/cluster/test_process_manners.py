"""A node's manners as a process: signals that mean nothing to it, log files that are moved, streams that nobody reads."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metasrv.model.errors import DataDamagedError, RequestError
from metasrv.process.standard_streams import write_now
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

HAS_FULL = os.path.exists("/dev/full")
ROTATING = "{config}\n[log.file]\non = true\nlevel = 'INFO'\nformat = 'text'\ndir = '{directory}'\n"


def through_shell(redirections: str) -> list[str]:
    """A command that starts another one with these redirections in its place."""
    return ["bash", "-c", f'exec "$@" {redirections}', "bash"]


async def serves(cluster: ProcessCluster) -> bool:
    """Whether the only node takes a write and gives it back."""
    await cluster.wait_for_leader()
    async with cluster.node_client(1) as client:
        await client.put("k", b"v")
        return await client.list_prefix("k") != {}


def log_to_files(cluster: ProcessCluster) -> Path:
    """Have node 1 write its log to files; their directory."""
    node = cluster.nodes[1]
    directory = node.directory / "logs"
    text = node.config_file.read_text("utf-8").replace("[log.file]\non = false\n", "")
    node.config_file.write_text(ROTATING.format(config=text, directory=directory), encoding="utf-8")
    return directory


async def test_a_hangup_opens_the_log_files_anew_and_the_node_goes_on(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    directory = log_to_files(cluster)
    cluster.start(1)
    assert await serves(cluster)
    for number in range(2):
        for file in directory.glob("*.log"):
            file.rename(file.with_suffix(f".moved{number}"))
        cluster.send_signal(1, signal.SIGHUP)
        await cluster.wait_until(
            lambda: any("SIGHUP" in file.read_text("utf-8") for file in directory.glob("*.log")), "a line in a new file"
        )
    assert await serves(cluster)
    assert await cluster.stop(1) == 0
    (moved,) = directory.glob("*.moved0")
    assert "SIGHUP" not in moved.read_text("utf-8")
    assert any("Databend Metasrv shutdown" in file.read_text("utf-8") for file in directory.glob("*.log"))


async def test_signals_without_a_meaning_end_nobody(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    await cluster.wait_until(lambda: "HTTP API listen" in cluster.nodes[1].output(), "the banner")
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGPIPE):
        cluster.send_signal(1, number)
    assert await serves(cluster)
    assert await cluster.stop(1) == 0


@pytest.mark.parametrize("redirections", [">&- 2>&- <&-", ">/dev/full 2>/dev/full", "> >(true) 2>&1"])
async def test_streams_that_are_closed_or_full_end_nobody(start_cluster: StartCluster, redirections: str) -> None:
    cluster: ProcessCluster = start_cluster(1)
    directory = log_to_files(cluster)
    if "/dev/full" in redirections and not HAS_FULL:
        pytest.skip("/dev/full is Linux's")
    cluster.start(1, wrapper=through_shell(redirections))
    assert await serves(cluster)
    assert await cluster.stop(1) == 0
    assert any("Databend Metasrv shutdown" in file.read_text("utf-8") for file in directory.glob("*.log"))


async def test_a_pipe_that_nobody_reads_holds_up_neither_the_node_nor_its_log_nor_its_end(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster: ProcessCluster = start_cluster(1)
    directory = log_to_files(cluster)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        write_now(descriptor, b"x" * 10_000_000)
        cluster.start(1, wrapper=through_shell(f">{fifo} 2>&1"))
        assert await serves(cluster)
        assert await cluster.stop(1) == 0
    finally:
        os.close(descriptor)
    assert any("Databend Metasrv shutdown" in file.read_text("utf-8") for file in directory.glob("*.log"))


@pytest.mark.parametrize(
    "name",
    [
        *("", "node.json", "df_meta/V004/state/state.db", "df_meta/V004/log/raft.db", "df_meta/V004/log/raft.db-wal"),
        "df_meta/V004/snapshot",
    ],
)
async def test_a_file_that_is_removed_under_a_running_node_stops_it_with_a_sentence(
    start_cluster: StartCluster, name: str
) -> None:
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    assert await serves(cluster)
    path = cluster.nodes[1].raft_dir / name
    path.rename(path.with_name(f"{path.name}.aside"))
    assert await cluster.wait_exit(1, timeout_s=10) == DataDamagedError.exit_code, cluster.logs()
    last = cluster.nodes[1].output().splitlines()[-1]
    assert "removed or replaced while this node runs" in last
    assert str(path) in last
    assert "Traceback" not in cluster.nodes[1].output()


async def test_a_write_ahead_log_that_is_removed_costs_nothing_when_the_node_stops_by_itself(
    start_cluster: StartCluster,
) -> None:
    """The files stay open until the stop, which moves what they hold into the databases."""
    cluster: ProcessCluster = start_cluster(1)
    cluster.start(1)
    assert await serves(cluster)
    for name in ("df_meta/V004/state/state.db-wal", "df_meta/V004/log/raft.db-wal"):
        (cluster.nodes[1].raft_dir / name).unlink()
        assert await cluster.wait_exit(1, timeout_s=10) == DataDamagedError.exit_code, cluster.logs()
        cluster.start(1)
        await cluster.wait_for_leader()
        async with cluster.node_client(1) as client:
            assert list(await client.list_prefix("k")) == ["k"]


async def test_a_cluster_goes_on_when_the_leader_s_files_are_removed_and_no_acknowledged_write_is_lost(
    start_cluster: StartCluster,
) -> None:
    cluster: ProcessCluster = start_cluster(3)
    leader = await cluster.boot()
    acknowledged: set[str] = set()
    shutil.rmtree(cluster.nodes[leader].raft_dir)
    async with cluster.client() as client:
        number = 0
        while cluster.nodes[leader].is_running:
            number += 1
            with contextlib.suppress(RequestError):
                await client.upsert(f"k/{number:05}", b"v")
                acknowledged.add(f"k/{number:05}")
        await cluster.wait_for_leader()
        assert await cluster.wait_exit(leader) == DataDamagedError.exit_code
        await client.upsert("after", b"v")
        assert acknowledged <= {key for key, _ in await client.list_prefix("k/")}
    assert len(acknowledged) > 0


def run_server(*arguments: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    command = [*through_shell(redirections), sys.executable, "-m", "metasrv.cli.server", *arguments]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("METASRV_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_the_version_needs_no_configuration(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("id = = 1")
    for arguments in (["--cmd", "ver"], ["--cmd", "ver", "-c", str(broken)]):
        done = run_server(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("version: ")
    done = run_server("--cmd", "ver", "--grpc-min-client-version", "1.2.3", "--single")
    assert "min-compatible-client-version: 1.2.3\n" in done.stdout, "what is configured is what is said"


@pytest.mark.skipif(not HAS_FULL, reason="/dev/full is Linux's")
def test_a_command_whose_answer_cannot_be_written_says_so(tmp_path: Path) -> None:
    done = run_server("--cmd", "ver", redirections=">/dev/full")
    assert (done.returncode, done.stderr) == (1, "metasrv: standard output cannot be written: No space left on device\n")
    mistaken = run_server("config", "check", str(tmp_path / "missing.toml"), redirections="2>/dev/full")
    assert (mistaken.returncode, mistaken.stdout) == (2, "")


def test_unknown_keys_are_a_warning_at_start_and_a_mistake_for_a_check(tmp_path: Path) -> None:
    file = tmp_path / "newer.toml"
    file.write_text("[raft_config]\nsingle = true\nheartbeat_intervall = 100\n")
    sentence = "unknown key `raft_config.heartbeat_intervall`; did you mean `raft_config.heartbeat_interval`?"
    shown = run_server("--cmd", "show-config", "-c", str(file))
    assert shown.returncode == 0
    assert f"metasrv: warning: {file}: {sentence}" in shown.stderr
    checked = run_server("config", "check", str(file))
    assert checked.returncode == 2
    assert sentence in checked.stderr
