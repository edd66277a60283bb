"""The network that tests break: what it leaves behind when it is closed."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from metasrv.model.types import Endpoint
from metasrv.testing.network import Network, advertised_host, why_unavailable
from metasrv.testing.ports import PortReservation

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_was_just_accepted_is_closed_too(turns: int) -> None:
    network = Network()
    reservation = PortReservation()
    raft, grpc = (Endpoint("127.0.0.1", reservation.take()) for _ in range(2))
    await network.add(1, raft, grpc)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with socket.create_connection((advertised_host(1), raft.port), timeout=10):
            for _ in range(turns):
                await asyncio.sleep(0)
            await network.close()
        del network
        gc.collect()
    reservation.release()
    assert [str(warning.message) for warning in caught] == []
