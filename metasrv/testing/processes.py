"""A cluster of real nodes as child processes, for tests: ports, files, signals, output.

Every process is ended with the cluster, with the test program, and (where setpriv exists) by the kernel when the test
program is killed. Used from one event loop; only short steps block it. Knows a node's outside only: its
configuration file, its command line, its ports, its answers.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from metasrv.cli.node_process import (
    THIS_PROGRAM,
    NodeProgram,
    fetch,
    fetch_status,
    last_lines,
    leader_id_of,
    start_node,
    why_not_ready,
)
from metasrv.client import AsyncClient
from metasrv.client.asynchronous import TIMEOUT_MS_DEFAULT
from metasrv.model.types import Endpoint
from metasrv.testing.network import Network, advertised_host
from metasrv.testing.node_client import NodeClient
from metasrv.testing.ports import PortReservation
from metasrv.testing.process_node import HOST, ProcessNode
from metasrv.testing.remote_gateway import RemoteGatewayProcess

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.05

_running: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


@atexit.register
def _kill_leftovers() -> None:
    for process in list(_running):
        if process.poll() is None:
            process.kill()


class DeadlineError(AssertionError):
    """A condition was not met in time; the text quotes the nodes."""


class ProcessCluster:
    """`async with ProcessCluster(3) as cluster:`; nodes have ids 1 to `size` and are started by `start` or `boot`.

    Node 1 is configured `single`, the others `join` all earlier ones. `settings` goes into every `[raft_config]`.
    With a `network` the nodes reach each other only through it; its opener closes it. Nodes run `program` until their
    own says otherwise: another release of metasrv, perhaps.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        settings: Mapping[str, Any] | None = None,
        network: Network | None = None,
        program: NodeProgram = THIS_PROGRAM,
    ) -> None:
        self.network = network
        self.directory = Path(tempfile.mkdtemp(prefix="metasrv-cluster-"))
        self.nodes: dict[int, ProcessNode] = {}
        self.remote_gateways: list[RemoteGatewayProcess] = []
        """Gateways without a node, which dial the nodes directly."""
        self._ports = PortReservation()
        self._settings = dict(settings or {})
        self._program = program
        self._last_id = 0
        for _ in range(size):
            self.add_node()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep_files=kind is not None)

    def close(self, *, keep_files: bool = False) -> None:
        """Kill what runs and delete the files."""
        for gateway in self.remote_gateways:
            gateway.close()
        for node in self.nodes.values():
            if node.process is not None and node.is_running:
                node.process.kill()
                node.process.wait()
        self._ports.release()
        if not keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)

    def add_node(self, **settings: Any) -> int:
        """Configure one more node, joining through all present ones unless it is the first; returns its id.

        An id is never used again, also after `forget`.
        """
        self._last_id += 1
        node_id = self._last_id
        admin, raft, grpc = (Endpoint(HOST, self._ports.take()) for _ in range(3))
        host = HOST if self.network is None else advertised_host(node_id)
        entry: dict[str, Any] = {"join": [str(node.advertised) for node in self.nodes.values()]}
        node = ProcessNode(node_id, self.directory / f"node{node_id}", admin, raft, grpc, host, program=self._program)
        node.settings = {**(entry if self.nodes else {"single": True}), **self._settings, **settings}
        self.nodes[node_id] = node
        node.write_config()
        return node_id

    def add_remote_gateway(self, *node_ids: int) -> RemoteGatewayProcess:
        """Start a gateway without a node for these nodes, by default all present ones."""
        directory = self.directory / f"gateway{len(self.remote_gateways) + 1}"
        gateway = RemoteGatewayProcess(directory, [self.nodes[node_id].raft for node_id in node_ids or self.nodes])
        self.remote_gateways.append(gateway)
        gateway.start()
        return gateway

    def rejoin_from_scratch(self, node_id: int) -> None:
        """Delete a stopped node's data and let it join through all the others at its next start.

        The first node keeps `single`, as its configuration would: it must find that there is a cluster already.
        """
        self.wipe(node_id)
        node = self.nodes[node_id]
        node.settings["join"] = [str(other.advertised) for other in self.nodes.values() if other is not node]
        node.write_config()

    def move(self, *node_ids: int) -> None:
        """Give stopped nodes other raft ports for their next start."""
        for node_id in node_ids:
            node = self.nodes[node_id]
            if node.is_running:
                raise AssertionError(f"node {node_id} is running")
            node.raft = Endpoint(HOST, self._ports.take())
            node.write_config()

    def forget(self, node_id: int) -> None:
        """Drop a node that has ended and left the cluster."""
        if self.nodes[node_id].is_running:
            raise AssertionError(f"node {node_id} is running")
        del self.nodes[node_id]

    # ------------------------------------------------------------------------- processes

    async def boot(self, order: Iterable[int] | None = None) -> int:
        """Start all nodes at once (in `order`) and wait until all agree on a leader; returns its id."""
        await self.open_network()
        for node_id in order or sorted(self.nodes):
            self.start(node_id)
        return await self.wait_for_leader(members=len(self.nodes))

    async def open_network(self) -> None:
        """Add every node that is not yet in the network."""
        if self.network is not None:
            for node in self.nodes.values():
                await self.network.add(node.node_id, node.raft, node.grpc_listens)

    def start(self, node_id: int, *arguments: str, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Start a node; returns at once."""
        node = self.nodes[node_id]
        if node.is_running:
            raise AssertionError(f"node {node_id} is already running")
        node.paused = False
        node.process = start_node(
            node.config_file,
            node.console,
            arguments,
            program=node.program,
            environment=environment,
            wrapper=wrapper,
            die_with_parent=True,
        )
        _running.add(node.process)

    def send_signal(self, node_id: int, number: signal.Signals) -> None:
        process = self.nodes[node_id].process
        if process is None:
            raise AssertionError(f"node {node_id} was never started")
        process.send_signal(number)

    async def kill(self, *node_ids: int) -> None:
        """SIGKILL, all at once."""
        for node_id in node_ids:
            self.send_signal(node_id, signal.SIGKILL)
        for node_id in node_ids:
            await self.wait_exit(node_id)

    async def stop(self, node_id: int, number: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        """Ask a node to end; returns its exit code."""
        self.send_signal(node_id, number)
        return await self.wait_exit(node_id, timeout_s)

    async def wait_exit(self, node_id: int, timeout_s: float = DEADLINE_SECONDS) -> int:
        """Exit code of a node that ends by itself (negative: the signal that killed it)."""
        node = self.nodes[node_id]
        await self.wait_until(lambda: not node.is_running, f"node {node_id} to exit", timeout_s)
        return -1 if node.process is None else int(node.process.returncode)

    def pause(self, node_id: int) -> None:
        self.send_signal(node_id, signal.SIGSTOP)
        self.nodes[node_id].paused = True

    def resume(self, node_id: int) -> None:
        self.send_signal(node_id, signal.SIGCONT)
        self.nodes[node_id].paused = False

    async def restart(self, node_id: int) -> None:
        """A clean stop, then a start, and wait until the cluster agrees again."""
        code = await self.stop(node_id)
        if code != 0:
            raise AssertionError(f"node {node_id} exited with {code} when asked to stop\n{self.logs(node_id)}")
        self.start(node_id)
        await self.wait_for_leader()

    def wipe(self, node_id: int) -> None:
        """Delete a stopped node's data."""
        if self.nodes[node_id].is_running:
            raise AssertionError(f"node {node_id} is running")
        shutil.rmtree(self.nodes[node_id].raft_dir, ignore_errors=True)

    # ------------------------------------------------------------------------- questions

    def running(self) -> list[int]:
        """Ids of nodes that run and are not paused."""
        return [node_id for node_id, node in self.nodes.items() if node.is_running and not node.paused]

    async def status(self, node_id: int) -> dict[str, Any] | None:
        """The node's status, None when it does not answer."""
        return await asyncio.to_thread(fetch_status, self.nodes[node_id].admin)

    async def statuses(self) -> dict[int, dict[str, Any] | None]:
        """Statuses of the running nodes."""
        ids = self.running()
        return dict(zip(ids, await asyncio.gather(*map(self.status, ids)), strict=True))

    async def admin(self, node_id: int, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
        """GET an admin route; code and body."""
        code, body = await asyncio.to_thread(fetch, f"http://{self.nodes[node_id].admin}{path}", timeout_s)
        return code, body.decode()

    def client(self, *node_ids: int, timeout_ms: int = TIMEOUT_MS_DEFAULT) -> AsyncClient:
        """A client that knows these nodes, by default all."""
        endpoints = [str(self.nodes[node_id].grpc) for node_id in node_ids or sorted(self.nodes)]
        return AsyncClient(endpoints, timeout_ms=timeout_ms)

    def node_client(self, node_id: int, timeout_s: float = 5.0) -> NodeClient:
        """A client that asks this node only."""
        return NodeClient(self.nodes[node_id].grpc, timeout_s)

    # ------------------------------------------------------------------------- waiting

    async def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_SECONDS) -> None:
        """Poll a cheap condition; DeadlineError with the nodes' last words at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise DeadlineError(f"waited {timeout_s:g} s in vain for {what}\n{self.logs()}")
            await asyncio.sleep(POLL_SECONDS)

    async def wait_for_statuses(
        self,
        accept: Callable[[dict[int, dict[str, Any]]], bool],
        what: str,
        timeout_s: float = DEADLINE_SECONDS,
    ) -> dict[int, dict[str, Any]]:
        """Poll the statuses of the running nodes until all answer and `accept` holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            statuses = await self.statuses()
            answered = {node_id: status for node_id, status in statuses.items() if status is not None}
            if len(answered) == len(statuses) > 0 and accept(answered):
                return answered
            if time.monotonic() > deadline:
                seen = "\n".join(f"node {node_id}: {_brief(status)}" for node_id, status in statuses.items())
                raise DeadlineError(f"waited {timeout_s:g} s in vain for {what}; now:\n{seen}\n{self.logs()}")
            await asyncio.sleep(POLL_SECONDS)

    async def wait_for_leader(
        self, *, other_than: int | None = None, members: int = 0, timeout_s: float = DEADLINE_SECONDS
    ) -> int:
        """Until all running nodes name one leader among them that agrees, and know at least `members` voters."""

        def agreed(statuses: dict[int, dict[str, Any]]) -> bool:
            leaders = {leader_id_of(status) for status in statuses.values()}
            leader = leaders.pop() if len(leaders) == 1 else None
            return (
                leader is not None
                and leader != other_than
                and leader in statuses
                and statuses[leader]["is_leader"]
                and all(len(status["voters"]) >= members for status in statuses.values())
            )

        statuses = await self.wait_for_statuses(agreed, "all running nodes to agree on a leader", timeout_s)
        return next(node_id for node_id, status in statuses.items() if status["is_leader"])

    async def wait_for_ready(self, *node_ids: int, timeout_s: float = DEADLINE_SECONDS) -> None:
        """Until these nodes, by default all that run, say at /readyz that they serve; they are members before that."""
        deadline = time.monotonic() + timeout_s
        for node_id in node_ids or self.running():
            while (problem := await asyncio.to_thread(why_not_ready, self.nodes[node_id].admin)) is not None:
                if time.monotonic() > deadline:
                    raise DeadlineError(f"node {node_id} is not ready: {problem}\n{self.logs()}")
                await asyncio.sleep(POLL_SECONDS)

    async def wait_until_equal(self, timeout_s: float = DEADLINE_SECONDS) -> None:
        """Until all running nodes have applied everything the leader has, with equal sequence numbers."""

        def equal(statuses: dict[int, dict[str, Any]]) -> bool:
            applied = {status["last_applied"]["index"] for status in statuses.values()}
            last = {status["last_log_index"] for status in statuses.values()}
            return applied == last and len(applied) == 1 and len({s["last_seq"] for s in statuses.values()}) == 1

        await self.wait_for_statuses(equal, "all running nodes to have applied the same entries", timeout_s)

    def logs(self, *node_ids: int, lines: int = 25) -> str:
        """The last words of the nodes."""
        parts = []
        for node_id in node_ids or sorted(self.nodes):
            node = self.nodes[node_id]
            state = "never started"
            if node.process is not None:
                state = "running" if node.is_running else f"exited with {node.process.returncode}"
            parts.append(f"--- node {node_id} ({state})")
            parts.extend(last_lines(node.console, lines))
        return "\n".join(parts)


def _brief(status: dict[str, Any] | None) -> str:
    if status is None:
        return "no answer"
    keys = ("state", "current_term", "last_log_index", "last_seq")
    facts = [f"{key}={status.get(key)}" for key in keys]
    voters = [voter["name"] for voter in status.get("voters", [])]
    return f"{' '.join(facts)} applied={status['last_applied']['index']} leader={leader_id_of(status)} voters={voters}"
