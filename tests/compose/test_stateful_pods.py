"""docker/stateful.py in real containers that are named as the pods of deploy/kubernetes/metasrv.yaml are."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator

import pytest

SERVICE = "metasrv-peers"
WAIT_SECONDS = 90.0


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


class Pods:
    """Three containers on a network of their own, each with a volume."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._prefix = f"metasrv-pods-{os.getpid()}-{secrets.token_hex(2)}"
        self._secret = secrets.token_hex(16)
        docker("network", "create", self._prefix)

    def start(self, ordinal: int) -> None:
        pod = f"metasrv-{ordinal}"
        settings = (f"METASRV_PEER_SERVICE={SERVICE}", "METASRV_REPLICAS=3", f"METASRV_POD={pod}")
        variables = [part for one in (*settings, f"METASRV_RAFT_SECRET={self._secret}") for part in ("--env", one)]
        network = ("--network", self._prefix, "--network-alias", f"{pod}.{SERVICE}")
        volume = ("--volume", f"{self._name(ordinal)}:/var/lib/metasrv")
        program = ("--entrypoint", "/usr/local/bin/metasrv-stateful")
        docker("run", "--detach", "--name", self._name(ordinal), *network, *volume, *variables, *program, self._image)

    def remove(self, ordinal: int) -> None:
        """The pod with its volume."""
        docker("rm", "--force", self._name(ordinal))
        docker("volume", "rm", "--force", self._name(ordinal))

    def voters(self, ordinal: int) -> list[str]:
        """Names of the voters that a ready node knows; none when it is not ready."""
        ready = subprocess.run(
            ["docker", "exec", self._name(ordinal), "metasrv-healthcheck"], capture_output=True, timeout=60, check=False
        )
        if ready.returncode:
            return []
        program = (
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:28101/v1/cluster/status').read().decode())"
        )
        status = json.loads(docker("exec", self._name(ordinal), "python", "-c", program))
        return [voter["name"] for voter in status["voters"]]

    def wait_until_whole(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        for ordinal in range(3):
            while self.voters(ordinal) != ["1", "2", "3"]:
                assert time.monotonic() < deadline, docker("logs", "--tail", "30", self._name(ordinal))
                time.sleep(0.3)

    def close(self) -> None:
        for ordinal in range(3):
            subprocess.run(["docker", "rm", "--force", self._name(ordinal)], capture_output=True, check=False)
            subprocess.run(["docker", "volume", "rm", "--force", self._name(ordinal)], capture_output=True, check=False)
        docker("network", "rm", self._prefix)

    def _name(self, ordinal: int) -> str:
        return f"{self._prefix}-{ordinal}"


@pytest.fixture
def pods(image: str) -> Iterator[Pods]:
    made = Pods(image)
    try:
        yield made
    finally:
        made.close()


def test_pods_form_one_cluster_and_the_first_one_joins_it_again_without_its_volume(pods: Pods) -> None:
    pods.start(0)
    pods.start(2)
    time.sleep(2)
    assert pods.voters(0) == [], "the first pod does not begin before it could ask everybody"
    pods.start(1)
    pods.wait_until_whole()
    pods.remove(0)
    pods.start(0)
    pods.wait_until_whole()
