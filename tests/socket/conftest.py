"""Fixtures of the tests that open sockets in their own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.grpc_node import RunningNode, StartNode


@pytest.fixture
async def start_node(tmp_path: Path) -> AsyncIterator[StartNode]:
    """A factory of gRPC listeners that end with the test; `await start_node(**settings)`."""
    nodes: list[RunningNode] = []

    async def start(**settings: Any) -> RunningNode:
        directory = tmp_path / str(len(nodes))
        directory.mkdir()
        nodes.append(RunningNode(directory, **settings))
        return await nodes[-1].start()

    yield start
    for node in nodes:
        await node.stop()
        node.context.machine.close()
