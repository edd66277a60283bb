"""A node and a gateway on another machine in one process: both ends of the link, with memory instead of a connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from metasrv.config.model import Config
from metasrv.gateway.messages import REMOTE_VERSION, FromGateway
from metasrv.gateway.remote_context import RemoteContext
from metasrv.gateway.remote_gateways import RemoteGateways
from metasrv.gateway.remote_process import RemoteGateway
from metasrv.model.errors import MetasrvError
from metasrv.model.wire import pack
from metasrv.raft.peers.gateway_streams import GatewayStream
from metasrv.raft.peers.security import PeerSecurity
from tests.support.grpc_bench import make_context


class MemoryConnection:
    """Carries payloads to the stream at the other end, one turn of the loop later; `held` keeps them back."""

    address = "memory"

    def __init__(self) -> None:
        self.other: GatewayStream | None = None
        self.own: GatewayStream | None = None
        self.peer: MemoryConnection | None = None
        self.held = False
        self.waiting: list[bytes] = []
        self.sent: list[bytes] = []
        self.ended = ""

    @property
    def buffered_bytes(self) -> int:
        return sum(map(len, self.waiting))

    def send_gateway(self, payload: bytes) -> None:
        self.sent.append(payload)
        self.waiting.append(payload)
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        while self.waiting and not self.held and self.other is not None and self.peer is not None and not self.peer.ended:
            payload = self.waiting.pop(0)
            try:
                self.other.frame_received(payload)
            except MetasrvError as error:  # as a connection does
                self.peer.abort(str(error))

    def abort(self, reason: str) -> None:
        for end in (self, self.peer):
            if end is not None and not end.ended:
                end.ended = reason
                if end.own is not None:
                    asyncio.get_running_loop().call_soon(end.own.connection_lost, reason)

    close = abort


class RemotePair:
    """`node` side and `gateway` side; `settings` are configuration keys of the node."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.node, self.consensus = make_context(directory, **settings)
        self.gateways = RemoteGateways(self.node)
        self.gateway = RemoteGateway(Config(gateway_nodes=("host:1",)), "", PeerSecurity())
        self.link()

    def link(self) -> None:
        """Begin a link, without a word."""
        self.to_node, self.to_gateway = MemoryConnection(), MemoryConnection()
        self.to_node.peer, self.to_gateway.peer = self.to_gateway, self.to_node
        self.to_node.other = self.to_gateway.own = self.gateways.begin(self.to_gateway)
        self.to_gateway.other = self.to_node.own = self.gateway.link.attach(self.to_node)

    async def greet(self, version: int = REMOTE_VERSION) -> RemotePair:
        """Say the first words, and wait for the answer."""
        self.gateway.link.send((FromGateway.GREET, version, "g1", "0.0.0"))
        await turns()
        return self

    async def say(self, *message: Any) -> None:
        """What a gateway that is not ours may send."""
        self.to_node.send_gateway(b"\0" + pack((message,)))
        await turns()

    @property
    def context(self) -> RemoteContext:
        assert self.gateway.context is not None
        return self.gateway.context

    def close(self) -> None:
        self.to_node.abort("the test is over")
        self.node.machine.close()


async def turns(count: int = 20) -> None:
    """Some turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
