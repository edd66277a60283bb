"""Which copy is wrong when hashes differ, what a node does about it, and where two copies differ first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.consensus import CopyState
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError
from metasrv.model.types import Endpoint, Member, Membership
from metasrv.node import differing_range
from metasrv.node.copies import CopyComparison, Verdict, judge
from metasrv.node.damage import CopyHealth
from metasrv.node.differing_range import first_differing_range
from metasrv.node.findings import CopyFindings
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.state_hashes import EVERY_ENTRIES, KEPT, StateHashes
from metasrv.state.scrubbing import RangeDigests, range_digests
from metasrv.testing.hand_clock import HandClock
from tests.support.state_bench import Bench

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def membership(*voters: int, learners: tuple[int, ...] = ()) -> Membership:
    return Membership(
        {i: Member(Endpoint("h", i), "x") for i in voters}, {i: Member(Endpoint("h", i), "x") for i in learners}
    )


THREE = membership(1, 2, 3)


@pytest.mark.parametrize(
    ("copies", "members", "verdicts"),
    [
        ({1: {5: A}, 2: {5: A}, 3: {5: A}}, THREE, [Verdict(5, frozenset(), False, True)]),
        ({1: {5: A}, 2: {5: B}, 3: {5: B}}, THREE, [Verdict(5, frozenset({2, 3}), True, False)]),
        ({1: {5: A}, 2: {5: A}, 3: {5: B}}, THREE, [Verdict(5, frozenset({3}), False, True)]),
        ({1: {5: A}, 2: {5: B}, 3: {5: C}}, THREE, [Verdict(5, frozenset({2, 3}), False, False)]),
        ({1: {5: A}, 2: {5: B}}, THREE, [Verdict(5, frozenset({2}), False, False)]),
        ({1: {5: A}, 2: {5: B}}, membership(1, 2), [Verdict(5, frozenset({2}), False, False)]),
        # Learners do not vote, but hear that they are wrong.
        ({1: {5: A}, 2: {5: B}, 3: {5: B}}, membership(2, learners=(1, 3)), [Verdict(5, frozenset({2, 3}), True, False)]),
        ({1: {5: A}, 2: {5: A}, 3: {5: B}}, membership(1, 2, learners=(3,)), [Verdict(5, frozenset({3}), False, True)]),
        # Only equal indexes count.
        ({1: {5: A}, 2: {6: B}}, THREE, []),
        ({1: {5: A, 6: B}, 2: {5: A, 7: C}}, THREE, [Verdict(5, frozenset(), False, True)]),
        (
            {1: {5: A, 6: B}, 2: {5: A, 6: B}, 3: {5: A, 6: C}},
            THREE,
            [Verdict(6, frozenset({3}), False, True), Verdict(5, frozenset(), False, True)],
        ),
    ],
)
def test_a_majority_of_voters_decides_which_copy_is_wrong(
    copies: dict[int, dict[int, bytes]], members: Membership, verdicts: list[Verdict]
) -> None:
    assert judge(1, copies, members) == verdicts


def test_hashes_are_kept_at_the_same_indexes_everywhere(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    hashes = StateHashes(bench.machine)
    for _ in range(EVERY_ENTRIES * 2 + 3):
        bench.put("k")
        hashes.applied(bench.machine.last_applied.index)
    present = bench.machine.last_applied.index
    assert sorted(hashes.known()) == [EVERY_ENTRIES, 2 * EVERY_ENTRIES, present]
    assert hashes.known()[present] == bench.machine.state_hash()
    for number in range(KEPT + 5):
        hashes.applied(EVERY_ENTRIES * (10 + number))
    assert len(hashes.known()) == KEPT + 1
    hashes.replaced()
    assert sorted(hashes.known()) == [present]
    bench.machine.close()


# ----------------------------------------------------------------------------- what a node does


class FakeForwarding:
    def __init__(self) -> None:
        self.answers: dict[int, CopyState | Exception] = {}
        self.ranges: list[RangeDigests] = []

    async def copy_state(self, target: int, timeout_ms: int) -> CopyState:
        del timeout_ms
        answer = self.answers[target]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def range_digests(self, target: int, bounds: tuple[str, ...], timeout_ms: int) -> RangeDigests:
        del target, timeout_ms
        return self.other(bounds)

    def other(self, bounds: tuple[str, ...]) -> RangeDigests:
        raise NotDoneError("it does not say")


class FakeConsensus:
    """What `CopyComparison` and `CopyHealth` use of a node's consensus."""

    def __init__(self, path: str) -> None:
        self.node_id = 1
        self.members = THREE
        self.replica = self
        self.engine = self
        self.machine = self
        self.path = path
        self.forwarding = FakeForwarding()
        self.own = CopyState("", {5: A})
        self.damage = ""
        self.serving = True
        self.hand_overs = 0

    def membership(self) -> Membership:
        return self.members

    def copy_state(self) -> CopyState:
        return self.own

    def set_serving(self, serving: bool) -> None:
        self.serving = serving

    async def range_digests(self, bounds: tuple[str, ...]) -> RangeDigests:
        return range_digests(self.path, bounds)


class CopyBench:
    def __init__(self, directory: Path) -> None:
        self.state = Bench(directory, "state.db")
        self.consensus = FakeConsensus(self.state.path)
        self.directory = DataDirectory.open(str(directory / "data"), 1)
        self.metrics = MetricsRegistry("1.2.3", "abc")
        self.begin()

    def begin(self) -> None:
        """As a process that starts."""
        self.findings = CopyFindings()
        consensus: Any = self.consensus
        self.health = CopyHealth(consensus, self.directory, self.findings, self.metrics)
        self.comparison = CopyComparison(consensus, self.health, HandClock())

    async def compare(self, **answers: CopyState | Exception) -> CopyFindings:
        self.consensus.forwarding.answers = {int(name[1:]): answer for name, answer in answers.items()}
        await self.comparison.compare()
        return self.findings


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CopyBench]:
    made = CopyBench(tmp_path)
    yield made
    made.directory.close()
    made.state.machine.close()


def says(found: bytes, damage: str = "") -> CopyState:
    return CopyState(damage, {5: found})


SILENT = NotDoneError("not connected")


async def test_equal_copies_raise_no_alarm(bench: CopyBench) -> None:
    findings = await bench.compare(n2=says(A), n3=says(A))
    assert (findings.damage, findings.peers, findings.serves) == ("", {}, True)
    assert findings.compared_at is not None


async def test_silent_nodes_prove_nothing(bench: CopyBench) -> None:
    findings = await bench.compare(n2=SILENT, n3=SILENT)
    assert (findings.damage, findings.peers, findings.compared_at) == ("", {}, None)


async def test_the_minority_copy_stops_serving_and_remembers_it(bench: CopyBench) -> None:
    findings = await bench.compare(n2=says(B), n3=says(B))
    assert findings.damage.startswith("the copies of nodes 1 and 2 differ at entry 5, and a majority does not have")
    assert "first difference is in a range that could not be found (it does not say)" in findings.damage
    assert not findings.serves
    assert not bench.consensus.serving
    assert bench.consensus.damage == findings.damage
    assert bench.metrics.work.copy_damaged
    bench.consensus.serving = True
    bench.begin()
    assert bench.findings.damage == findings.damage
    assert not bench.consensus.serving


async def test_a_snapshot_heals_the_copy(bench: CopyBench) -> None:
    await bench.compare(n2=says(B), n3=says(B))
    replaced: Any = bench.consensus
    replaced.state_replaced()
    assert (bench.findings.damage, bench.findings.serves, bench.consensus.serving) == ("", True, True)
    assert bench.directory.damage() == ""


async def test_the_majority_names_the_other_one_and_serves_on(bench: CopyBench) -> None:
    findings = await bench.compare(n2=says(A), n3=says(B))
    assert list(findings.peers) == [3]
    assert "a majority has what this node has" in findings.peers[3]
    assert findings.serves
    assert bench.metrics.work.copies_differing == {3}
    assert (await bench.compare(n2=says(A), n3=says(A))).peers == {}


async def test_without_a_majority_both_raise_the_alarm_and_nobody_stops(bench: CopyBench) -> None:
    findings = await bench.compare(n2=says(B), n3=SILENT)
    assert "no majority says which one is right" in findings.peers[2]
    assert (findings.damage, findings.serves) == ("", True)
    assert not (await bench.compare(n2=says(B), n3=says(B))).serves, "now there is one"


async def test_what_two_nodes_know_is_settled_by_an_older_index_that_all_know(bench: CopyBench) -> None:
    bench.consensus.own = CopyState("", {5: A, 6: A})
    await bench.compare(n2=CopyState("", {5: B, 6: B}), n3=CopyState("", {5: B}))
    assert not bench.findings.serves


async def test_a_node_says_what_the_others_say_of_themselves(bench: CopyBench) -> None:
    findings = await bench.compare(n2=says(A, "key 'k'"), n3=says(A))
    assert findings.peers == {2: "node 2 says that its copy is damaged: key 'k'"}
    bench.consensus.members = membership(1, 3)
    assert (await bench.compare(n3=says(A))).peers == {}


async def test_the_last_good_looking_copy_serves_on(bench: CopyBench) -> None:
    await bench.compare(n2=says(A, "bad"), n3=says(A, "bad too"))
    bench.health.damaged("key 'k'")
    assert bench.findings.serves
    assert (await bench.compare(n2=says(A), n3=says(A, "bad too"))).serves is False, "another one was rebuilt"


def test_an_only_voter_serves_on(bench: CopyBench) -> None:
    bench.consensus.members = membership(1)
    bench.health.damaged("key 'k'")
    assert (bench.findings.serves, bench.findings.damage) == (True, "key 'k'")


def test_what_was_found_first_stays(bench: CopyBench) -> None:
    bench.health.damaged("first")
    bench.health.damaged("second")
    bench.health.damaged("first; and where")
    assert bench.findings.damage == bench.directory.damage() == "first; and where"


# ----------------------------------------------------------------------------- where they differ


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    benches = Bench(tmp_path, "1.db"), Bench(tmp_path, "2.db")
    for one in benches:
        one.run(*(c.Put(f"key/{at:05}", b"v") for at in range(5000)))
    yield benches
    for one in benches:
        one.machine.close()


def comparing(pair: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(differing_range, "_LOOK_AGAIN_SECONDS", 0)
    consensus = FakeConsensus(pair[0].path)
    consensus.forwarding.other = lambda bounds: range_digests(pair[1].path, bounds)  # type: ignore[method-assign]
    return consensus


async def test_the_first_differing_range_is_found(pair: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("key/03217", "key/04000"):
        pair[1].machine._store.execute("UPDATE kv SET checksum = 1 WHERE key = ?", (key,))
    found = await first_differing_range(comparing(pair, monkeypatch), 2)
    assert found == "the keys from 'key/03217' to before 'key/03218'"


async def test_a_lost_last_record_is_in_the_range_without_an_end(
    pair: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].machine._store.execute("DELETE FROM kv WHERE key = 'key/04999'")
    assert (await first_differing_range(comparing(pair, monkeypatch), 2)).startswith("the keys from 'key/0499")


async def test_equal_records_are_said_to_be_equal(pair: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no range of records" in await first_differing_range(comparing(pair, monkeypatch), 2)


async def test_positions_that_differ_are_looked_at_again_and_said(
    pair: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look sees another record written by the one and not yet by the other."""
    pair[1].machine._store.execute("UPDATE kv SET checksum = 1 WHERE key = 'key/03217'")
    consensus, looks = comparing(pair, monkeypatch), 0

    def other(bounds: tuple[str, ...]) -> RangeDigests:
        nonlocal looks
        looks += 1
        found = range_digests(pair[1].path, bounds)
        digests = list(found.digests)
        digests[looks % len(digests)] += 1
        return RangeDigests(found.index + looks, tuple(digests))

    consensus.forwarding.other = other
    found = await first_differing_range(consensus, 2)
    assert "'key/03217'" in found
    assert found.endswith("(looked at while writes went on)")
