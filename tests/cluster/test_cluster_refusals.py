"""Every wrong start and every request that cannot be served ends in one clear sentence, and loses nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from metasrv.model.errors import BindError, ConfigError, DataDamagedError, IdentityError, StorageError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.testing.processes import ProcessCluster
from tests.cluster.conftest import mounted
from tests.conftest import StartCluster

SQLITE_MAGIC = b"SQLite format 3\0"


def run_server(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metasrv.cli.server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


async def fill(cluster: ProcessCluster) -> int:
    """Write until the node refuses; the number of acknowledged records `k/0000` and on."""
    async with cluster.node_client(1) as client:
        for number in range(2000):
            try:
                await client.put(f"k/{number:04}", b"v" * 10_000)
            except grpc.aio.AioRpcError:
                return number
    raise AssertionError("the disk never filled")


def database_files(directory: Path) -> list[Path]:
    """The SQLite files of a data directory, snapshot files aside."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".snap"]
    return sorted(path for path in files if path.read_bytes()[: len(SQLITE_MAGIC)] == SQLITE_MAGIC)


def test_a_reader_that_has_enough_of_the_configuration_hears_no_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "metasrv.cli.server", "--single", "--cmd", "show-config"]
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
async def single(start_cluster: StartCluster) -> ProcessCluster:
    """One node that leads itself and has some records."""
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    async with cluster.node_client(1) as client:
        for number in range(100):
            await client.put(f"k/{number:03}", b"v" * 100)
    return cluster


# ----------------------------------------------------------------------------- starts


def test_every_mistake_of_a_configuration_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('admin_api_address = "nonsense"\n[raft_config]\nid = "one"\nsingel = true\n')
    for arguments in (["-c", str(path)], ["config", "check", str(path)]):
        answer = run_server(*arguments)
        assert answer.returncode == ConfigError.exit_code
        for part in ("while parsing nonsense", "id", "singel", "did you mean", "single"):
            assert part in answer.stderr, (arguments, part, answer.stderr)
        assert "Traceback" not in answer.stderr


def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    answer = run_server("-c", str(tmp_path / "absent.toml"))
    assert answer.returncode == ConfigError.exit_code
    assert "absent.toml" in answer.stderr
    assert "Traceback" not in answer.stderr


async def test_a_second_process_on_one_directory_is_refused_and_the_first_goes_on(
    single: ProcessCluster,
) -> None:
    first = single.nodes[1]
    second_id = single.add_node()
    second = single.nodes[second_id]
    second.settings = {"single": True, "raft_dir": str(first.raft_dir), "id": 1}
    second.write_config()
    single.start(second_id)
    assert await single.wait_exit(second_id) == IdentityError.exit_code
    assert str(first.raft_dir) in second.output()
    assert "Traceback" not in second.output()
    async with single.node_client(1) as client:
        await client.put("still", b"here")


async def test_another_id_than_the_stored_one_is_refused(single: ProcessCluster) -> None:
    await single.stop(1)
    single.start(1, "--id", "7")
    assert await single.wait_exit(1) == IdentityError.exit_code
    output = single.nodes[1].output()
    assert "7" in output.splitlines()[-1]
    assert "1" in output.splitlines()[-1]
    assert "Traceback" not in output
    single.start(1)
    await single.wait_for_leader()


@pytest.mark.parametrize("listener", ["admin", "raft", "grpc"])
async def test_a_port_in_use_is_named(start_cluster: StartCluster, listener: str) -> None:
    cluster: ProcessCluster = start_cluster(1)
    endpoint = getattr(cluster.nodes[1], listener)
    with socket.create_server((endpoint.addr, endpoint.port)):
        cluster.start(1)
        assert await cluster.wait_exit(1) == BindError.exit_code
    assert str(endpoint.port) in cluster.nodes[1].output()
    assert "Traceback" not in cluster.nodes[1].output()


async def test_every_damaged_database_file_is_refused_by_name(single: ProcessCluster) -> None:
    await single.stop(1)
    directory = single.nodes[1].raft_dir
    files = database_files(directory)
    assert len(files) >= 2, "a log and a state were expected"
    for path in files:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for offset in range(len(damaged) // 3, len(damaged)):
            damaged[offset] ^= 0x5A
        path.write_bytes(damaged)
        single.start(1)
        assert await single.wait_exit(1) == DataDamagedError.exit_code, single.logs()
        assert path.name in single.nodes[1].output().splitlines()[-1]
        path.write_bytes(whole)
    single.start(1)
    await single.wait_for_leader()
    async with single.node_client(1) as client:
        assert len(await client.list_prefix("k/")) == 100


async def test_a_vanished_database_file_is_refused(single: ProcessCluster) -> None:
    await single.stop(1)
    for path in database_files(single.nodes[1].raft_dir):
        aside = path.with_name(path.name + ".aside")
        path.rename(aside)
        single.start(1)
        assert await single.wait_exit(1) == DataDamagedError.exit_code, single.logs()
        assert path.name in single.nodes[1].output().splitlines()[-1]
        assert not path.exists(), "it must never start empty"
        aside.rename(path)
    single.start(1)
    await single.wait_for_leader()


# ----------------------------------------------------------------------------- a full disk


@pytest.mark.root
async def test_a_full_disk_stops_the_node_with_a_sentence_and_loses_nothing(
    start_cluster: StartCluster, small_disk: tuple[list[str], list[str]]
) -> None:
    enter, mount = small_disk
    cluster: ProcessCluster = start_cluster(1)
    node = cluster.nodes[1]
    node.raft_dir.mkdir()
    if not mounted([*mount, "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(node.raft_dir)]):
        pytest.skip("a tmpfs cannot be mounted here")
    cluster.start(1, wrapper=enter)
    await cluster.wait_for_leader()
    acknowledged = await fill(cluster)
    assert await cluster.wait_exit(1) == StorageError.exit_code, cluster.logs()
    last = node.output().splitlines()[-1]
    assert "full" in last or "space" in last, last
    assert "Traceback" not in node.output()

    assert mounted([*mount, "-o", "remount,size=64m", str(node.raft_dir)])
    cluster.start(1, wrapper=enter)
    await cluster.wait_for_leader()
    async with cluster.node_client(1) as client:
        stored = await client.list_prefix("k/")
        assert acknowledged > 50
        assert set(stored) >= {f"k/{number:04}" for number in range(acknowledged)}
        assert len(stored) <= acknowledged + 1
        await client.put("after", b"v")


# ----------------------------------------------------------------------------- requests


async def test_requests_at_the_limit_pass_and_one_past_it_is_refused(single: ProcessCluster) -> None:
    async with single.node_client(1, timeout_s=30) as client:
        await client.put("k" * KEY_SIZE_BYTES_MAX, b"v")
        await client.put("value", b"v" * VALUE_SIZE_BYTES_MAX)
        for key, value in (
            ("k" * (KEY_SIZE_BYTES_MAX + 1), b"v"),
            ("value", b"v" * (VALUE_SIZE_BYTES_MAX + 1)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.put(key, value)
            assert refused.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert "the limit is" in (refused.value.details() or "")
        assert await client.get("value") == b"v" * VALUE_SIZE_BYTES_MAX


async def test_a_message_past_the_transport_limit_is_refused_and_the_node_goes_on(
    single: ProcessCluster,
) -> None:
    async with single.node_client(1, timeout_s=30) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.put("k", b"v" * (33 * 1024 * 1024))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await client.put("k", b"v")


async def test_a_bad_query_string_counts_as_absent(single: ProcessCluster) -> None:
    code, body = await single.admin(1, "/v1/ctrl/trigger_transfer_leader?to=nonsense")
    assert code == 200
    assert '"to":1' in body
    code, body = await single.admin(1, "/v1/features/set?feature=dummy&enable=perhaps")
    assert (code, body) == (400, "'feature' and 'enable' query parameters are required")


async def test_bytes_that_are_no_frame_on_the_raft_port_change_nothing(single: ProcessCluster) -> None:
    before = await single.status(1)
    for junk in (b"\x80\x04\x95cos\nsystem\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, os.urandom(4096)):
        with socket.create_connection(single.nodes[1].raft, timeout=5) as connection:
            connection.sendall(junk)
            connection.settimeout(10)
            try:
                while connection.recv(4096):
                    continue
            except ConnectionResetError:
                continue
    after = await single.status(1)
    assert before is not None
    assert after is not None
    assert after["current_term"] == before["current_term"]
    assert after["last_log_index"] == before["last_log_index"]
    assert "Traceback" not in single.nodes[1].output()
