"""metasrv as a contender: real processes with the configuration of the tests, which is that of `conf/`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from benchmarks.compared.contender import Call
from benchmarks.load import LoadError
from metasrv.cli.node_process import THIS_PROGRAM, NodeProgram
from metasrv.client import Transaction
from metasrv.model.errors import MetasrvError
from metasrv.model.types import Endpoint
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster

POLL_SECONDS = 0.005


class MetasrvCluster:
    """`async with MetasrvCluster(3) as cluster`; implements `Contender`."""

    watch_greetings = 0
    watch_is_open = False

    def __init__(self, size: int = 3, program: NodeProgram = THIS_PROGRAM, name: str = "metasrv") -> None:
        self.name = name
        self.cluster = ProcessCluster(size, program=program)
        self.nodes = sorted(self.cluster.nodes)
        self._headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.cluster.__aenter__()
        leader = await self.cluster.boot()
        async with self.cluster.node_client(leader) as client:
            token = await client.handshake()
        self._headers = {"auth-token-bin": base64.b64encode(token).decode().rstrip("=")}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cluster.__aexit__(kind, error, trace)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def leader(self) -> int:
        return await self.cluster.wait_for_leader()

    def endpoint(self, node: int) -> Endpoint:
        return self.cluster.nodes[node].grpc

    def pid(self, node: int) -> int:
        process = self.cluster.nodes[node].process
        if process is None:
            raise LoadError(f"node {node} does not run")
        return process.pid

    async def changes(self) -> int:
        status = await self.cluster.status(await self.leader())
        if status is None:
            raise LoadError("the leader does not answer")
        return int(status["last_seq"])

    async def term(self) -> int:
        status = await self.cluster.status(await self.leader())
        if status is None:
            raise LoadError("the leader does not answer")
        return int(status["current_term"])

    def changes_of_put_many(self, puts: int) -> int:
        return puts

    def put(self, key: str, value: bytes) -> Call:
        return self.put_many([key], value)

    def put_many(self, keys: Sequence[str], value: bytes) -> Call:
        transaction = Transaction()
        for key in keys:
            transaction.put(key, value)
        return Call("/meta.MetaService/Transaction", transaction.request.SerializeToString())

    def get(self, key: str) -> Call:
        request = pb.RaftRequest(data=json.dumps({"GetKV": {"key": key}}, separators=(",", ":")))
        return Call("/meta.MetaService/KvReadV1", request.SerializeToString())

    def list(self, prefix: str) -> Call:
        return Call("/meta.MetaService/KvList", pb.KvListRequest(prefix=prefix).SerializeToString())

    def watch(self, key: str) -> Call:
        return Call("/meta.MetaService/Watch", pb.WatchRequest(key=key).SerializeToString())

    async def kill(self, node: int) -> None:
        await self.cluster.kill(node)

    async def silence(self, node: int) -> None:
        self.cluster.pause(node)

    async def unsilence(self, node: int) -> None:
        self.cluster.resume(node)

    async def start(self, node: int) -> None:
        self.cluster.start(node)

    async def wait_until_serving(self, node: int) -> None:
        while True:
            with contextlib.suppress(MetasrvError, OSError):
                async with self.cluster.client(node, timeout_ms=1_000) as client:
                    await client.get("benchmark/serving")
                    return
            await asyncio.sleep(POLL_SECONDS)
