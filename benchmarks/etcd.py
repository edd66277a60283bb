"""Three etcd nodes with default settings in a temporary directory."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.load import KEY, VALUE_SIZE_BYTES, Target
from metasrv.model.types import Endpoint
from metasrv.testing.ports import PortReservation

DEADLINE_SECONDS = 30.0


@dataclass(slots=True)
class EtcdNode:
    name: str
    client: Endpoint
    peer: Endpoint
    process: subprocess.Popen[bytes] | None = None


class EtcdCluster:
    """Context manager; `leader()` once inside."""

    def __init__(self, size: int = 3) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="metasrv-bench-etcd-"))
        self._ports = PortReservation()
        self.nodes = [
            EtcdNode(f"e{number}", Endpoint("127.0.0.1", self._ports.take()), Endpoint("127.0.0.1", self._ports.take()))
            for number in range(size)
        ]

    def __enter__(self) -> Self:
        members = ",".join(f"{node.name}=http://{node.peer}" for node in self.nodes)
        for node in self.nodes:
            options = {
                "name": node.name,
                "data-dir": str(self._directory / node.name),
                "listen-client-urls": f"http://{node.client}",
                "advertise-client-urls": f"http://{node.client}",
                "listen-peer-urls": f"http://{node.peer}",
                "initial-advertise-peer-urls": f"http://{node.peer}",
                "initial-cluster": members,
            }
            command = ["etcd", *(f"--{name}={value}" for name, value in options.items())]
            with (self._directory / f"{node.name}.log").open("wb") as log:
                node.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        self._ports.release()
        shutil.rmtree(self._directory, ignore_errors=True)

    def version(self) -> str:
        answer = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
        return answer.stdout.splitlines()[0].removeprefix("etcd Version: ")

    def leader(self) -> EtcdNode:
        """The leading node, once there is one."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for node in self.nodes:
                try:
                    status = _post(node, "maintenance/status", {})
                except OSError:
                    continue
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return node
            time.sleep(0.1)
        raise TimeoutError(f"etcd has no leader; its output is in {self._directory}")

    def writes(self) -> int:
        """The store's revision: grows by one with each write."""
        answer = _post(self.leader(), "kv/range", {"key": base64.b64encode(b"x").decode()})
        return int(answer["header"]["revision"])

    def target(self) -> Target:
        """PutRequest{1: key, 2: value} to the leader."""
        key = KEY.encode()
        value = b"v" * VALUE_SIZE_BYTES
        size = bytes((0x80 | len(value) & 0x7F, len(value) >> 7))
        message = b"\x0a" + bytes((len(key),)) + key + b"\x12" + size + value
        return Target(self.leader().client, "/etcdserverpb.KV/Put", message, {})


def _post(node: EtcdNode, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{node.client}/v3/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=2) as answer:
        decoded: dict[str, Any] = json.loads(answer.read())
    return decoded
