"""Runs histories with a planted defect until the simulator notices.

The disks of formed clusters are made without the defect, so that it shows only in the history.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from verification.mutants.patching import Mutant
from verification.simulation.formation import formed_images
from verification.simulation.history import Outcome, run_history
from verification.simulation.plan import Plan, long_enough, make_plan

BUDGET_SECONDS = 60.0
_SECONDS_MIN = 2.5
_EARLIER = 0.6
"""Faults begin within this share of a history, so that they are over before it ends."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """What came of one hunt. `outcome` is the history that noticed; None, like `control`, when none did."""

    mutant: Mutant
    outcome: Outcome | None
    control: Outcome | None
    """The same history without the defect, which must pass."""
    histories: int
    seconds: float
    """Processor time: a busy machine must not make a defect survive."""

    @property
    def caught(self) -> bool:
        """Whether the defect was noticed, and nothing was without it."""
        return self.outcome is not None and self.control is not None and not self.control.violations


def plan_for(mutant: Mutant, seed: int) -> Plan:
    """The seed's own plan; for a rare defect, longer, with short logs and only the kinds of faults that it favours."""
    plan, kinds = make_plan(seed), mutant.favours
    if not kinds:
        return plan
    longer = max(1.0, _SECONDS_MIN / plan.seconds)
    faults = tuple(
        replace(fault, kind=kinds[(fault.number + seed) % len(kinds)], at_seconds=fault.at_seconds * longer * _EARLIER)
        for fault in plan.faults
    )
    tuning = replace(plan.tuning, snapshot_logs_since_last=5, max_applied_log_to_keep=0)
    seconds = long_enough(plan.seconds * longer, faults)
    return replace(plan, faults=faults, tuning=tuning, seconds=seconds, operations=int(plan.operations * longer))


def run_with(mutant: Mutant, plan: Plan, *, keep_trace: bool = False) -> Outcome:
    """Run one history with the defect planted."""
    formed_images(plan.size)
    with mutant.planted():
        return run_history(plan, keep_trace=keep_trace)


def hunt(mutant: Mutant, first_seed: int, budget_seconds: float = BUDGET_SECONDS) -> Hunt:
    """Try consecutive seeds until one shows a violation or the time is over."""
    for size in (3, 5, 7):
        formed_images(size)
    started, histories = time.process_time(), 0
    while time.process_time() - started < budget_seconds:
        outcome = run_with(mutant, plan_for(mutant, first_seed + histories))
        histories += 1
        if outcome.violations:
            seconds = time.process_time() - started
            return Hunt(mutant, outcome, run_history(outcome.plan), histories, seconds)
    return Hunt(mutant, None, None, histories, time.process_time() - started)
