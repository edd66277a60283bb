"""How far the log is purged: what a peer needs behind its snapshot stays, within a bound."""

from __future__ import annotations

from typing import Any

import pytest

from metasrv.model.limits import LOG_MEMORY_BYTES_HELD_MAX, LOG_MEMORY_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.raft import compaction
from metasrv.raft.compaction import Compaction
from metasrv.raft.log.storage_thread import InlineStorage


class Log:
    def __init__(self, first_index: int) -> None:
        self.bytes_in_memory = 0
        self.first_index = first_index
        self.purged_to: list[int] = []

    def purge_to(self, index: int) -> None:
        self.purged_to.append(index)
        self.first_index = index


class Machine:
    path = "state.db"

    def __init__(self) -> None:
        self.last_applied = LogId()
        self.committed_index = 0

    def commit(self) -> None:
        self.committed_index = self.last_applied.index


class Floor:
    def __init__(self, index: int | None) -> None:
        self.index = index

    def purge_floor(self) -> int | None:
        return self.index


def purged(
    monkeypatch: pytest.MonkeyPatch,
    size_bytes: int,
    floor: int | None,
    *,
    first: int = 1,
    last: int = 1_000,
    steps: int = 1,
    asked: int | None = None,
) -> list[int]:
    """Where a log from `first` on is purged to when entries up to `last` were applied and 10 are to be kept."""
    monkeypatch.setattr(compaction, "_make_durable", lambda _path: None)
    log, machine = Log(first), Machine()
    parts: dict[str, Any] = {"store": log, "snapshots": Floor(floor), "machine": machine}
    kept = Compaction(
        **parts,
        thread=InlineStorage(lambda done: done()),
        logs_since_last=100,
        logs_to_keep=10,
        failed=lambda error: pytest.fail(str(error)),
    )
    machine.last_applied = LogId(1, last, 1)
    log.bytes_in_memory = size_bytes
    if asked is not None:
        kept.ask(asked)
        assert not kept.is_over()
    for _ in range(steps):
        kept.consider()
    assert not log.purged_to or machine.committed_index == last, "what is synced was committed before"
    assert asked is None or kept.is_over()
    return log.purged_to


def test_what_an_operator_asks_for_goes_as_far_as_it_is_durable_and_nobody_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert purged(monkeypatch, 0, None, last=50, asked=45) == [45], "less was applied than the policy waits for"
    assert purged(monkeypatch, 0, None, last=50, asked=60) == [50]
    assert purged(monkeypatch, 0, 20, last=50, asked=45) == [20]
    assert purged(monkeypatch, 0, None, last=50, asked=0) == [40]
    assert purged(monkeypatch, 0, None, last=10_010, steps=5, asked=10_010) == [4_097, 8_193, 10_010]


def test_the_configured_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert purged(monkeypatch, 0, None) == [990]
    assert purged(monkeypatch, LOG_MEMORY_BYTES_MAX, None) == [990]
    assert purged(monkeypatch, LOG_MEMORY_BYTES_MAX + 1, None) == [999], "less, when the log is large"


def test_what_a_peer_needs_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert purged(monkeypatch, 0, 500) == [500]
    assert purged(monkeypatch, LOG_MEMORY_BYTES_HELD_MAX, 500) == [500]
    assert purged(monkeypatch, 0, 995) == [990], "it needs no more than is kept anyway"


def test_a_large_log_is_purged_early_unless_a_peer_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert purged(monkeypatch, LOG_MEMORY_BYTES_MAX + 1, None, last=50) == [49]
    assert purged(monkeypatch, LOG_MEMORY_BYTES_MAX + 1, 20, last=50) == [20]
    held = purged(monkeypatch, LOG_MEMORY_BYTES_MAX + 1, 20, first=20, last=50)
    assert held == [], "syncing again and again would free nothing"


def test_a_peer_that_hangs_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert purged(monkeypatch, LOG_MEMORY_BYTES_HELD_MAX + 1, 500) == [500], "first what nobody needs"
    assert not caplog.text
    assert purged(monkeypatch, LOG_MEMORY_BYTES_HELD_MAX + 1, 500, first=500, last=520) == [519], "at once"
    assert "the log is purged although a peer that is sent a snapshot needs it" in caplog.text


def test_a_long_purge_is_done_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert purged(monkeypatch, 0, None, last=10_010, steps=5) == [4_097, 8_193, 10_000]
