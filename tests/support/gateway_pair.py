"""A node and a gateway in one process: both ends of a link, with memory between them instead of a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from metasrv.gateway.beginning import beginning_in
from metasrv.gateway.gateway_context import GatewayContext
from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway, FromNode
from metasrv.gateway.node_end import NodeEnd
from metasrv.node.context import NodeContext
from metasrv.testing.fake_consensus import FakeConsensus
from tests.support.grpc_bench import make_context


class MemoryTransport:
    """Carries what is written to the other link, one turn of the loop later; `held` keeps it back."""

    def __init__(self) -> None:
        self.other: Link | None = None
        self.held = False
        self.waiting: list[bytes] = []
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.waiting.append(data)
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        if self.held or self.aborted or self.other is None:
            return
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            self.other.data_received(data)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.waiting))

    def abort(self) -> None:
        self.aborted = True


class Pair:
    """`node` and `gateway` over one state file; `settings` are configuration keys."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.context: NodeContext
        self.consensus: FakeConsensus
        self.context, self.consensus = make_context(directory, **settings)
        self.context.machine.commits_later = True
        self.lost: list[str] = []
        self.served = 0
        self.node = NodeEnd(1, self.context, self._serves, self.lost.append)
        self.link = Link(self._received, self.lost.append)
        self.to_gateway, self.to_node = MemoryTransport(), MemoryTransport()
        self.to_gateway.other, self.to_node.other = self.link, self.node.link
        self.asked: list[int] = []
        """Kinds of the messages that the gateway has got."""
        self._gateway: GatewayContext | None = None

    @property
    def gateway(self) -> GatewayContext:
        assert self._gateway is not None
        return self._gateway

    async def start(self, processes: int = 1) -> Pair:
        self.node.link.connection_made(self.to_gateway)  # type: ignore[arg-type]  # what a link uses of a transport
        self.link.connection_made(self.to_node)  # type: ignore[arg-type]
        self.node.begin(processes, (), 30)
        while self._gateway is None:  # noqa: ASYNC110 - a turn of the loop is what it takes
            await asyncio.sleep(0)
        await self.gateway.until_readable()
        return self

    def close(self) -> None:
        self.node.link.cut("the test is over")
        if self._gateway is not None:
            self._gateway.machine.close()
        self.context.machine.close()

    def _serves(self) -> None:
        self.served += 1

    def _received(self, messages: tuple[Any, ...]) -> None:
        for kind, *fields in messages:
            self.asked.append(kind)
            if kind == FromNode.BEGIN:
                self._gateway = GatewayContext(self.link, beginning_in(*fields))
            elif kind == FromNode.PING:
                self.link.send((FromGateway.PONG,))
            elif kind != FromNode.SETTINGS:
                self.gateway.handles()[kind](*fields)
