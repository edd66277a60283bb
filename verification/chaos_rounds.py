"""`make chaos`: rounds of faults on real processes under load, and a table of what was found.

Run as `python -m verification.chaos_rounds --rounds 500`. Exit code 1 when a promise was broken or a round could not be
finished; the evidence and the command that runs that round again are printed. `--record FILE` keeps one line a round, and
`--table FILE ...` prints the table of such files. docs/chaos.md says what each column means.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metasrv.testing.network import Network
from metasrv.testing.processes import ProcessCluster
from verification.chaos import CLIENTS_DEFAULT, SETTINGS, Round, run_round
from verification.evidence import replay_command, write_evidence
from verification.nemesis import FAULTS, Fault, faults_named
from verification.nemesis.gateway_faults import GATEWAYS_VARIABLE, REMOTE_VARIABLE

ROUNDS_PER_CLUSTER = 24
"""Rounds after which a new cluster is made, so that files and histories stay small."""
SIZES = (3, 3, 3, 5)
"""Sizes of consecutive clusters, unless `--nodes` is given."""
TITLES = (
    "fault",
    "rounds",
    "operations",
    "unknown outcomes",
    "violations",
    "unfinished",
    "median unavailability",
    "worst unavailability",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no round after this many minutes")
    parser.add_argument("--clients", type=int, default=CLIENTS_DEFAULT)
    parser.add_argument("--nodes", type=int, default=0, help="by default three, and five in every fourth cluster")
    parser.add_argument("--first-round", type=int, default=0, metavar="SEED", help="number of the first round")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME", help="only faults whose name contains this"
    )
    parser.add_argument("--gateways", type=int, default=0, metavar="NUMBER", help="gateways of each node")
    parser.add_argument(
        "--remote-gateways", type=int, default=0, metavar="NUMBER", help="gateways without a node beside each cluster"
    )
    parser.add_argument("--evidence", type=Path, default=Path("chaos-evidence"), metavar="DIRECTORY")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append one JSON line a round")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print the table of recorded rounds")
    options = parser.parse_args(arguments)
    if options.table:
        rows = [json.loads(line) for path in options.table for line in path.read_text().splitlines()]
        print_table(rows)
        return 0
    if options.gateways:
        os.environ[GATEWAYS_VARIABLE] = str(options.gateways)
    if options.remote_gateways:
        os.environ[REMOTE_VARIABLE] = str(options.remote_gateways)
    faults = usable(faults_named(options.fault))
    if not faults:
        parser.error(f"no such fault; there are: {', '.join(one.name for one in FAULTS)}")
    return asyncio.run(run(options, faults))


def usable(faults: Iterable[Fault]) -> list[Fault]:
    """The faults that this machine can inflict; prints why not for the others."""
    possible = []
    for fault in faults:
        reason = fault.why_impossible()
        if reason is None:
            possible.append(fault)
        else:
            print(f"skipped: {fault.name}: {reason}")
    return possible


def fault_of_round(faults: Sequence[Fault], number: int) -> Fault:
    """Every fault once before any comes again, in another order each time."""
    cycle, place = divmod(number, len(faults))
    order = random.Random(cycle).sample(faults, len(faults))
    return order[place]


async def run(options: argparse.Namespace, faults: Sequence[Fault]) -> int:
    started = time.monotonic()
    numbers = iter(range(options.first_round, options.first_round + options.rounds))
    rows: list[dict[str, Any]] = []
    number = next(numbers, None)
    while number is not None:
        size = options.nodes or SIZES[number // ROUNDS_PER_CLUSTER % len(SIZES)]
        network = Network(number)
        cluster = ProcessCluster(size, settings=SETTINGS, network=network)
        keep = False
        try:
            await cluster.boot()
            for _ in range(options.remote_gateways):
                await cluster.add_remote_gateway().wait_for("ok: ")
            for _ in range(ROUNDS_PER_CLUSTER):
                if number is None:
                    break
                one = await run_round(cluster, fault_of_round(faults, number), number, options.clients)
                rows.append(row_of(one))
                report(one)
                if options.record is not None:
                    with options.record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                number = next(numbers, None)
                if options.minutes and time.monotonic() - started > options.minutes * 60:
                    number = None
                if not one.is_good:
                    keep = True
                    print(f"evidence: {write_evidence(options.evidence, one, cluster)}", flush=True)
                    break
        finally:
            cluster.close(keep_files=keep)
            await network.close()
    print_table(rows)
    print(f"\n{time.monotonic() - started:.0f} s; the next round is {options.first_round + len(rows)}")
    return 1 if any(row["violations"] or row["unfinished"] for row in rows) else 0


def row_of(one: Round) -> dict[str, Any]:
    return {
        "fault": one.fault,
        "seed": one.seed,
        "nodes": one.nodes,
        "operations": one.record.total,
        "unknown": one.record.unknown,
        "refused": one.record.refused,
        "violations": len(one.problems),
        "unfinished": one.failure is not None,
        "unavailable_s": round(one.unavailable_s, 3),
        "watch_events": sum(len(stream.changes) for stream in one.streams),
        "seconds": round(one.seconds, 1),
    }


def report(one: Round) -> None:
    mark = "ok"
    if one.problems:
        mark = f"{len(one.problems)} VIOLATIONS"
    elif one.failure is not None:
        mark = "UNFINISHED"
    print(
        f"round {one.seed:4}  {one.fault:28} {one.nodes} nodes {one.record.total:6} operations "
        f"{one.record.unknown:4} unknown {one.unavailable_s:6.2f} s without a write {one.seconds:5.1f} s: {mark}",
        flush=True,
    )
    for problem in one.problems[:5]:
        print(f"{problem}\n", flush=True)
    if one.failure is not None:
        print(one.failure, flush=True)
    if not one.is_good:
        print(f"again: {replay_command(one)}", flush=True)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    by_fault: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_fault[row["fault"]].append(row)
    order = [fault.name for fault in FAULTS if fault.name in by_fault]
    table = [TITLES, *(cells(name, by_fault[name]) for name in order), cells("all", rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(TITLES))]
    print()
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    events = sum(row["watch_events"] for row in rows)
    print(f"\n{events} watch events, {sum(row['refused'] for row in rows)} operations refused and certainly not done")


def cells(name: str, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    gaps = [row["unavailable_s"] for row in rows] or [0.0]
    sums = (sum(row[field] for row in rows) for field in ("operations", "unknown", "violations", "unfinished"))
    return (name, str(len(rows)), *map(str, sums), f"{statistics.median(gaps):.2f} s", f"{max(gaps):.2f} s")


if __name__ == "__main__":
    sys.exit(main())
