"""Random histories: the machine must answer, store and publish exactly what the plain model does."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.model import commands as c
from metasrv.model.codec import decode_command, encode_command
from metasrv.model.entries import RegularEntry
from metasrv.model.types import LogId
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter, verify_snapshot
from tests.support.state_histories import (
    BASE_MS,
    COMMON_KEYS,
    DELTAS,
    FIXED_EXPIRIES,
    KEYS,
    LARGE,
    NEAR,
    U64,
    VALUES,
    Drawn,
)
from tests.support.state_model import Model, expire_ms

YEAR_5000_MS = 95_617_584_000_000

keys = st.one_of(st.sampled_from(COMMON_KEYS), st.sampled_from(KEYS))
values = st.sampled_from(VALUES)
numbers = st.one_of(st.sampled_from(sorted(NEAR)), st.integers(0, 12), st.sampled_from(LARGE))
maybe = lambda strategy: st.one_of(st.none(), strategy)  # noqa: E731
expiries = maybe(
    st.one_of(
        st.integers(BASE_MS - 5, BASE_MS + 60),
        st.integers(BASE_MS // 1000 - 1, BASE_MS // 1000 + 1),
        st.sampled_from(FIXED_EXPIRIES),
    )
)
ttls = maybe(st.one_of(st.integers(0, 30), st.just(U64)))
operations = st.one_of(
    st.builds(c.Get, keys),
    st.builds(c.Put, keys, values, expiries, ttls, maybe(numbers)),
    st.builds(c.Delete, keys, maybe(numbers)),
    st.builds(c.DeleteByPrefix, keys),
    st.builds(c.FetchIncrease, keys, st.sampled_from(DELTAS), maybe(numbers), numbers),
    st.builds(c.PutSequential, keys, keys, values, expiries, ttls),
)
condition_operands = {
    c.Target.NONE: st.just(0),
    c.Target.VALUE: values,
    c.Target.SEQ: numbers,
    c.Target.KEYS_WITH_PREFIX: numbers,
}
conditions = st.sampled_from(c.Target).flatmap(
    lambda target: st.builds(
        c.Condition, keys, st.just(target), condition_operands[target], st.sampled_from(c.Comparison)
    )
)
few = lambda strategy: st.lists(strategy, max_size=3).map(tuple)  # noqa: E731
expressions = st.recursive(
    st.builds(c.Expression, st.sampled_from(c.Combine), st.just(()), few(conditions)),
    lambda inner: st.builds(c.Expression, st.sampled_from(c.Combine), few(inner), few(conditions)),
    max_leaves=4,
)
branches = few(st.builds(c.Branch, maybe(expressions), few(operations)))
matches = st.builds(c.MatchSeq, st.sampled_from(c.MatchKind), numbers)
one = lambda strategy: st.tuples(strategy)  # noqa: E731
nothing = st.just(())
upserts = st.builds(c.Upsert, keys, matches, st.sampled_from(c.Operation), values, expiries, ttls)
lone_operations = st.builds(c.Transaction, nothing, nothing, one(operations), nothing)
lone_conditions = st.builds(c.Transaction, nothing, one(conditions), one(operations), one(operations))
commands = st.one_of(
    upserts,
    lone_operations,
    lone_conditions,
    st.builds(c.Transaction, branches, few(conditions), few(operations), few(operations)),
    st.builds(c.Transaction, nothing, nothing, few(operations), nothing),
    st.builds(c.BranchTransaction, branches),
)
entries = st.tuples(st.integers(-20, 40).map(lambda offset: BASE_MS + offset), st.lists(commands, max_size=6).map(tuple))
actions = st.lists(
    st.one_of(entries, entries, entries, entries, st.sampled_from(["reopen", "snapshot"])), min_size=3, max_size=12
)


def resolved(value: Any, model: Model) -> Any:
    """The command with every number of NEAR turned into one near what it will be compared with."""
    if isinstance(value, c.Condition) and value.target is not c.Target.VALUE:
        there = model.seq_of(value.key) if value.target is c.Target.SEQ else model.count_of(value.key)
        return value._replace(operand=_near(value.operand, there))
    if isinstance(value, c.Put | c.Delete | c.FetchIncrease):
        return value._replace(match_seq=_near(value.match_seq, model.seq_of(value.key)))
    if isinstance(value, c.Upsert):
        match = value.match._replace(seq=_near(value.match.seq, model.seq_of(value.key)))
        return value._replace(match=match)
    if not isinstance(value, tuple):
        return value
    parts = [resolved(part, model) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _near(number: Any, there: int) -> Any:
    return max(0, there + NEAR[number]) if number in NEAR else number


async def drained(machine: StateMachine, watcher: object) -> list[tuple[str, object, object]]:
    """Everything that waits for a watcher."""
    found = []
    while watcher._queue:
        found += [(item.key, item.prev, item.current) for item in await watcher.next_batch()]
    return found


def compare(machine: StateMachine, model: Model) -> None:
    stored = machine.open_reader()
    assert dict(stored.records()) == model.records
    assert [key for key, _ in stored.records()] == sorted(model.records)
    stored.close()
    assert machine.last_seq == model.seq
    assert machine.last_time_ms == model.time_ms
    assert machine.key_count == len(model.records)
    assert machine.expire_count == sum(record.meta.expire_at is not None for record in model.records.values())
    expiries_ms = {
        expire_ms(record.meta.expire_at) for record in model.records.values() if record.meta.expire_at is not None
    }
    moments = {at + later for at in expiries_ms if at < YEAR_5000_MS for later in (0, 1)}
    for now_ms in {BASE_MS, *moments}:
        compare_reads(machine, model, now_ms)


def compare_reads(machine: StateMachine, model: Model, now_ms: int) -> None:
    visible = {
        key: record
        for key, record in model.records.items()
        if record.meta.expire_at is None or not expire_ms(record.meta.expire_at) < now_ms
    }
    assert dict(machine.list_prefix("", None, now_ms)) == visible
    for prefix in ("a", "a/", "\U0010ffff", "\ud7ff"):
        found = machine.list_prefix(prefix, None, now_ms)
        assert found == sorted(item for item in visible.items() if item[0].startswith(prefix))
    wanted = [*sorted(model.records), "absent"]
    assert machine.get_many(wanted, now_ms) == [visible.get(key) for key in wanted]


def run_history(directory: Path, history: list[object], watched: bool) -> int:
    """Returns how many entries were applied."""
    path = str(directory / "state.db")
    model, machine = Model(), StateMachine.open(path)
    everything = ("", "\U0010ffff\U0010ffff")
    watcher = machine.watches.subscribe(*everything) if watched else None
    index = 0
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
                assert asyncio.run(drained(machine, watcher)) == [event for event in model.events if event[1] != event[2]]
        if action in ("reopen", "snapshot") and watched:
            watcher = machine.watches.subscribe(*everything)
        compare(machine, model)
    machine.close()
    return index


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=actions, watched=st.booleans())
def test_random_histories_agree_with_the_model(history: list[object], watched: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        applied = run_history(Path(directory), history, watched)
    assert applied == sum(action not in ("reopen", "snapshot") for action in history)


@pytest.mark.parametrize("seed", range(20))
def test_long_random_histories_agree_with_the_model(seed: int, tmp_path: Path) -> None:
    history = Drawn(seed).history(entries=150)
    applied = run_history(tmp_path, history, watched=bool(seed % 2))
    assert applied == sum(action not in ("reopen", "snapshot") for action in history)
