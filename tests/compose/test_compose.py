"""docker-compose.yml with real containers: begin in any order, read what was written elsewhere, survive what happens.

Slow, so left out of `make test`; `make test-compose` or METASRV_COMPOSE=1 runs them. They need a Docker engine, build the
image if METASRV_COMPOSE_IMAGE names none, and take their own project name and host ports. Every node is reached through
its published ports, as an operator on the host would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from metasrv.client import Client
from metasrv.errors import RequestError
from metasrv.testing.ports import PortReservation

ROOT = Path(__file__).resolve().parents[2]
IDS = (1, 2, 3)
BUILD_SECONDS = 1_500
COMMAND_SECONDS = 180
WAIT_SECONDS = 90.0
IMAGE = "metasrv-compose-test"
DEFAULT_BASE = "python:3.11-slim-bookworm"


def why_not() -> str | None:
    """The reason to skip, if there is one."""
    if not os.environ.get("METASRV_COMPOSE"):
        return "containers are tested by `make test-compose` (METASRV_COMPOSE=1)"
    if shutil.which("docker") is None:
        return "there is no docker program"
    if subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=False).returncode:
        return "no Docker engine answers"
    return None if compose_command() else "there is neither `docker compose` nor `docker-compose`"


def compose_command() -> list[str] | None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


REASON = why_not()
pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(BUILD_SECONDS + 300),
    pytest.mark.xdist_group("compose"),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]


def run(*command: str, environment: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


class Project:
    """One started docker-compose.yml."""

    def __init__(self, image: str) -> None:
        self.name = f"metasrv-test-{os.getpid()}"
        self._ports = PortReservation()
        self.admin_ports = {node_id: self._ports.take() for node_id in IDS}
        self.grpc_ports = {node_id: self._ports.take() for node_id in IDS}
        self._environment = {**os.environ, "METASRV_IMAGE": image, "COMPOSE_PROJECT_NAME": self.name}
        for node_id in IDS:
            self._environment[f"METASRV_ADMIN_PORT_{node_id}"] = str(self.admin_ports[node_id])
            self._environment[f"METASRV_GRPC_PORT_{node_id}"] = str(self.grpc_ports[node_id])

    def compose(self, *arguments: str) -> str:
        return run(*(compose_command() or ()), *arguments, environment=self._environment)

    def container(self, node_id: int) -> str:
        return self.compose("ps", "-q", f"meta{node_id}").strip()

    def get(self, node_id: int, path: str) -> Any:
        """A node's JSON answer; None when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_ports[node_id]}{path}", timeout=3) as response:
                return json.load(response)
        except (OSError, ValueError):
            return None

    def is_ready(self, node_id: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_ports[node_id]}/readyz", timeout=3) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def leader_id(self, *asked: int) -> int | None:
        """The leader that all of `asked` name and that is one of them, if they agree."""
        statuses = [self.get(node_id, "/v1/cluster/status") for node_id in asked]
        named = {int(status["leader"]["name"]) if status and status["leader"] else None for status in statuses}
        leader = next(iter(named)) if len(named) == 1 else None
        return leader if leader in asked else None

    def wait_for_leader(self, *asked: int) -> int:
        wait_until(lambda: self.leader_id(*asked) is not None, f"nodes {asked} agree on a leader among them")
        leader = self.leader_id(*asked)
        assert leader is not None
        return leader

    def wait_until_ready(self, *node_ids: int) -> None:
        for node_id in node_ids:
            wait_until(lambda node_id=node_id: self.is_ready(node_id), f"node {node_id} is ready")  # type: ignore[misc]

    def client(self, *node_ids: int) -> Client:
        return Client([f"127.0.0.1:{self.grpc_ports[node_id]}" for node_id in node_ids], timeout_ms=20_000)

    def write(self, node_id: int, key: str, value: bytes) -> None:
        with self.client(node_id) as client:
            assert client.upsert(key, value).result is not None

    def read(self, node_id: int, key: str) -> bytes | None:
        with self.client(node_id) as client:
            record = client.get(key)
        return None if record is None else record.data

    def has_written(self, node_id: int, key: str, value: bytes) -> bool:
        try:
            self.write(node_id, key, value)
        except RequestError:
            return False
        return True

    def close(self) -> None:
        try:
            self.compose("down", "--volumes", "--timeout", "5")
        finally:
            self._ports.release()


@pytest.fixture(scope="module")
def image() -> str:
    """The image under test, from this tree; its base from Debian's packages where none can be pulled."""
    given = os.environ.get("METASRV_COMPOSE_IMAGE")
    if given:
        return given
    environment = {"PYTHON": sys.executable, **os.environ, "METASRV_IMAGE": IMAGE}
    pulled = subprocess.run(
        ["docker", "pull", "--quiet", DEFAULT_BASE],
        capture_output=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if pulled.returncode:
        run("docker/make_base.sh", seconds=BUILD_SECONDS)
        environment.setdefault("BASE", "metasrv-base")
    run("docker/build.sh", environment=environment, seconds=BUILD_SECONDS)
    return IMAGE


@pytest.fixture(scope="module")
def project(image: str) -> Iterator[Project]:
    started = Project(image)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def cluster(project: Project) -> Project:
    """All three nodes up and ready, whatever the test before did."""
    project.compose("up", "-d")
    project.wait_until_ready(*IDS)
    project.wait_for_leader(*IDS)
    return project


def test_nodes_start_in_any_order(project: Project) -> None:
    project.compose("up", "-d", "meta3", "meta2")
    wait_until(lambda: project.get(2, "/v1/health") == {"status": "pass"}, "node 2 answers before there is a cluster")
    assert not project.is_ready(2)
    project.compose("up", "-d")
    project.wait_until_ready(*IDS)
    assert project.wait_for_leader(*IDS) in IDS


def test_every_node_tells_its_status_to_the_host(cluster: Project) -> None:
    for node_id in IDS:
        status = cluster.get(node_id, "/v1/cluster/status")
        assert status["id"] == node_id
        assert status["endpoint"] == f"meta{node_id}:28103"
        assert [voter["name"] for voter in status["voters"]] == ["1", "2", "3"]
        assert status["voters"][0]["grpc_api_advertise_address"] == "meta1:9191"


def test_a_write_through_one_node_is_read_through_another(cluster: Project) -> None:
    for written, read in ((1, 2), (2, 3), (3, 1)):
        cluster.write(written, f"from-{written}", str(written).encode())
        assert cluster.read(read, f"from-{written}") == str(written).encode()


def test_containers_become_healthy_and_are_not_root(cluster: Project) -> None:
    for node_id in IDS:
        container = cluster.container(node_id)
        state = ("docker", "inspect", "--format", "{{.State.Health.Status}}", container)
        wait_until(lambda state=state: run(*state).strip() == "healthy", f"node {node_id} is healthy")  # type: ignore[misc]
        assert run("docker", "exec", container, "id", "-u").strip() == "10001"
        tools = "command -v cc gcc make pip || true"
        assert run("docker", "exec", container, "sh", "-c", tools).strip() == ""


def test_the_secret_is_one_and_private(cluster: Project) -> None:
    secrets = set()
    for node_id in IDS:
        path = "/var/lib/metasrv-shared/raft-secret"
        listed = run("docker", "exec", cluster.container(node_id), "stat", "-c", "%a %u", path).split()
        assert listed == ["600", "10001"]
        secrets.add(run("docker", "exec", cluster.container(node_id), "cat", path))
    assert len(secrets) == 1
    assert len(secrets.pop().strip()) == 64


def test_a_killed_leader_is_replaced_and_comes_back(cluster: Project) -> None:
    cluster.write(1, "before-kill", b"kept")
    leader = cluster.wait_for_leader(*IDS)
    others = [node_id for node_id in IDS if node_id != leader]
    run("docker", "kill", "--signal", "KILL", cluster.container(leader))
    assert cluster.wait_for_leader(*others) != leader
    cluster.write(others[0], "during-kill", b"taken")
    assert cluster.read(others[1], "before-kill") == b"kept"
    cluster.compose("start", f"meta{leader}")
    cluster.wait_until_ready(leader)
    assert cluster.read(leader, "during-kill") == b"taken"


def test_a_paused_leader_is_replaced_and_follows_afterwards(cluster: Project) -> None:
    leader = cluster.wait_for_leader(*IDS)
    others = [node_id for node_id in IDS if node_id != leader]
    cluster.compose("pause", f"meta{leader}")
    try:
        assert cluster.wait_for_leader(*others) != leader
        cluster.write(others[0], "during-pause", b"taken")
    finally:
        cluster.compose("unpause", f"meta{leader}")
    cluster.wait_until_ready(leader)
    assert cluster.read(leader, "during-pause") == b"taken"


def test_a_disconnected_leader_steps_down_and_follows_afterwards(cluster: Project) -> None:
    leader = cluster.wait_for_leader(*IDS)
    others = [node_id for node_id in IDS if node_id != leader]
    network, container = f"{cluster.name}_metasrv", cluster.container(leader)
    run("docker", "network", "disconnect", network, container)
    try:
        assert cluster.wait_for_leader(*others) != leader
        cluster.write(others[0], "during-disconnect", b"taken")
    finally:
        run("docker", "network", "connect", "--alias", f"meta{leader}", network, container)
    cluster.wait_until_ready(leader)
    assert cluster.read(leader, "during-disconnect") == b"taken"


def test_a_node_without_data_joins_again_also_the_one_that_began(cluster: Project) -> None:
    cluster.write(2, "before-loss", b"kept")
    cluster.compose("rm", "--stop", "--force", "meta1")
    run("docker", "volume", "rm", f"{cluster.name}_meta1")
    cluster.compose("up", "-d", "meta1")
    cluster.wait_until_ready(1)
    assert len(cluster.get(1, "/v1/cluster/status")["voters"]) == 3
    assert cluster.read(1, "before-loss") == b"kept"


def test_the_cpu_profile_needs_no_capability_and_the_profiler_has_one(cluster: Project) -> None:
    url = f"http://127.0.0.1:{cluster.admin_ports[1]}/debug/pprof/profile?seconds=1&format=folded"
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.headers["X-Profile-Sampler"] in {"py-spy", "in-process"}
        assert b";" in response.read()
    dump = cluster.compose("--profile", "profiling", "run", "--rm", "-T", "profile1", "dump", "--pid", "1")
    assert "metasrv" in dump


def test_data_outlives_down_but_not_down_with_volumes(cluster: Project) -> None:
    cluster.write(1, "outlives", b"down")
    cluster.compose("down", "--timeout", "20")
    cluster.compose("up", "-d")
    cluster.wait_until_ready(*IDS)
    assert cluster.read(3, "outlives") == b"down"
    cluster.compose("down", "--volumes", "--timeout", "20")
    cluster.compose("up", "-d")
    cluster.wait_until_ready(*IDS)
    assert cluster.read(3, "outlives") is None
