"""Runs a history of entries on the state machine and on the plain model: answers, records and events must be equal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from metasrv.model.codec import decode_command, encode_command
from metasrv.model.entries import RegularEntry
from metasrv.model.types import LogId
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter, verify_snapshot
from metasrv.state.watch import Watcher
from tests.support.state_histories import BASE_MS
from tests.support.state_model import Model, expiry_of
from tests.support.state_strategies import resolved

YEAR_5000_MS = 95_617_584_000_000


async def drained(watcher: Watcher) -> list[tuple[str, object, object]]:
    """Everything that waits for a watcher."""
    found: list[tuple[str, object, object]] = []
    while watcher._queue:
        found += [(item.key, item.prev, item.current) for item in await watcher.next_batch()]
    return found


def compare(machine: StateMachine, model: Model) -> None:
    with machine.open_reader() as stored:
        assert dict(stored.records()) == model.records
        assert [key for key, _ in stored.records()] == sorted(model.records)
    assert machine.last_seq == model.seq
    assert machine.last_time_ms == model.time_ms
    assert machine.limits == (model.read_only, model.read_only_since_ms, model.quota_bytes)
    assert machine.data_size_bytes == model.size_bytes()
    assert machine.key_count == len(model.records)
    assert machine.expire_count == sum(expiry_of(record) is not None for record in model.records.values())
    expiries_ms = {expiry for record in model.records.values() if (expiry := expiry_of(record)) is not None}
    moments = {at + later for at in expiries_ms if at < YEAR_5000_MS for later in (0, 1)}
    for now_ms in {BASE_MS, *moments}:
        compare_reads(machine, model, now_ms)


def compare_reads(machine: StateMachine, model: Model, now_ms: int) -> None:
    visible = model.visible(now_ms)
    assert dict(machine.list_prefix("", None, now_ms)) == visible
    for prefix in ("a", "a/", "\U0010ffff", "\ud7ff"):
        found = machine.list_prefix(prefix, None, now_ms)
        assert found == sorted(item for item in visible.items() if item[0].startswith(prefix))
    wanted = [*sorted(model.records), "absent"]
    assert machine.get_many(wanted, now_ms) == [visible.get(key) for key in wanted]


def run_history(directory: Path, history: list[Any], watched: bool) -> int:
    """Returns how many entries were applied."""
    path = str(directory / "state.db")
    model, machine = Model(), StateMachine.open(path)
    everything = ("", "\U0010ffff\U0010ffff")
    watcher = machine.watches.subscribe(*everything) if watched else None
    index = 0
    try:
        for action in history:
            if action == "reopen":
                machine.close()
                machine = StateMachine.open(path)
            elif action == "snapshot" and index > 0:
                writer = SnapshotWriter(path)
                log_id = writer.pin()
                tail = SnapshotTail((b"before", index - 1, 1), (b"last", index, 1))
                info = writer.write(str(directory / "copy.snap"), tail)
                assert info.log_id == log_id == machine.last_applied
                assert verify_snapshot(info.path, info.sha256) == verify_snapshot(info.path) == info
                assert machine.install(info.path) == tail == machine.installed_tail()
            elif action not in ("reopen", "snapshot"):
                time_ms, batch = action
                batch = tuple(decode_command(encode_command(resolved(command, model))) for command in batch)
                index += 1
                model.events.clear()
                replies = machine.apply_entry(LogId(1, index, 1), RegularEntry(time_ms, 1, batch))
                assert list(replies) == model.apply(time_ms, batch)
                if watcher is not None:
                    assert asyncio.run(drained(watcher)) == [event for event in model.events if event[1] != event[2]]
            if action in ("reopen", "snapshot") and watched:
                watcher = machine.watches.subscribe(*everything)
            compare(machine, model)
    finally:
        machine.close()
    return index
