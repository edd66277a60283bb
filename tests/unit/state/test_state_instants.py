"""Instants: what a reader of several keys sees while the state goes on changing, and what is kept for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import ViewLostError
from metasrv.model.limits import INSTANTS_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.model.sizes import size_text
from metasrv.state import instants
from metasrv.state.machine import StateMachine
from tests.support.state_bench import NOW_MS, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def kept(bench: Bench) -> int:
    return bench.machine.instants.kept_count


def test_an_instant_shows_what_was_there_whatever_happens_since(bench: Bench) -> None:
    for key in ("changed", "deleted", "p/1", "p/2", "same"):
        bench.put(key, b"old")
    with bench.machine.open_instant() as instant:
        bench.put("changed", b"new")
        bench.run(c.Put("changed", b"newer"), c.Put("changed", b"newest"), c.Put("born", b"new"))
        bench.run(c.Delete("deleted", None), c.DeleteByPrefix("p/"))
        values = {key: instant.get(key, NOW_MS) for key in ("changed", "deleted", "p/1", "p/2", "same")}
        assert {key: record and record.data for key, record in values.items()} == dict.fromkeys(values, b"old")
        assert instant.get("born", NOW_MS) is None
        assert bench.value("changed") == b"newest"


def test_what_expires_meanwhile_stays_until_the_time_of_the_reader(bench: Bench) -> None:
    bench.put("lease", b"1", ttl_ms=1_000)
    with bench.machine.open_instant() as instant:
        bench.put("other", at_ms=NOW_MS + 5_000)  # sweeps the lease
        assert bench.machine.get("lease", NOW_MS) is None
        assert instant.get("lease", NOW_MS) is not None
        assert instant.get("lease", NOW_MS + 1_001) is None, "the reader's own time hides it"


def test_instants_of_different_moments_differ(bench: Bench) -> None:
    opened = []
    for number in range(5):
        bench.put("key", b"%d" % number)
        opened.append(bench.machine.open_instant())
    bench.put("key", b"last")
    for number, instant in enumerate(opened):
        record = instant.get("key", NOW_MS)
        assert record is not None
        assert record.data == b"%d" % number


@pytest.mark.parametrize("seed", range(5))
def test_many_instants_agree_with_copies_of_the_state(bench: Bench, seed: int) -> None:
    source = random.Random(seed)
    keys = [f"{group}/{number}" for group in "ab" for number in range(6)]
    copies: list[tuple[instants.Instant, dict[str, bytes]]] = []
    for step in range(300):
        match source.randrange(8):
            case 0:
                records = bench.machine.list_prefix("", None, NOW_MS)
                copies.append((bench.machine.open_instant(), {key: record.data for key, record in records}))
            case 1 if copies:
                copies.pop(source.randrange(len(copies)))[0].close()
            case 2:
                bench.run(c.DeleteByPrefix(source.choice("ab")))
            case 3:
                bench.run(c.Delete(source.choice(keys), None))
            case _:
                bench.run(*(c.Put(source.choice(keys), b"%d" % step) for _ in range(source.randint(1, 3))))
        for instant, copy in copies:
            for key in keys:
                record = instant.get(key, NOW_MS)
                assert (record and record.data) == copy.get(key), (step, key)


def test_nothing_is_kept_without_a_reader_and_nothing_after_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("key")
    assert kept(bench) == 0
    monkeypatch.setattr(instants, "_FORGOTTEN_AT_ONCE", 4)
    first, second = bench.machine.open_instant(), bench.machine.open_instant()
    first.close()
    for _ in range(10):
        bench.put("key")
    assert kept(bench) == 10
    second.close()
    second.close()
    bench.put("key")
    assert kept(bench) == 6, "it is given back in pieces, with the next entries"
    bench.put("key")
    bench.put("key")
    assert kept(bench) == 0


def test_what_newer_instants_need_stays(bench: Bench) -> None:
    bench.put("key", b"1")
    older = bench.machine.open_instant()
    bench.put("key", b"2")
    newer = bench.machine.open_instant()
    bench.put("key", b"3")
    older.close()
    bench.put("other")
    assert kept(bench) == 2, "of the three changes the first is needed by nobody"
    record = newer.get("key", NOW_MS)
    assert record is not None
    assert record.data == b"2"


def test_the_oldest_instants_are_lost_where_more_would_have_to_be_kept(bench: Bench) -> None:
    value = bytes(VALUE_SIZE_BYTES_MAX // 4)
    bench.put("key", value)
    told: list[str] = []
    first = bench.machine.open_instant()
    first.on_lost = lambda: told.append(first.lost)
    fits = INSTANTS_SIZE_BYTES_MAX // len(value) - 1
    for _ in range(fits):
        bench.put("key", value)
    second = bench.machine.open_instant()
    assert first.get("key", NOW_MS) is not None
    assert told == []
    bench.put("key", value)
    assert len(told) == 1
    with pytest.raises(ViewLostError, match=size_text(INSTANTS_SIZE_BYTES_MAX)):
        first.get("key", NOW_MS)
    assert second.get("key", NOW_MS) is not None
    assert kept(bench) == 1, "what the first needed is given back"


def test_a_state_that_is_replaced_ends_all_instants(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    for number in range(5):
        other.put(f"key/{number}")
    info = other.snapshot("snapshot")
    bench = Bench(tmp_path)
    bench.put("key")
    instant = bench.machine.open_instant()
    bench.put("key")
    machine: StateMachine = bench.machine
    machine.install(info.path)
    with pytest.raises(ViewLostError, match="replaced by a snapshot"):
        instant.get("key", NOW_MS)
    assert (len(machine.instants), kept(bench)) == (0, 0)
    machine.close()
    other.machine.close()
