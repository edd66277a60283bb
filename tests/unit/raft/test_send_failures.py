"""The metric of messages that could not be sent counts messages, not the modules that notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.types import Endpoint
from metasrv.raft.core.messages import TimeoutNow
from metasrv.raft.peers.peer_handler import OneShotHandler
from metasrv.raft.peers.transport import LocalIdentity, PeerSecurity, PeerTransport
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import NoThread, driver_of, make_bench


def test_a_message_that_cannot_be_sent_is_counted_once(tmp_path: Path) -> None:
    async def body() -> None:
        bench, metrics, clock = make_bench(tmp_path), MetricsRegistry("0", "0"), HandClock()
        identity = LocalIdentity(2, "directory-2", Endpoint("127.0.0.1", 28102), None)
        transport = PeerTransport(identity, PeerSecurity(), OneShotHandler(), metrics, clock)
        driver = driver_of(bench, NoThread(), send=transport.send)
        bench.core._outgoing(3, TimeoutNow(1))
        driver._step()
        driver.stop()
        assert metrics.peers.send_failed.values == {"3": 1}

    asyncio.run(body())
