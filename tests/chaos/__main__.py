"""`make chaos`: rounds of faults on real processes under load, and a table of what was found.

Run as `python tests/chaos --rounds 500 --seed 7`. Exit code 1 when a promise was broken; the seed of that round is
printed, and `--fault` with `--first-round` runs it again.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from metasrv.testing.chaos import SETTINGS, Round, Tally, run_round
from metasrv.testing.nemesis import FAULTS, Fault
from metasrv.testing.processes import ProcessCluster

ROUNDS_PER_CLUSTER = 24
"""Then a fresh cluster, so that files and histories stay small."""
TITLES = ("fault", "rounds", "operations", "unknown outcomes", "violations", "median gap", "worst unavailability")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--first-round", type=int, default=0, metavar="SEED", help="number of the first round")
    parser.add_argument("--fault", action="append", metavar="NAME", help="only faults whose name contains this")
    options = parser.parse_args(arguments)
    faults = [one for one in FAULTS if not options.fault or any(part in one.name for part in options.fault)]
    if not faults:
        parser.error(f"no such fault; there are: {', '.join(one.name for one in FAULTS)}")
    return asyncio.run(run(options, faults))


async def run(options: argparse.Namespace, faults: Sequence[Fault]) -> int:
    started = time.monotonic()
    tallies = {fault.name: Tally(fault.name) for fault in faults}
    numbers = list(range(options.first_round, options.first_round + options.rounds))
    broken = 0
    for start in range(0, len(numbers), ROUNDS_PER_CLUSTER):
        async with ProcessCluster(options.nodes, settings=SETTINGS) as cluster:
            await cluster.boot()
            for number in numbers[start : start + ROUNDS_PER_CLUSTER]:
                fault = faults[number % len(faults)]
                one = await run_round(cluster, fault, number, options.clients)
                tallies[fault.name].add(one)
                report(one)
                broken += len(one.problems)
    print_table(list(tallies.values()), time.monotonic() - started)
    return 1 if broken else 0


def report(one: Round) -> None:
    mark = "ok" if not one.problems else f"{len(one.problems)} VIOLATIONS"
    print(
        f"round {one.seed:4}  {one.fault:24} {one.operations:6} operations, {one.unknown:3} unknown, "
        f"{one.unavailable_s:6.2f} s without a write: {mark}",
        flush=True,
    )
    for problem in one.problems[:5]:
        print(f"{problem}\n", flush=True)
    if one.problems:
        print(f"again: make chaos ROUNDS=1 ARGS='--first-round {one.seed} --fault \"{one.fault}\"'", flush=True)


def print_table(tallies: Sequence[Tally], seconds: float) -> None:
    rows = [TITLES]
    for tally in tallies:
        gaps = tally.unavailable_s or [0.0]
        rows.append(
            (
                tally.fault,
                str(tally.rounds),
                str(tally.operations),
                str(tally.unknown),
                str(tally.violations),
                f"{statistics.median(gaps):.2f} s",
                f"{max(gaps):.2f} s",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    rounds = sum(tally.rounds for tally in tallies)
    operations = sum(tally.operations for tally in tallies)
    violations = sum(tally.violations for tally in tallies)
    print(f"\n{rounds} rounds, {operations} operations, {violations} violations in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
