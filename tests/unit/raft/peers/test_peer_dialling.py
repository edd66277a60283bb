"""When a link dials: by itself after a pause, and at once when the peer was heard of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from metasrv.model.errors import PeerUnreachableError
from metasrv.model.types import Endpoint
from metasrv.raft.peers import dialling
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.dialling import PeerLink
from metasrv.raft.peers.handshake import RemoteIdentity
from metasrv.testing.hand_clock import HandClock


class _NobodyAnswers:
    """A dialler whose every attempt fails, and is counted."""

    def __init__(self) -> None:
        self.attempts: asyncio.Queue[Endpoint] = asyncio.Queue()

    async def dial(self, endpoint: Endpoint, *_: Any) -> None:
        self.attempts.put_nowait(endpoint)
        raise PeerUnreachableError(f"{endpoint} cannot be reached: nobody answers")


class _Reasons:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def link_established(self, link: PeerLink) -> None:
        raise AssertionError(link)

    def link_lost(self, link: PeerLink, connection: Connection) -> None:
        raise AssertionError(connection)

    def link_flow_changed(self, link: PeerLink) -> None:
        raise AssertionError(link)

    def link_failed(self, link: PeerLink, reason: str) -> None:
        self.reasons.append(reason)

    def link_sent(self, link: PeerLink, size_bytes: int) -> None:
        raise AssertionError(size_bytes)

    def link_received(self, link: PeerLink, remote: RemoteIdentity, size_bytes: int) -> None:
        raise AssertionError(size_bytes)


async def test_a_peer_that_was_heard_of_is_dialled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "REDIAL_DELAY_MS_MIN", 3_600_000)
    monkeypatch.setattr(dialling, "REDIAL_DELAY_MS_MAX", 3_600_000)
    monkeypatch.setattr(dialling, "HURRIED_DELAY_MS", 0)
    dialler, events = _NobodyAnswers(), _Reasons()
    link = PeerLink(2, Endpoint("127.0.0.1", 1), dialler, events, HandClock())  # type: ignore[arg-type]
    await dialler.attempts.get()
    for _ in range(3):
        for _ in range(5):  # the attempt fails, and the link settles down for an hour
            await asyncio.sleep(0)
        assert dialler.attempts.empty()
        link.hurry()
        await asyncio.wait_for(dialler.attempts.get(), 5)
    link.stop("the test is over")
    await link.wait_stopped()
    assert len(events.reasons) >= 3
    assert link.failure.endswith("nobody answers")
