"""What a step of the driver does once instead of several times, and what it calls its parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metasrv.model.loop_work import LoopWork
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.core import driver as driver_module
from metasrv.raft.core.messages import AppendEntries, LeaderPing, LeaderSeen, Message, encode_message
from tests.support.raft_bench import NoThread, driver_of, make_bench, noop, regular


def test_entries_for_several_peers_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Message] = []

    def encode(message: Message) -> bytes:
        encoded.append(message)
        return encode_message(message)

    monkeypatch.setattr(driver_module, "encode_message", encode)

    async def body() -> None:
        sent: list[tuple[int, Message]] = []
        driver = driver_of(make_bench(tmp_path), NoThread(), sent)
        entries = AppendEntries(1, 0, 1, 1, ((b"v" * 100_000, 2, 1),), 1)
        # As tuples the last two are equal.
        messages: list[tuple[int, Message]] = [
            (1, entries),
            (3, entries._replace()),
            (4, entries._replace(round=2)),
            (1, LeaderPing(1, 1)),
            (3, LeaderSeen(1, 1)),
        ]
        driver._flush(messages)
        assert [(to, type(message), message) for to, message in sent] == [
            (to, type(message), message) for to, message in messages
        ]
        assert len(encoded) == 4

    asyncio.run(body())


def test_applying_what_a_message_committed_is_called_applying(tmp_path: Path) -> None:
    """It was counted as sending, which sent the reader of the metric to the wrong place."""

    async def body() -> None:
        laps: list[tuple[LoopWork, int]] = []

        class Laps(StepLaps):
            def lap(self, work: LoopWork) -> None:
                laps.append((work, applied()))

        given, thread = Laps(lambda _work, _seconds: None), NoThread()
        bench = make_bench(tmp_path, laps=given)
        applied = bench.engine.applied_index
        driver = driver_of(bench, thread, laps=given)
        driver.incoming(1, encode_message(bench.append(1, (1, 0), [(noop(1), 2, 1), (regular(1), 3, 1)])))
        driver._step()
        assert thread.finish is not None
        thread.finish(None, None)
        driver.incoming(1, encode_message(bench.append(1, (3, 1), [], 3)))
        before = applied()
        laps.clear()
        driver._step()
        driver.stop()
        assert applied() == 3 > before
        assert next(work for work, index in laps if index == 3) is LoopWork.RAFT_APPLY

    asyncio.run(body())
