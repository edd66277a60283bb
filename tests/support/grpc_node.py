"""A node's gRPC listener in the process of the test: the real wire, over a consensus that commits at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from metasrv.grpc_api.service import GrpcService
from metasrv.model.types import Endpoint, Node
from metasrv.testing.hand_clock import HandClock
from tests.support.grpc_bench import make_context

StartNode = Callable[..., Awaitable["RunningNode"]]


class RunningNode:
    """One node's listener; `settings` are configuration keys."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.context, self.consensus = make_context(directory, **settings)
        self.service = GrpcService(self.context)
        self.address = ""

    @property
    def clock(self) -> HandClock:
        assert isinstance(self.context.clock, HandClock)
        return self.context.clock

    async def start(self) -> RunningNode:
        self.address = str(await self.service.start())
        return self

    async def stop(self, grace_ms: int = 0) -> None:
        await self.service.stop(grace_ms)

    def name_leader(self, address: str) -> None:
        """From now on a follower whose leader's clients dial `address`."""
        self.consensus.change(nodes={2: Node(2, Endpoint("localhost", 1), "", address)})
        self.consensus.follow(2)
