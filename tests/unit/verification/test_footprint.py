"""What counts as growth in the samples of a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metasrv.model.limits import MIB
from verification.footprint import DESCRIPTORS, MEMORY, STATE_LOG, THREADS, footprint_of, growths, table


def problems(what: str, values: list[int], limit: int | None = None) -> list[str]:
    limits = {} if limit is None else {what: limit}
    return [one.problem for one in growths([{what: value} for value in values], limits) if one.problem]


@pytest.mark.parametrize(
    ("what", "step"),
    [("raft.db-wal", 5 * MIB), (STATE_LOG, 20 * MIB), (MEMORY, 40 * MIB), (DESCRIPTORS, 40), (THREADS, 3)],
)
def test_steady_growth_is_seen(what: str, step: int) -> None:
    assert problems(what, [step * number for number in range(1, 31)]) == ["grows"]


@pytest.mark.parametrize("what", ["state.db-wal", MEMORY, DESCRIPTORS, THREADS])
def test_what_grows_at_first_and_then_stays_does_not_grow(what: str) -> None:
    assert problems(what, [*range(10), *[10] * 20]) == []


def test_what_comes_and_goes_does_not_grow() -> None:
    assert problems("state.db-wal", [number % 5 * 8 * MIB for number in range(30)]) == []


def test_the_states_log_may_wait_for_readers_up_to_four_times_its_target() -> None:
    assert problems(STATE_LOG, [*[18 * MIB] * 20, *[70 * MIB] * 10]) == []
    assert problems(STATE_LOG, [*[18 * MIB] * 20, *[90 * MIB] * 10]) == ["grows"]


@pytest.mark.parametrize(("limit", "said"), [(10, []), (9, ["is past its limit of 9"])])
def test_a_limit_holds_from_the_beginning(limit: int, said: list[str]) -> None:
    assert problems("state.db", [10, *[1] * 10], limit) == said


def test_a_file_that_is_gone_counts_as_empty() -> None:
    (verdict,) = growths([{"a": 5}, *[{} for _ in range(6)]], {})
    assert (verdict.earlier, verdict.later, verdict.largest) == (0, 0, 5)


def test_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="5 samples"):
        growths([{}] * 5, {})


def test_the_footprint_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"x" * 100)
    (tmp_path / "snapshot").mkdir()
    for name in ("1.snap", "2.snap"):
        (tmp_path / "snapshot" / name).write_bytes(b"x" * 10)
    found = footprint_of(os.getpid(), tmp_path)
    assert (found["state.db"], found["snapshots"]) == (100, 20)
    assert found[THREADS] >= 1
    assert found[DESCRIPTORS] >= 3
    assert found[MEMORY] > 5 * MIB
    lines = table(1, growths([found] * 9, {}))
    assert len(lines) == 1 + len(found)
    assert "node 1" in lines[0]
