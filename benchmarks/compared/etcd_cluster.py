"""etcd as a contender, in one version or another, in a temporary directory, with its default settings unless told."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.compared.contender import Call
from benchmarks.compared.wire import field
from benchmarks.load import LoadError
from metasrv.model.types import Endpoint
from metasrv.testing.ports import PortReservation

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.005
RANGE, PUT, TXN, WATCH = (
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.Watch/Watch",
)


def version_of(program: str) -> str:
    """As `3.5.1`."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0].removeprefix("etcd Version: ")


class EtcdCluster:
    """`async with EtcdCluster(program) as cluster`; implements `Contender`."""

    watch_greetings = 1
    watch_is_open = True

    def __init__(self, program: str, size: int = 3, more_options: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._more_options = more_options or {}
        self.name = f"etcd {version_of(program)}"
        self.nodes = list(range(1, size + 1))
        self.headers: Mapping[str, str] = {}
        self._directory = Path(tempfile.mkdtemp(prefix="metasrv-bench-etcd-"))
        self._ports = PortReservation()
        self._clients = {node: Endpoint("127.0.0.1", self._ports.take()) for node in self.nodes}
        self._peers = {node: Endpoint("127.0.0.1", self._ports.take()) for node in self.nodes}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await self.start(node)
        await self.leader()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._ports.release()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def start(self, node: int) -> None:
        self._start(node)

    def _start(self, node: int) -> None:
        options = {
            "name": f"e{node}",
            "data-dir": str(self._directory / f"e{node}"),
            "listen-client-urls": f"http://{self._clients[node]}",
            "advertise-client-urls": f"http://{self._clients[node]}",
            "listen-peer-urls": f"http://{self._peers[node]}",
            "initial-advertise-peer-urls": f"http://{self._peers[node]}",
            "initial-cluster": ",".join(f"e{other}=http://{peer}" for other, peer in self._peers.items()),
            **self._more_options,
        }
        command = [self._program, *(f"--{name}={value}" for name, value in options.items())]
        with (self._directory / f"e{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    async def leader(self) -> int:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for node in self.nodes:
                status = await self._ask(node, "maintenance/status", {})
                if status is not None and status.get("leader", "0") == status["header"]["member_id"]:
                    return node
            await asyncio.sleep(POLL_SECONDS)
        raise LoadError(f"etcd has no leader; its output is in {self._directory}")

    def endpoint(self, node: int) -> Endpoint:
        return self._clients[node]

    def pid(self, node: int) -> int:
        return self._processes[node].pid

    async def changes(self) -> int:
        answer = await self._ask(await self.leader(), "kv/range", {"key": base64.b64encode(b"x").decode()})
        if answer is None:
            raise LoadError("the leader of etcd does not answer")
        return int(answer["header"]["revision"])

    async def term(self) -> int:
        status = await self._ask(await self.leader(), "maintenance/status", {})
        if status is None:
            raise LoadError("the leader of etcd does not answer")
        return int(status["raftTerm"])

    def changes_of_put_many(self, puts: int) -> int:
        del puts  # the revision is that of the transaction
        return 1

    def put(self, key: str, value: bytes) -> Call:
        return Call(PUT, field(1, key.encode()) + field(2, value))

    def put_many(self, keys: Sequence[str], value: bytes) -> Call:
        """TxnRequest.success is 2, RequestOp.request_put is 2."""
        puts = (field(2, field(2, self.put(key, value).message)) for key in keys)
        return Call(TXN, b"".join(puts))

    def get(self, key: str) -> Call:
        return Call(RANGE, field(1, key.encode()))

    def list(self, prefix: str) -> Call:
        start = prefix.encode()
        return Call(RANGE, field(1, start) + field(2, start[:-1] + bytes((start[-1] + 1,))))

    def watch(self, key: str) -> Call:
        """WatchRequest.create_request is 1, WatchCreateRequest.key is 1."""
        return Call(WATCH, field(1, field(1, key.encode())))

    async def kill(self, node: int) -> None:
        self._processes[node].kill()
        await asyncio.to_thread(self._processes[node].wait)

    async def silence(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGSTOP)

    async def unsilence(self, node: int) -> None:
        self._processes[node].send_signal(signal.SIGCONT)

    async def wait_until_serving(self, node: int) -> None:
        key = {"key": base64.b64encode(b"x").decode()}
        while True:
            if await self._ask(node, "kv/range", key) is not None:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, node: int, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """By the gateway for JSON; None when it does not answer."""
        return await asyncio.to_thread(_post, self._clients[node], path, body)


def _post(endpoint: Endpoint, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    request = urllib.request.Request(f"http://{endpoint}/v3/{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            decoded: dict[str, Any] = json.loads(answer.read())
    except OSError:
        return None
    return decoded
