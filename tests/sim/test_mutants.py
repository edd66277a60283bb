"""The simulator notices planted defects within a few histories, and nothing in the same history without them."""

from __future__ import annotations

import pytest

from metasrv.raft.log.store import LogStore
from verification.mutants.catalogue import MUTANTS
from verification.mutants.hunting import plan_for, run_with
from verification.simulation.history import run_history

HISTORIES_MAX = 120
"""The most that any of these needed was 70; a change of the plans changes this."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_defect_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    plans = (plan_for(mutant, seed) for seed in range(1, HISTORIES_MAX + 1))
    plan = next((plan for plan in plans if run_with(mutant, plan).violations), None)
    assert plan is not None, f"the defect was not noticed in {HISTORIES_MAX} histories"
    assert not run_history(plan).violations, "something is noticed without the defect"


def test_a_mutant_is_gone_after_its_block() -> None:
    before = dict(vars(LogStore))
    with MUTANTS["term not stored"].planted():
        assert dict(vars(LogStore)) != before
    assert dict(vars(LogStore)) == before
