"""The simulator notices planted defects: each with a seed that is known to show it, and without it nothing shows."""

from __future__ import annotations

import pytest

from metasrv.raft.log_store import LogStore
from metasrv.testing.mutants.catalogue import MUTANTS
from metasrv.testing.mutants.hunting import plan_for, run_with
from metasrv.testing.simulation.history import run_history

KNOWN_SEEDS = {
    "term not stored": 1,
    "vote not stored": 1,
    "no sync before send": 1,
    "leader counts itself early": 1,
    "watch event lost": 1,
    "apply raises": 1,
    "time of the local clock": 1,
    "stale reads": 1,
    "membership changes overlap": 1,
    "position one behind": 2,
    "acknowledgement without term": 8,
}


@pytest.mark.parametrize("name", sorted(KNOWN_SEEDS))
def test_a_planted_defect_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    plan = plan_for(mutant, KNOWN_SEEDS[name])
    assert run_with(mutant, plan).violations, "the defect was not noticed"
    assert not run_history(plan).violations, "something is noticed without the defect"


def test_a_mutant_is_gone_after_its_block() -> None:
    before = dict(vars(LogStore))
    with MUTANTS["term not stored"].planted():
        assert dict(vars(LogStore)) != before
    assert dict(vars(LogStore)) == before
