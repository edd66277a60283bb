"""Puts that are stored together leave, answer and tell what they do one after the other, as in earlier releases."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.types import U64_MAX
from metasrv.state import cached_store, operations
from metasrv.state.format import INLINE_SIZE_BYTES_MAX
from metasrv.state.many_puts import TOGETHER_MIN
from metasrv.state.watch import Watcher
from tests.support.state_bench import NOW_MS, Bench, dump, everything_of

KEYS = [f"key/{number}" for number in range(12)] + ["schlüssel", "鍵"]
SIZES = (0, 1, 100, INLINE_SIZE_BYTES_MAX, INLINE_SIZE_BYTES_MAX + 1, 5_000, 70_000)


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """One that stores together, and one that does not."""
    together, alone = Bench(tmp_path, "together.db"), Bench(tmp_path, "alone.db")
    yield together, alone
    together.machine.close()
    alone.machine.close()


def some_put(chance: random.Random, at_ms: int) -> c.Put:
    value = chance.randbytes(chance.choice(SIZES))
    match_seq = chance.choice((None, None, None, 0, chance.randrange(60)))
    expiry = chance.randrange(8)
    expire_at = {0: at_ms + chance.randrange(-3, 20), 1: at_ms // 1000 + 1, 2: U64_MAX}.get(expiry)
    ttl_ms = chance.randrange(30) if expiry == 3 else None
    return c.Put(chance.choice(KEYS), value, expire_at, ttl_ms, match_seq)


async def entry(benches: tuple[Bench, Bench], command: c.Command, at_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for both; what they answer, remember and tell has to be equal."""
    watchers: list[Watcher] = [bench.machine.watches.subscribe("", "\U0010ffff") for bench in benches]
    replies = []
    for bench, least in zip(benches, (TOGETHER_MIN, sys.maxsize), strict=True):
        monkeypatch.setattr(operations, "TOGETHER_MIN", least)
        replies.append(bench.apply(command, at_ms=at_ms))
    assert replies[0] == replies[1]
    assert await everything_of(watchers[0]) == await everything_of(watchers[1])
    for watcher in watchers:
        watcher.close()
    together, alone = benches
    assert together.machine.state_hash() == alone.machine.state_hash()
    assert together.machine.rows_fit()
    for key in KEYS:
        assert together.machine.get(key, at_ms) == alone.machine.get(key, at_ms), key


@pytest.mark.parametrize("seed", range(4))
async def test_any_puts_do_the_same_together(
    benches: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(cached_store, "CACHE_SIZE_BYTES_MAX", 4_000)  # what was written is soon read from the file
    chance = random.Random(seed)
    at_ms = NOW_MS
    for _ in range(25):
        at_ms += chance.randrange(15)
        puts = tuple(some_put(chance, at_ms) for _ in range(chance.randrange(TOGETHER_MIN - 2, 40)))
        await entry(benches, c.Transaction((), (), puts, ()), at_ms, monkeypatch)
    assert dump(benches[0].path) == dump(benches[1].path)


async def test_a_transaction_that_is_refused_half_way_leaves_nothing(
    benches: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.state.effects.ENTRY_REPLIES_SIZE_BYTES_MAX", 1_000)
    filled = tuple(c.Put(key, b"x" * 100) for key in KEYS)
    await entry(benches, c.Transaction((), (), filled, ()), NOW_MS, monkeypatch)
    again = tuple(c.Put(key, b"y" * 400) for key in KEYS)
    before = benches[0].machine.last_seq
    await entry(benches, c.Transaction((), (), again, ()), NOW_MS, monkeypatch)
    assert benches[0].machine.last_seq == before
    assert benches[0].value(KEYS[0]) == b"x" * 100
    assert dump(benches[0].path) == dump(benches[1].path)


async def test_a_quota_undoes_puts_that_were_stored_together(
    benches: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    for bench in benches:
        bench.apply(c.SetQuota(1_000))
    puts = tuple(c.Put(key, b"x" * 100) for key in KEYS)
    await entry(benches, c.Transaction((), (), puts, ()), NOW_MS, monkeypatch)
    assert benches[0].machine.key_count == 0
