"""The verdict on a workload notices a lost, a doubled and an invented record, and a wrong history."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.testing.history import Operation
from metasrv.testing.models import Guarded, Step
from metasrv.testing.store import Written
from metasrv.testing.workload import Record, Workload, verdict, wrong_order


def stored(*values: str) -> dict[str, bytes]:
    return {f"log/0/{number:03}": value.encode() for number, value in enumerate(values)}


def test_everything_kept_is_no_problem() -> None:
    record = Record(appended={"a", "b"}, perhaps_appended={"c", "d"})
    assert verdict(record, stored("a", "b", "c")) == []


def test_a_lost_record_is_a_problem() -> None:
    assert verdict(Record(appended={"a", "b"}), stored("a")) == ["acknowledged record 'b' is missing"]


@pytest.mark.parametrize("record", [Record(appended={"a"}), Record(perhaps_appended={"a"})])
def test_a_doubled_record_is_a_problem(record: Record) -> None:
    assert verdict(record, stored("a", "a")) == ["record 'a' is stored 2 times"]


def test_a_record_that_was_refused_and_is_there_is_a_problem() -> None:
    assert verdict(Record(), stored("a")) == ["record 'a' was refused or never sent, and is stored"]


def test_a_wrong_counter_is_a_problem() -> None:
    twice = [Operation(1, "counter/0/0", "add", 1, after, at, at + 0.5) for at, after in ((0, 1), (1, 3))]
    [problem] = verdict(Record(operations=twice), {})
    assert "key 'counter/0/0' is not linearizable" in problem


def test_writes_of_different_keys_in_the_order_of_their_acknowledgements_are_no_problem() -> None:
    assert wrong_order([Written("a", 1, 0.0, 5.0), Written("b", 2, 1.0, 2.0), Written("c", 3, 2.5, 3.0)]) == []


def test_a_write_that_was_acknowledged_first_has_the_smaller_number() -> None:
    [problem] = wrong_order([Written("a", 7, 0.0, 1.0), Written("b", 6, 2.0, 3.0)])
    assert problem == "write 6 of 'b' was sent after write 7 of 'a' was acknowledged"


def test_one_number_for_two_writes_is_a_problem() -> None:
    [problem] = wrong_order([Written("a", 7, 0.0, 1.0), Written("b", 7, 0.0, 1.0)])
    assert "sequence number 7" in problem


def test_unavailability_is_the_longest_gap() -> None:
    record = Record(acknowledged_at=[1.0, 1.5, 4.0, 4.1])
    assert record.unavailable_seconds(1.0, 4.2) == 2.5
    assert record.unavailable_seconds(1.0, 9.0) == pytest.approx(4.9)
    assert record.gap_around(2.0) == 2.5


class MemoryStore:
    """A correct store, or one that executes every third append twice, loses it, or does not know."""

    def __init__(self, fault: str = "") -> None:
        self.values: dict[str, str] = {}
        self.written: list[Written] = []
        self.logs: dict[str, bytes] = {}
        self.fault = fault
        self.appends = 0

    async def read(self, key: str) -> str | None:
        return self.values.get(key)

    async def read_many(self, keys: Sequence[str]) -> tuple[str | None, ...]:
        return tuple(map(self.values.get, keys))

    async def write(self, key: str, value: str, ttl_ms: int | None = None) -> None:
        self.values[key] = value

    async def delete(self, key: str) -> None:
        self.values.pop(key, None)

    async def transact(self, guarded: Guarded) -> tuple[bool, tuple[str | None, ...]]:
        holds = all(self.values.get(key) == expected for key, expected in guarded.conditions)
        if self.fault == "half" and self.appends % 3 == 0:
            return holds, tuple(self._take(step) for step in guarded.then[:1]) + (None,) * (len(guarded.then) - 1)
        return holds, tuple(self._take(step) for step in (guarded.then if holds else guarded.otherwise))

    def _take(self, step: Step) -> str | None:
        before = self.values.get(step.key)
        if step.name == "put":
            self.values[step.key] = str(step.value)
        elif step.name == "delete":
            self.values.pop(step.key, None)
        return before

    async def compare_and_set(self, key: str, old: str | None, new: str) -> bool:
        done = self.values.get(key) == old
        if done:
            self.values[key] = new
        return done

    async def add(self, key: str, delta: int) -> int:
        self.values[key] = str(int(self.values.get(key, "0")) + delta)
        return int(self.values[key])

    async def append(self, prefix: str, value: str) -> str:
        self.appends += 1
        strikes = self.appends % 3 == 0
        if strikes and self.fault == "refuse":
            raise NotDoneError("refused")
        times = {"double": 2, "lose": 0}.get(self.fault, 1) if strikes else 1
        for _ in range(times):
            self.logs[f"{prefix}{len(self.logs):06}"] = value.encode()
        if strikes and self.fault == "unknown":
            raise UnknownOutcomeError("unknown")
        return prefix


@pytest.mark.parametrize(
    ("fault", "symptom"),
    [
        ("", ""),
        ("refuse", ""),
        ("unknown", ""),
        ("double", "is stored 2 times"),
        ("lose", "is missing"),
        ("half", "is not linearizable"),
    ],
)
@pytest.mark.virtual_time
async def test_a_workload_finds_what_its_store_does_wrong(fault: str, symptom: str) -> None:
    store = MemoryStore(fault)
    async with Workload([store] * 4, seed=1, pause_s=0.0001) as workload:
        await workload.wait_for_writes(200)
    problems = verdict(workload.record, store.logs)
    assert bool(problems) is bool(symptom), problems
    assert all(symptom in problem for problem in problems)
