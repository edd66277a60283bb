"""`python -m verification.stock`: plain pysyncobj and metasrv with the same seeds, one fault kind after the other.

[--histories 40] [--seed 1] [--kinds KIND ...] [--batch] [--without-own]     a table
--replay SEED --kinds KIND [--batch] [--own] [--trace]                       one history again

Exit code 1 when metasrv itself violated anything; what plain pysyncobj does is only shown.
"""

from __future__ import annotations

import argparse
import sys

from verification.silence import silenced_logs
from verification.simulation.history import run_history
from verification.simulation.plan import Plan
from verification.stock.figures import AS_PLANNED, HEADER, own_figures, plan_of_kind, stock_figures
from verification.stock.history import STOCK_FAULTS, run_stock_history

COMMAND = "python -m verification.stock"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(kinds: list[str], first_seed: int, histories: int, use_batch: bool, own: bool) -> int:
    say(HEADER)
    shown: list[str] = []
    own_violations = 0
    batch = " --batch" if use_batch else ""
    for kind in kinds:
        stock = stock_figures(kind, first_seed, histories, use_batch)
        say(stock.row())
        if stock.first_wrong is not None:
            shown.append(f"{kind}: {COMMAND} --replay {stock.first_wrong} --kinds '{kind}'{batch}")
        if own:
            ours = own_figures(kind, first_seed, histories)
            own_violations += ours.violations
            say(ours.row())
            if ours.first_wrong is not None:
                shown.append(f"{kind}, METASRV: {COMMAND} --replay {ours.first_wrong} --kinds '{kind}' --own")
    say("")
    for line in shown:
        say(line)
    return 1 if own_violations else 0


def replay_own(plan: Plan, trace: bool) -> int:
    outcome = run_history(plan, keep_trace=trace)
    for line in outcome.trace or ():
        say(line)
    for violation in outcome.violations:
        say(violation)
    say(f"{outcome.done} writes acknowledged, {len(outcome.violations)} violations")
    return 1 if outcome.violations else 0


def replay(plan: Plan, use_batch: bool, trace: bool) -> int:
    outcome = run_stock_history(plan, use_batch=use_batch, keep_trace=trace)
    for line in outcome.trace or ():
        say(line)
    say(f"{outcome.acknowledged} writes acknowledged, {outcome.unknown} of unknown outcome")
    for what, tags in (("lost", outcome.lost), ("doubled", outcome.doubled), ("refused, yet done", outcome.denied)):
        say(f"{what}: {', '.join(tags) or 'none'}")
    say(f"stale or contradictory reads: {outcome.not_linearizable}; replicas differ: {outcome.diverged}")
    say(f"stuck: {outcome.stuck or 'no'}; nodes that could not start: {outcome.refusals}")
    return 1 if outcome.wrong else 0


def main(arguments: list[str] | None = None) -> int:
    known = [AS_PLANNED, *sorted(STOCK_FAULTS)]
    parser = argparse.ArgumentParser(prog=COMMAND, description="Plain pysyncobj beside metasrv under the same faults.")
    parser.add_argument("--histories", type=int, default=40, help="of each fault kind (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="the first of consecutive seeds (default: 1)")
    parser.add_argument("--kinds", nargs="+", choices=known, default=known, help="fault kinds (default: all)")
    parser.add_argument("--batch", action="store_true", help="appendEntriesUseBatch=True, pysyncobj's default")
    parser.add_argument("--without-own", action="store_true", help="plain pysyncobj only")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one history of plain pysyncobj again")
    parser.add_argument("--own", action="store_true", help="with --replay: metasrv's history of that seed instead")
    parser.add_argument("--trace", action="store_true", help="with --replay: print every event")
    given = parser.parse_args(arguments)
    with silenced_logs():
        if given.replay is not None:
            plan = plan_of_kind(given.replay, given.kinds[0])
            say(str(plan))
            return replay_own(plan, given.trace) if given.own else replay(plan, given.batch, given.trace)
        return run(given.kinds, given.seed, given.histories, given.batch, not given.without_own)


if __name__ == "__main__":
    sys.exit(main())
