"""Histories of whole clusters under faults: no violation, and the same seed is the same history everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from verification.simulation.__main__ import COMMAND, main
from verification.simulation.history import run_history
from verification.simulation.plan import FAULTS, make_plan
from verification.simulation.runs import run_many
from verification.simulation.security import SECURITIES
from verification.simulation.shrink import decode_changes, encode_changes, shrink
from verification.simulation.wire_faults import WIRE_FAULTS

FIRST_SEED = 1
HISTORIES = 150
CHUNK = 50
SAMPLE_SEEDS = (8, 23, 110, 12, 16, 75, 109)
"""A long history of seven nodes, two of many faults, and four with faults of the connections between nodes."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + HISTORIES, CHUNK))
def test_histories_without_violation(first: int) -> None:
    failures = []
    for seed in range(first, first + CHUNK):
        outcome = run_history(make_plan(seed))
        if outcome.violations:
            failures.append(f"replay: {COMMAND} --replay {seed} --trace\n  " + "\n  ".join(outcome.violations))
    assert not failures, "\n".join(failures)


def test_the_same_seed_is_the_same_history_in_every_process() -> None:
    """Also with another hash seed, and whatever the process has done before."""
    here = {seed: run_history(make_plan(seed), keep_trace=True).digest for seed in SAMPLE_SEEDS}
    for hash_seed in ("1", "4711"):
        for seed in SAMPLE_SEEDS:
            assert digest_in_new_process(seed, hash_seed) == here[seed], f"seed {seed} with hash seed {hash_seed}"


def test_the_samples_have_every_kind_of_connection() -> None:
    plans = [make_plan(seed) for seed in SAMPLE_SEEDS]
    assert {plan.wire.security for plan in plans} == set(SECURITIES)
    assert {plan.wire.buffer_bytes for plan in plans} == {256, 4_096, 1_048_576}
    assert set(WIRE_FAULTS) <= {fault.kind for plan in plans for fault in plan.faults}


def digest_in_new_process(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "verification.simulation", "--replay", str(seed), "--trace"]
    root = str(ROOT)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()[-1].split()[1].rstrip(",")


def test_log_time_goes_on_from_an_installed_state() -> None:
    """A leader that got the entries of a clock a day ahead in a snapshot must go on from their time (R22)."""
    assert not run_history(make_plan(17_973)).violations


def test_different_seeds_are_different_histories() -> None:
    digests = {run_history(make_plan(seed)).digest for seed in range(1, 6)}
    assert len(digests) == 5


def test_every_fault_is_planned() -> None:
    planned = {fault.kind for seed in range(2_000) for fault in make_plan(seed).faults}
    assert planned == set(FAULTS)


def test_a_smaller_plan_is_what_its_text_says() -> None:
    plan = make_plan(8)
    smaller = decode_changes(8, encode_changes(plan))
    assert smaller == plan
    fewer = decode_changes(8, '{"faults":[1,2],"seconds":1.5,"operations":3,"clients":1}')
    assert [fault.number for fault in fewer.faults] == [1, 2]
    assert (fewer.seconds, fewer.operations, fewer.clients) == (1.5, 3, 1)


def test_shrinking_keeps_what_fails() -> None:
    """With a cluster that fails whenever a certain fault is there, that fault alone is left."""
    plan = make_plan(8)
    culprit = plan.faults[3]
    good = run_history(decode_changes(8, '{"faults":[],"seconds":0.1,"operations":1,"clients":1}'))

    def run(candidate: object) -> object:
        outcome = type(good)(**{name: getattr(good, name) for name in good.__slots__})
        outcome.plan = candidate  # type: ignore[assignment]
        outcome.violations = ["it fails"] if culprit in candidate.faults else []  # type: ignore[attr-defined]
        return outcome

    small = shrink(run(plan), run)  # type: ignore[arg-type]
    assert small.plan.faults == (culprit,)
    assert small.plan.clients == 1


def test_workers_run_every_seed_once() -> None:
    outcomes = run_many(3, 13, workers=2, chunk_size=2)
    assert sorted(outcome.plan.seed for outcome in outcomes) == list(range(3, 16))


def test_workers_end_when_their_parent_is_killed() -> None:
    command = [sys.executable, "-m", "verification.simulation", "--histories", "100000", "--workers", "2"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        assert eventually(lambda: len(children.read_text().split()) >= 3), "two workers and their resource tracker"
        started = children.read_text().split()
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: not any(map(is_alive, started)))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_command_prints_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--histories", "3", "--seed", "5", "--workers", "1", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "seeds from 5 on" in printed
    assert "acknowledged writes" in printed
    assert "histories with violations       0" in printed
