"""`python -m verification.mutants`: plant each defect, and see how long the simulator takes to notice.

[--only NAME ...] [--seed 1] [--budget 60]     a table; exit code 1 when a defect was not noticed
--replay SEED --only NAME [--trace]            one history with a defect, and the same one without it

The history that noticed a defect is run again without it: a violation then is the product's or the simulator's.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from verification.mutants.catalogue import MUTANTS
from verification.mutants.hunting import BUDGET_SECONDS, Hunt, hunt, plan_for, run_with
from verification.silence import silenced_logs
from verification.simulation.history import run_history

COMMAND = "python -m verification.mutants"
_SHOWN_MAX = 150
_MADE_UP_DIRECTORY = re.compile(r"\S*/metasrv-sim-[^/]*")
"""The directory of a history's disks, which is gone when it is over."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def row(found: Hunt) -> str:
    """A row of the table, in Markdown, for the documentation."""
    outcome, name = found.outcome, found.mutant.name
    if outcome is None:
        caught, seed, control = "NOT CAUGHT", "", ""
    else:
        caught = _MADE_UP_DIRECTORY.sub("", outcome.violations[0].splitlines()[0])[:_SHOWN_MAX].replace("|", "/")
        seed, control = str(outcome.plan.seed), "passes" if found.caught else "FAILS"
    return f"| {name} | {found.mutant.defect} | {caught} | {found.histories} | {found.seconds:.1f} | {seed} | {control} |"


def run(names: Sequence[str], first_seed: int, budget_seconds: float) -> int:
    say("| mutant | what is wrong | caught by | histories | seconds | seed | without it |")
    say("|---|---|---|---|---|---|---|")
    survivors = []
    for name in names:
        found = hunt(MUTANTS[name], first_seed, budget_seconds)
        say(row(found))
        if not found.caught:
            survivors.append(name)
    say(f"\n{len(names) - len(survivors)} of {len(names)} caught")
    if survivors:
        say(f"not caught within {budget_seconds:.0f} s: {', '.join(survivors)}")
    return 1 if survivors else 0


def replay(name: str, seed: int, trace: bool) -> int:
    """The defect must show, and must be all that shows."""
    plan = plan_for(MUTANTS[name], seed)
    say(str(plan))
    with_defect = run_with(MUTANTS[name], plan, keep_trace=trace)
    for line in with_defect.trace or ():
        say(line)
    for violation in with_defect.violations:
        say(f"with the defect: {violation}")
    without = run_history(plan)
    for violation in without.violations:
        say(f"WITHOUT the defect: {violation}")
    say(f"{len(with_defect.violations)} violations with the defect, {len(without.violations)} without it")
    return 0 if with_defect.violations and not without.violations else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Planted defects that the simulator must notice.")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(MUTANTS), help="these defects")
    parser.add_argument("--seed", type=int, default=1, help="the first of consecutive seeds (default: 1)")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds for each (default: 60)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one history with one defect, then without it")
    parser.add_argument("--trace", action="store_true", help="with --replay: print every event")
    given = parser.parse_args(arguments)
    with silenced_logs():
        names = given.only or list(MUTANTS)
        if given.replay is not None:
            if len(names) != 1:
                parser.error("--replay needs --only with one name")
            return replay(names[0], given.replay, given.trace)
        return run(names, given.seed, given.budget)


if __name__ == "__main__":
    sys.exit(main())
