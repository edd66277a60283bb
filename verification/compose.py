"""A cluster in real containers, started from a docker-compose.yml, for tests: ports, commands, questions, waiting.

Project name and host ports are its own, everything is published on loopback, and `close` removes containers, networks and
volumes. Every call blocks; an event loop calls them in a thread. Knows a node's outside only: its container, its
published ports, its answers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from metasrv.cli.node_process import fetch, leader_id_of
from metasrv.client import AsyncClient, Client
from metasrv.model.types import Endpoint
from metasrv.testing.node_client import NodeClient
from metasrv.testing.ports import PortReservation

COMMAND_SECONDS = 180.0
WAIT_SECONDS = 90.0
POLL_SECONDS = 0.1
ANSWER_SECONDS = 2.0
CLIENT_TIMEOUT_MS = 2_000
"""For one call: a client that asks a paused node gives it up after this."""
IDS_MAX = 5
"""Nodes that docker-compose.yml knows; the fourth and the fifth belong to its profile `five`."""
LOOPBACK = "127.0.0.1"


class CommandError(AssertionError):
    """A command that must succeed did not; the text is what it said."""


def run_command(
    *command: str, directory: Path, environment: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS
) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def compose_command() -> list[str] | None:
    """Compose v2 where Docker has it, else docker-compose, else None."""
    if shutil.which("docker") and _succeeds("docker", "compose", "version"):
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def why_no_containers() -> str | None:
    """Why containers cannot be used here; None when they can."""
    if shutil.which("docker") is None:
        return "there is no docker program"
    if not _succeeds("docker", "version"):
        return "no Docker engine answers"
    if _is_elsewhere(os.environ.get("DOCKER_HOST", "")):
        return "the Docker engine is another machine's, and what it publishes on loopback is not reached from here"
    return None if compose_command() else "there is neither `docker compose` nor `docker-compose`"


def _is_elsewhere(docker_host: str) -> bool:
    address = urlsplit(docker_host)
    return address.scheme in ("tcp", "ssh", "http", "https") and address.hostname not in (LOOPBACK, "localhost", "::1")


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class ComposeCluster:
    """Nodes 1 to `size` of the docker-compose.yml in `directory`; nothing is started yet."""

    def __init__(self, directory: Path, image: str, size: int = 3, **settings: str) -> None:
        """`settings` are further variables of docker-compose.yml."""
        self.name = f"metasrv-test-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self.directory = directory
        self.ids = tuple(range(1, size + 1))
        self._command = tuple(compose_command() or ())
        self._ports = PortReservation()
        self.admin_ports = {node_id: self._ports.take() for node_id in range(1, IDS_MAX + 1)}
        self.grpc_ports = {node_id: self._ports.take() for node_id in range(1, IDS_MAX + 1)}
        self.prometheus_port = self._ports.take()
        self.environment = {
            **os.environ,
            "METASRV_IMAGE": image,
            "METASRV_PROMETHEUS_PORT": str(self.prometheus_port),
            "METASRV_GRAFANA_PORT": str(self._ports.take()),
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_PROFILES": "five" if size > 3 else "",
            **settings,
        }
        for node_id in range(1, IDS_MAX + 1):
            self.environment[f"METASRV_ADMIN_PORT_{node_id}"] = str(self.admin_ports[node_id])
            self.environment[f"METASRV_GRPC_PORT_{node_id}"] = str(self.grpc_ports[node_id])

    def close(self) -> None:
        """Remove whatever this cluster made; safe to call again."""
        self.environment["COMPOSE_PROFILES"] = "five,chaos,observability,profiling"
        try:
            self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        finally:
            self._ports.release()

    # ------------------------------------------------------------------------- commands

    @property
    def network(self) -> str:
        return f"{self.name}_metasrv"

    def compose(self, *arguments: str, **variables: str) -> str:
        return run_command(
            *self._command, *arguments, directory=self.directory, environment={**self.environment, **variables}
        )

    def docker(self, *arguments: str) -> str:
        return run_command("docker", *arguments, directory=self.directory)

    def container(self, service: str | int) -> str:
        """The id of a service's or a node's container, running or not."""
        name = f"meta{service}" if isinstance(service, int) else service
        labels = (f"com.docker.compose.project={self.name}", f"com.docker.compose.service={name}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        found = self.docker("ps", "--all", "--quiet", *filters).split()
        if len(found) != 1:
            raise AssertionError(f"{name} has {len(found)} containers in {self.name}")
        return found[0]

    def execute(self, node_id: int, *command: str) -> str:
        """Run a command in a node's container."""
        return self.docker("exec", self.container(node_id), *command)

    def up(self, *node_ids: int, **variables: str) -> None:
        """Make and start these nodes, by default all; returns before they serve."""
        self.compose("up", "-d", *self.services(node_ids or self.ids), **variables)

    def disconnect(self, node_id: int) -> None:
        self.docker("network", "disconnect", self.network, self.container(node_id))

    def connect(self, node_id: int) -> None:
        self.docker("network", "connect", "--alias", f"meta{node_id}", self.network, self.container(node_id))

    def services(self, node_ids: Sequence[int]) -> list[str]:
        return [f"meta{node_id}" for node_id in node_ids]

    # ------------------------------------------------------------------------- questions

    def get(self, node_id: int, path: str) -> Any:
        """A node's JSON answer on its published port; None when it does not answer, or answers with an error."""
        try:
            code, body = self._answer(node_id, path)
            return json.loads(body) if code == 200 else None
        except (OSError, ValueError):
            return None

    def status(self, node_id: int) -> dict[str, Any] | None:
        status: dict[str, Any] | None = self.get(node_id, "/v1/cluster/status")
        return status

    def is_ready(self, node_id: int) -> bool:
        try:
            return self._answer(node_id, "/readyz")[0] == 200
        except OSError:
            return False

    def _answer(self, node_id: int, path: str) -> tuple[int, bytes]:
        return fetch(f"http://{LOOPBACK}:{self.admin_ports[node_id]}{path}", ANSWER_SECONDS)

    def leader(self, *asked: int) -> int | None:
        """The leader that all of `asked` name and that is one of them, if they agree."""
        leaders = set()
        for node_id in asked or self.ids:
            status = self.status(node_id)
            leaders.add(leader_id_of(status) if status else None)
        leader = leaders.pop() if len(leaders) == 1 else None
        return leader if leader in (asked or self.ids) else None

    def endpoints(self, *node_ids: int) -> list[str]:
        """Published gRPC addresses."""
        return [f"{LOOPBACK}:{self.grpc_ports[node_id]}" for node_id in node_ids or self.ids]

    def client(self, *node_ids: int, timeout_ms: int = CLIENT_TIMEOUT_MS) -> AsyncClient:
        return AsyncClient(self.endpoints(*node_ids), timeout_ms=timeout_ms)

    def blocking_client(self, *node_ids: int, timeout_ms: int = 20_000) -> Client:
        return Client(self.endpoints(*node_ids), timeout_ms=timeout_ms)

    def node_client(self, node_id: int, timeout_s: float = 2.0) -> NodeClient:
        """A client that asks this node only."""
        return NodeClient(Endpoint(LOOPBACK, self.grpc_ports[node_id]), timeout_s)

    def logs(self, lines: int = 40) -> str:
        return self.compose("logs", "--no-color", "--tail", str(lines))

    # ------------------------------------------------------------------------- waiting

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.logs()}")
            time.sleep(POLL_SECONDS)

    def wait_for_leader(self, *asked: int) -> int:
        """Until these nodes, by default all, agree on a leader among them; returns its id."""
        found: list[int] = []

        def agreed() -> bool:
            leader = self.leader(*asked)
            if leader is not None:
                found.append(leader)
            return bool(found)

        self.wait_until(agreed, f"nodes {asked or self.ids} agree on a leader among them")
        return found[0]

    def wait_until_ready(self, *node_ids: int) -> None:
        for node_id in node_ids or self.ids:
            self.wait_until(lambda node_id=node_id: self.is_ready(node_id), f"node {node_id} is ready")  # type: ignore[misc]

    def wait_until_whole(self) -> int:
        """Until every node is a voter, is ready and agrees on the leader; returns its id."""

        def all_vote() -> bool:
            statuses = [self.status(node_id) for node_id in self.ids]
            return all(status is not None and len(status["voters"]) == len(self.ids) for status in statuses)

        self.wait_until(all_vote, f"nodes {self.ids} know each other as voters")
        self.wait_until_ready()
        return self.wait_for_leader()

    def wait_until_equal(self) -> None:
        """Until all nodes have applied everything that the leader has."""

        def equal() -> bool:
            statuses = [self.status(node_id) for node_id in self.ids]
            seen = {
                (status["last_applied"]["index"], status["last_log_index"], status["last_seq"]) if status else None
                for status in statuses
            }
            one = seen.pop() if len(seen) == 1 else None
            return one is not None and one[0] == one[1]

        self.wait_until(equal, "all nodes have applied the same entries")
