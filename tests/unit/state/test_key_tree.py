"""One level of the tree of keys against a plain count, for random keys; groups that are not counted to their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.entries import RegularEntry
from metasrv.model.types import LogId
from metasrv.state import key_tree as module
from metasrv.state.format import INLINE_SIZE_BYTES_MAX
from metasrv.state.key_tree import KeyGroup, KeyTree, key_tree
from metasrv.state.machine import StateMachine

TIME_MS = 1_700_000_000_000


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


def put(machine: StateMachine, records: dict[str, bytes]) -> None:
    commands = tuple(Upsert(key, MatchSeq(MatchKind.ANY), Operation.UPDATE, value) for key, value in records.items())
    last = machine.last_applied
    machine.apply_entry(LogId(1, last.index + 1, 1), RegularEntry(TIME_MS + last.index, 1, commands))


def level(
    machine: StateMachine, prefix: str = "", delimiter: str = "/", limit: int = 100, seconds: float = 1.0
) -> KeyTree:
    with machine.open_reader() as reader:
        return key_tree(reader, prefix, delimiter, limit, lambda: seconds, TIME_MS)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.sets(st.text(st.sampled_from("ab/é\U0010ffff"), min_size=1, max_size=6), max_size=20),
    prefix=st.text(st.sampled_from("a/é\U0010ffff"), max_size=2),
)
def test_it_counts_as_a_plain_count_does(tmp_path: Path, keys: set[str], prefix: str) -> None:
    machine = StateMachine.open(str(tmp_path / f"{abs(hash((frozenset(keys), prefix)))}.db"))
    try:
        put(machine, {key: key.encode() for key in keys} or {"unused": b""})
        groups: dict[str, list[int]] = {}
        records = []
        for key in sorted(keys or {"unused"}, key=str.encode):
            if key.startswith(prefix):
                head, slash, _ = key[len(prefix) :].partition("/")
                if slash:
                    groups.setdefault(prefix + head + slash, []).append(2 * len(key.encode()) if keys else len(key))
                else:
                    records.append(key)
        found = level(machine, prefix)
        assert {group.prefix: (group.keys, group.size_bytes) for group in found.groups} == {
            name: (len(sizes), sum(sizes)) for name, sizes in groups.items()
        }
        assert [record.key for record in found.records] == records
        assert not found.more
    finally:
        machine.close()


def test_large_values_count_with_their_size_and_expired_ones_not_at_all(machine: StateMachine) -> None:
    large = b"x" * (INLINE_SIZE_BYTES_MAX + 1)
    put(machine, {"dir/large": large, "large": large})
    found = level(machine)
    assert found.groups == (KeyGroup("dir/", 1, len("dir/large") + len(large)),)
    assert [(record.key, record.size_bytes) for record in found.records] == [("large", len(large))]
    expiring = Upsert("soon", MatchSeq(MatchKind.ANY), Operation.UPDATE, b"v", TIME_MS + 5_000)
    machine.apply_entry(LogId(1, machine.last_applied.index + 1, 1), RegularEntry(TIME_MS + 10, 1, (expiring,)))
    (_, soon) = level(machine).records
    assert (soon.key, soon.expires_at_ms) == ("soon", TIME_MS + 5_000)
    with machine.open_reader() as reader:
        later = key_tree(reader, "", "", 100, lambda: 1.0, TIME_MS + 5_001)
    assert [record.key for record in later.records] == ["dir/large", "large"], "an empty delimiter shows records alone"


def test_what_is_left_out_is_said(machine: StateMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    put(machine, {f"dir/{number}": b"" for number in range(5)} | {"a": b""})
    assert (len(level(machine, limit=1).records), level(machine, limit=1).more) == (1, True)
    monkeypatch.setattr(module, "COUNT_PAGE_RECORDS", 2)
    assert level(machine).groups[0].keys == 5, "page by page"
    left = iter([1.0, 1.0, 0.0])
    with machine.open_reader() as reader:
        found = key_tree(reader, "", "/", 100, lambda: next(left), TIME_MS)
    assert (found.groups[0].keys, found.more) == (2, True), "as far as it was counted"
