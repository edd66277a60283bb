"""`make run` as a program: it starts, shows, follows and stops a cluster, and explains what stands in its way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.testing.processes import ProcessCluster


def start_runner(cluster: ProcessCluster, *arguments: str) -> subprocess.Popen[str]:
    files = [str(node.config_file) for node in cluster.nodes.values()]
    command = [sys.executable, "-u", "-m", "metasrv.cli.local_cluster", "--nodes", *files]
    return subprocess.Popen(
        [*command, "--data", str(cluster.directory / "run"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(runner: subprocess.Popen[str], text: str) -> list[str]:
    lines = []
    assert runner.stdout is not None
    for line in runner.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was never printed:\n" + "\n".join(lines))


def end(runner: subprocess.Popen[str]) -> None:
    """Its nodes too, which outlive a runner that is killed."""
    runner.terminate()
    try:
        runner.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        runner.kill()
        runner.communicate()


def pids_in_table(lines: list[str]) -> dict[str, int]:
    start = next(number for number, line in enumerate(lines) if line.startswith("node "))
    rows = [line.split() for line in lines[start + 1 : start + 4]]
    return {row[0]: int(row[-1]) for row in rows}


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def configured() -> Iterator[ProcessCluster]:
    cluster = ProcessCluster(3)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_shows_the_cluster_follows_it_and_stops_it_cleanly(configured: ProcessCluster, number: int) -> None:
    runner = start_runner(configured)
    try:
        lines = read_until(runner, "Ctrl-C stops the cluster")
        table = [line for line in lines if "http://" in line and line[:1].isdigit()]
        assert len(table) == 3
        assert sum(" Leader " in row for row in table) == 1
        assert sum(" Follower " in row for row in table) == 2
        for node, row in zip(configured.nodes.values(), table, strict=True):
            assert f"http://{node.admin}" in row
            assert str(node.grpc) in row
        assert any(line.strip().startswith("curl -s http://") for line in lines)
        assert any(line.startswith("Console: http://") and " top --admin-api-address http://" in line for line in lines)
        pids = pids_in_table(lines)
        os.kill(pids["2"], signal.SIGKILL)
        read_until(runner, "node 2 was killed by signal 9")
        runner.send_signal(number)
        runner.communicate(timeout=20)
        assert runner.returncode == 0
        assert not any(is_alive(pid) for pid in pids.values())
    finally:
        end(runner)


def test_run_names_each_port_in_use_its_purpose_and_its_holder(configured: ProcessCluster) -> None:
    taken = configured.nodes[2].grpc
    with socket.create_server((taken.addr, taken.port)):
        runner = start_runner(configured)
        output, _ = runner.communicate(timeout=20)
    assert runner.returncode == 1
    assert f"port {taken.port} (gRPC of node 2, " in output
    assert f"is in use by pid {os.getpid()} " in output
    assert not (configured.directory / "run").exists()


def test_run_shows_the_last_words_of_a_node_that_does_not_start(configured: ProcessCluster) -> None:
    configured.nodes[3].settings["heartbeat_interval"] = 1
    configured.nodes[3].write_config()
    runner = start_runner(configured)
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1
    assert "node 3 exited with code 2 before it was ready" in output
    assert "`raft_config.heartbeat_interval` is 1" in output


def test_run_names_a_configuration_file_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metasrv.cli.local_cluster", "--nodes", str(tmp_path / "absent.toml")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"{tmp_path}/absent.toml: there is no such file"


async def test_waiting_for_a_node_may_begin_before_it_listens() -> None:
    async with ProcessCluster(1) as cluster:
        node = cluster.nodes[1]
        node.write_config()
        cluster.start(1)
        await cluster.wait_for_ready(1)
        assert (await cluster.admin(1, "/readyz"))[0] == 200
