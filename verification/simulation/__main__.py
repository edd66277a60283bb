"""`python -m verification.simulation`: many histories, or one again.

--histories 100000 --seed 1 --workers 2      figures at the end; exit code 1 when anything was violated
--replay 4711 [--changes JSON] [--trace]     one history, with its plan and, with --trace, every event
"""

from __future__ import annotations

import argparse
import sys
import time

from verification.silence import silenced_logs
from verification.simulation.figures import Figures
from verification.simulation.history import Outcome, run_history
from verification.simulation.plan import make_plan
from verification.simulation.runs import run_many
from verification.simulation.shrink import decode_changes, encode_changes, shrink

COMMAND = "python -m verification.simulation"
_FAILURES_SHOWN_MAX = 20


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell_failure(outcome: Outcome) -> None:
    """Print the seed, what was violated, how to replay it, and a smaller plan that fails too."""
    say(f"\nVIOLATION in seed {outcome.plan.seed}; replay: {COMMAND} --replay {outcome.plan.seed} --trace")
    for violation in outcome.violations:
        say(f"  {violation}")
    small = shrink(outcome)
    say(f"smaller: {COMMAND} --replay {small.plan.seed} --changes '{encode_changes(small.plan)}' --trace")
    say(str(small.plan))
    for violation in small.violations:
        say(f"  {violation}")


def replay(seed: int, changes: str | None, trace: bool) -> int:
    plan = make_plan(seed) if changes is None else decode_changes(seed, changes)
    say(str(plan))
    outcome = run_history(plan, keep_trace=trace)
    for line in outcome.trace or ():
        say(line)
    for violation in outcome.violations:
        say(f"VIOLATION {violation}")
    say(f"trace {outcome.digest}, {len(outcome.violations)} violations")
    return 1 if outcome.violations else 0


def run(first_seed: int, histories: int, workers: int, progress: bool, seconds_max: float) -> int:
    figures, started = Figures(), time.monotonic()
    said_at = started
    for outcome in run_many(first_seed, histories, workers):
        figures.add(outcome)
        if outcome.violations and figures.failed <= _FAILURES_SHOWN_MAX:
            tell_failure(outcome)
        if progress and time.monotonic() - said_at > 30.0:
            said_at = time.monotonic()
            say(f"{figures.histories:,} histories, {figures.failed} with violations, {said_at - started:.0f} s")
        if time.monotonic() - started > seconds_max:
            break
    say(f"seeds from {first_seed} on")
    for line in figures.lines(time.monotonic() - started):
        say(line)
    return 1 if figures.failed else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Deterministic simulation of metasrv clusters.")
    parser.add_argument("--histories", type=int, default=2_000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="the first of consecutive seeds (default: 1)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this many seconds of real time")
    parser.add_argument("--quiet", action="store_true", help="no progress, only failures and figures")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one history again")
    parser.add_argument("--changes", help="with --replay: what a smaller plan keeps, as printed with a failure")
    parser.add_argument("--trace", action="store_true", help="with --replay: print every event")
    given = parser.parse_args(arguments)
    with silenced_logs():
        if given.replay is not None:
            return replay(given.replay, given.changes, given.trace)
        return run(given.seed, given.histories, given.workers, not given.quiet, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
