"""Fixtures of the tests that open sockets in their own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.grpc_node import RunningNode, StartNode


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asyncio's loop, unless the test's asyncio mark names others."""
    del config
    marker = item.get_closest_marker("asyncio")
    if marker is None or "loop_factories" not in marker.kwargs:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
