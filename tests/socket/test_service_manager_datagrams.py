"""What systemd is told: the datagrams themselves, and silence where nobody listens."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.process.service_manager import ServiceManager


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def heard(listener: socket.socket) -> list[str]:
    texts = []
    while True:
        try:
            texts.append(listener.recv(4096).decode())
        except BlockingIOError:
            return texts


def test_ready_status_and_stopping_are_datagrams(listener: socket.socket) -> None:
    manager = ServiceManager(listener.getsockname())
    manager.status("waiting")
    manager.ready("serves")
    manager.stopping("closing")
    assert heard(listener) == ["STATUS=waiting", "READY=1\nSTATUS=serves", "STOPPING=1\nSTATUS=closing"]


def test_an_abstract_address(tmp_path: Path) -> None:
    name = f"metasrv-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.setblocking(False)
        ServiceManager(f"@{name}").ready("serves")
        assert heard(receiver) == ["READY=1\nSTATUS=serves"]


async def test_the_watchdog_hears_the_living_only(listener: socket.socket) -> None:
    asked = 0
    enough = asyncio.Event()

    def is_alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            enough.set()
        return asked <= 2

    manager = ServiceManager(listener.getsockname(), watchdog_seconds=0.003)
    beating = asyncio.create_task(manager.keep_watchdog(is_alive))
    await enough.wait()
    beating.cancel()
    assert heard(listener) == ["WATCHDOG=1", "WATCHDOG=1"]


async def test_without_a_watchdog_or_a_manager_nothing_is_sent(listener: socket.socket) -> None:
    await ServiceManager(listener.getsockname()).keep_watchdog(lambda: True)
    await ServiceManager(None, 1.0).keep_watchdog(lambda: True)
    ServiceManager(None).ready("serves")
    assert heard(listener) == []


def test_a_manager_that_is_gone_is_mentioned_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        manager.ready("serves")
        manager.stopping("closing")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No such file" in caplog.text
