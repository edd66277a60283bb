"""docker-compose.yml from nothing: any order, every node answers the host, data in volumes, what is in the image."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from metasrv import __version__
from metasrv.client import Client
from metasrv.process.build_info import UNKNOWN_COMMIT, binary_version
from scripts.compiled_wheel import why_not
from verification.compose import ComposeCluster
from verification.compose_image import IMAGE, ROOT

LIBRARY = "find /opt/metasrv -name 'metasrv__mypyc*'"
"""Finds the library of the compiled modules in the image."""
DENIED_CALLS = ["ptrace", "process_vm_readv", "process_vm_writev"]


def write(cluster: ComposeCluster, node_id: int, key: str, value: bytes) -> None:
    with cluster.blocking_client(node_id) as client:
        assert client.upsert(key, value).result is not None


def read(cluster: ComposeCluster, node_id: int, key: str) -> bytes | None:
    with cluster.blocking_client(node_id) as client:
        record = client.get(key)
    return None if record is None else record.data


@pytest.mark.essential
def test_nodes_start_in_any_order(project: ComposeCluster) -> None:
    project.up(3, 2)
    project.wait_until(lambda: project.get(2, "/v1/health") == {"status": "pass"}, "node 2 answers without a cluster")
    assert not project.is_ready(2)
    project.up()
    assert project.wait_until_whole() in project.ids


@pytest.mark.essential
def test_every_node_tells_its_status_to_the_host(cluster: ComposeCluster) -> None:
    for node_id in cluster.ids:
        status = cluster.status(node_id)
        assert status is not None
        assert status["id"] == node_id
        assert status["endpoint"] == f"meta{node_id}:28103"
        assert [voter["name"] for voter in status["voters"]] == ["1", "2", "3"]
        advertised = [voter["grpc_api_advertise_address"] for voter in status["voters"]]
        assert advertised == [f"meta{voter}:{cluster.grpc_ports[voter]}" for voter in cluster.ids]


@pytest.mark.essential
def test_a_write_through_one_node_is_read_through_another(cluster: ComposeCluster) -> None:
    for written, asked in ((1, 2), (2, 3), (3, 1)):
        write(cluster, written, f"from-{written}", str(written).encode())
        assert read(cluster, asked, f"from-{written}") == str(written).encode()


def test_clients_follow_the_leader_inside_and_outside(cluster: ComposeCluster) -> None:
    """Outside, the leader's name does not resolve; its published port is found behind it all the same."""
    leader = cluster.wait_for_leader()
    others = [node_id for node_id in cluster.ids if node_id != leader]
    with Client(cluster.endpoints(*others, leader), timeout_ms=5_000) as client:
        for number in range(12):
            client.upsert("followed", str(number).encode())
        assert client._client._caller.endpoints.current == f"127.0.0.1:{cluster.grpc_ports[leader]}"
    program = (
        "import sys; from metasrv.client import Client\n"
        "client = Client([sys.argv[1]])\n"
        "for _ in range(3): client.upsert('inside', b'x')\n"
        "print(client._client._caller.endpoints.current)\n"
        "client.close()"
    )
    follower = f"meta{others[0]}:{cluster.grpc_ports[others[0]]}"
    said = cluster.execute(others[1], "python", "-c", program, follower)
    assert said.strip() == f"meta{leader}:{cluster.grpc_ports[leader]}"


@pytest.mark.essential
def test_containers_become_healthy_and_hold_no_tools(cluster: ComposeCluster, image: str) -> None:
    for node_id in cluster.ids:
        state = ("inspect", "--format", "{{.State.Health.Status}}", cluster.container(node_id))
        cluster.wait_until(lambda state=state: cluster.docker(*state).strip() == "healthy", f"node {node_id} is healthy")  # type: ignore[misc]
        assert cluster.execute(node_id, "id", "-u").strip() == "10001"
        tools = "command -v cc gcc g++ make pip pip3 || true"
        assert cluster.execute(node_id, "sh", "-c", tools).strip() == ""
    size_bytes = int(cluster.docker("image", "inspect", "--format", "{{.Size}}", image))
    assert size_bytes < 350_000_000


def commit_of_this_tree() -> str:
    """Unknown where git knows none, as in an archive or in a directory that belongs to somebody else."""
    command = ("git", "rev-parse", "--short=12", "HEAD")
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return UNKNOWN_COMMIT if said.returncode else said.stdout.strip()


@pytest.mark.essential
def test_version_and_commit_are_in_the_image_and_in_the_status(cluster: ComposeCluster, image: str) -> None:
    labels = json.loads(cluster.docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
    commit = labels["org.opencontainers.image.revision"]
    if image == IMAGE:  # built from this tree, not named by somebody
        assert commit.removesuffix("-modified") == commit_of_this_tree()
    assert labels["org.opencontainers.image.version"] == __version__
    status = cluster.status(1)
    assert status is not None
    is_compiled = bool(cluster.docker("exec", cluster.container(1), "sh", "-c", LIBRARY).strip())
    assert status["binary_version"] == binary_version(commit, compiled=is_compiled)
    if image == IMAGE:
        assert is_compiled == (why_not() is None), "the image has the compiled wheel where this machine can compile"


def test_the_secret_is_one_and_private(cluster: ComposeCluster) -> None:
    secrets = set()
    for node_id in cluster.ids:
        path = "/var/lib/metasrv-shared/raft-secret"
        assert cluster.execute(node_id, "stat", "-c", "%a %u", path).split() == ["600", "10001"]
        secrets.add(cluster.execute(node_id, "cat", path))
    assert len(secrets) == 1
    secret = secrets.pop().strip()
    assert len(secret) == 64
    assert secret not in cluster.logs(lines=1000)


def test_a_node_that_ends_by_itself_is_started_again(cluster: ComposeCluster) -> None:
    container = cluster.container(2)
    cluster.docker("exec", container, "sh", "-c", "kill -TERM 1")
    restarts = ("inspect", "--format", "{{.RestartCount}}", container)
    cluster.wait_until(lambda: int(cluster.docker(*restarts)) > 0, "the engine has restarted node 2")
    assert cluster.wait_until_whole() in cluster.ids


# ----------------------------------------------------------------------------- profiles


def cpu_profile(port: int) -> tuple[str, bytes]:
    """The sampler and the stacks of a node that has something to do meanwhile."""
    profiled = threading.Event()

    def keep_busy() -> None:
        while not profiled.is_set():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/metrics", timeout=30) as response:
                response.read()

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        url = f"http://127.0.0.1:{port}/debug/pprof/profile?seconds=2&format=folded"
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.headers["X-Profile-Sampler"], response.read()
    finally:
        profiled.set()
        busy.join()


def test_the_cpu_profile_needs_no_capability(cluster: ComposeCluster) -> None:
    sampler, stacks = cpu_profile(cluster.admin_ports[1])
    assert sampler == "py-spy"
    assert b"metasrv" in stacks


def test_where_tracing_is_forbidden_the_node_samples_itself(cluster: ComposeCluster, image: str, tmp_path: Path) -> None:
    rules = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": DENIED_CALLS, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps(rules))
    port = cluster.grpc_ports[5]  # reserved, and not used by three nodes
    environment = ("-e", "METASRV_SINGLE=true", "-e", "METASRV_ID=1", "-e", "METASRV_RAFT_LISTEN_HOST=127.0.0.1")
    options = ("--rm", "--detach", "--security-opt", f"seccomp={profile}", "--publish", f"127.0.0.1:{port}:28101")
    container = cluster.docker("run", *options, *environment, image).strip()
    try:
        check = ("exec", container, "metasrv-healthcheck")
        with pytest.raises(AssertionError, match="ended with"):
            cluster.docker("exec", container, "py-spy", "dump", "--pid", "1")

        def healthy() -> bool:
            return subprocess.run(["docker", *check], capture_output=True, check=False).returncode == 0

        cluster.wait_until(healthy, "the lone node is ready")
        sampler, stacks = cpu_profile(port)
        assert sampler == "in-process"
        assert b";" in stacks
    finally:
        cluster.docker("rm", "--force", "--volumes", container)


def test_the_profiler_beside_a_node_may_trace_it(cluster: ComposeCluster) -> None:
    dump = cluster.compose("--profile", "profiling", "run", "--rm", "-T", "profile1", "dump", "--pid", "1")
    assert "metasrv" in dump


def test_memory_profiles_work_in_a_container(cluster: ComposeCluster) -> None:
    url = f"http://127.0.0.1:{cluster.admin_ports[1]}/debug/mem/pprof/profile?seconds=1&format=svg"
    with urllib.request.urlopen(url, timeout=60) as response:
        assert b"<svg" in response.read(1000)


# ----------------------------------------------------------------------------- volumes


@pytest.mark.essential
def test_data_outlives_down_but_not_down_with_volumes(cluster: ComposeCluster) -> None:
    write(cluster, 1, "outlives", b"down")
    cluster.compose("down", "--timeout", "20")
    cluster.up()
    cluster.wait_until_whole()
    assert read(cluster, 3, "outlives") == b"down"
    cluster.compose("down", "--volumes", "--timeout", "20")
    cluster.up()
    cluster.wait_until_whole()
    assert read(cluster, 3, "outlives") is None


def test_nothing_is_left_of_a_project_that_was_closed(image: str) -> None:
    cluster = ComposeCluster(ROOT, image)
    cluster.up(2)
    cluster.close()
    for kind in ("container", "network", "volume"):
        listed = ("--all",) if kind == "container" else ()
        found = cluster.docker(
            kind, "ls", "--quiet", *listed, "--filter", f"label=com.docker.compose.project={cluster.name}"
        )
        assert found == ""
