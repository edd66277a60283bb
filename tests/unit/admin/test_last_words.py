"""A node that ends for a fault tells why and stays for some seconds; one that ends in order does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.admin import last_words
from metasrv.config.model import Config, RaftConfig
from metasrv.console.console import Console
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status

FATAL = "state.db: the state file could not be read or written: database or disk is full"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it waited, without waiting."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr("metasrv.admin.last_words.asyncio.sleep", sleep)
    return seconds


def node(machine: StateMachine, directory: Path, fatal: str | None) -> NodeContext:
    config = Config(raft_config=RaftConfig(id=1, raft_dir=str(directory)))
    return fake_context(machine, config, sample_status(fatal=fatal))[0]


async def test_a_fault_is_an_event_and_the_directory_is_looked_at_again(
    machine: StateMachine, tmp_path: Path, waited: list[float]
) -> None:
    context = node(machine, tmp_path / "gone", FATAL)
    console = Console(context)
    await last_words.say_why(context, console)
    assert waited == [last_words.LAST_WORDS_SECONDS]
    why, disk = context.events.after(0)[:2]
    assert (why.kind, why.severity, why.text) == ("stop", "critical", f"node 1 ends: {FATAL}")
    assert (disk.kind, disk.severity) == ("disk", "critical")
    assert "cannot be written" in disk.text
    checks = {check.name: check for check in console.own.summary(context.consensus.status()).checks}
    assert checks["engine"].reason == f"the engine has stopped: {FATAL}"
    assert not checks["data_directory"].passed
    await asyncio.gather(*console._tasks)


async def test_an_orderly_end_waits_for_nothing(machine: StateMachine, tmp_path: Path, waited: list[float]) -> None:
    context = node(machine, tmp_path, None)
    await last_words.say_why(context, Console(context))
    assert waited == []
    assert context.events.after(0) == ()


async def test_a_node_whose_files_are_gone_ends_at_once(
    machine: StateMachine,
    tmp_path: Path,
    waited: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = node(machine, tmp_path, FATAL)
    console = Console(context)

    def gone() -> None:
        raise FileNotFoundError(2, "No such file or directory", "snapshot")

    monkeypatch.setattr(context.consensus, "status", gone)
    with caplog.at_level("INFO"):
        await last_words.say_why(context, console)
    assert waited == []
    assert "nothing more can be told of this node" in caplog.text
