"""What a client tells its observer, and what prometheus-client makes of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from metasrv.client import AsyncClient
from metasrv.client.observing import ClientMetrics
from metasrv.model.errors import InvalidRequestError, NotDoneError
from metasrv.testing.ports import PortReservation
from tests.support.grpc_node import StartNode


class Heard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.again: list[tuple[str, str]] = []

    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append((method, outcome))

    def sent_again(self, method: str, endpoint: str) -> None:
        self.again.append((method, endpoint))


async def test_an_observer_hears_of_calls_and_of_attempts_that_were_made_again(start_node: StartNode) -> None:
    heard = Heard()
    node = await start_node()
    ports = PortReservation()
    nobody = f"127.0.0.1:{ports.take()}"
    async with AsyncClient([nobody, node.address], timeout_ms=5_000, observer=heard) as client:
        await client.upsert("k", b"v")
        assert await client.get("k") is not None
        watch = client.watch("k", initial_flush=True)
        await anext(watch)
        await watch.aclose()
        with pytest.raises(InvalidRequestError):
            await client.upsert("k" * 5_000, b"v")
    ports.release()
    assert ("Transaction", nobody) in heard.again
    writing, reading, watching, refused = [entry for entry in heard.ended if entry[0] != "MemberList"]
    assert writing == ("Transaction", "success")
    assert reading == ("KvReadV1", "success")
    assert watching == ("Watch", "cancelled")
    assert refused == ("Transaction", "invalid")


async def test_the_metrics_of_a_client_are_in_the_registry_of_its_program(start_node: StartNode) -> None:
    node = await start_node()
    registry = CollectorRegistry()
    metrics = ClientMetrics(registry)
    for _ in range(2):
        async with AsyncClient([node.address], observer=metrics) as client:
            await client.upsert("k", b"v")
    await node.stop()
    with pytest.raises(NotDoneError):
        async with AsyncClient([node.address], timeout_ms=300, observer=metrics) as client:
            await client.get("k")
    count = "metasrv_client_request_seconds_count"
    page = generate_latest(registry).decode()
    assert f'{count}{{method="Transaction",outcome="success"}} 2.0' in page
    assert f'{count}{{method="KvReadV1",outcome="not_done"}} 1.0' in page
    assert f'metasrv_client_retries_total{{endpoint="{node.address}",method="KvReadV1"}}' in page
    with pytest.raises(ValueError, match="Duplicated"):
        ClientMetrics(registry)
