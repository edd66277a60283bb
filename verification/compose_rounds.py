"""`make chaos-compose`: rounds of faults on real containers under load, and a table of what was found.

Run as `python -m verification.compose_rounds --rounds 50`. Builds the image unless METASRV_COMPOSE_IMAGE names one.
Clients on this machine work through the published ports, and the service `chaos` works on the containers' network
meanwhile; both verdicts count. Exit code 1 when a promise was broken; the seed of that round is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from verification.compose import ComposeCluster, why_no_containers
from verification.compose_chaos import FAULTS, ComposeRound, Fault, run_round
from verification.compose_image import ROOT, make_image

CLIENT_GAP_SECONDS_MAX = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make chaos-compose", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--nodes", type=int, default=3, choices=(3, 5))
    parser.add_argument("--first-round", type=int, default=0, metavar="SEED", help="number of the first round")
    parser.add_argument("--fault", action="append", metavar="NAME", help="only faults whose name contains this")
    options = parser.parse_args(arguments)
    reason = why_no_containers()
    if reason is not None:
        parser.error(f"{reason}; `make chaos` needs no containers")
    faults = [one for one in FAULTS if not options.fault or any(part in one.name for part in options.fault)]
    if not faults:
        parser.error(f"no such fault; there are: {', '.join(one.name for one in FAULTS)}")
    cluster = ComposeCluster(ROOT, make_image(), options.nodes)
    try:
        return asyncio.run(run(cluster, options, faults))
    finally:
        cluster.close()


async def run(cluster: ComposeCluster, options: argparse.Namespace, faults: Sequence[Fault]) -> int:
    started = time.monotonic()
    cluster.up()
    cluster.wait_until_whole()
    cluster.compose("--profile", "chaos", "up", "-d", "chaos")
    rounds: list[ComposeRound] = []
    for number in range(options.first_round, options.first_round + options.rounds):
        rounds.append(await run_round(cluster, faults[number % len(faults)], number, options.clients))
        report(rounds[-1])
    print_table(rounds, time.monotonic() - started)
    code, said = verdict_inside(cluster)
    print(f"clients on the network of the containers: exit code {code}\n{said}")
    return 1 if code or any(one.problems for one in rounds) else 0


def verdict_inside(cluster: ComposeCluster) -> tuple[int, str]:
    """Stop the service `chaos`: its exit code and the end of what it said."""
    container = cluster.container("chaos")
    cluster.docker("stop", "--time", "120", container)
    code = int(cluster.docker("inspect", "--format", "{{.State.ExitCode}}", container))
    lines = cluster.docker("logs", container).splitlines()
    return code, "\n".join([*(line for line in lines if "VIOLATIONS" in line), *lines[-1:]])


def report(one: ComposeRound) -> None:
    mark = "ok" if not one.problems else f"{len(one.problems)} VIOLATIONS"
    print(
        f"round {one.seed:4}  {one.fault.name:22} {one.operations:6} operations, {one.unknown:3} unknown, "
        f"{one.unavailable_s:5.2f} s without a write, one client {one.client_gap_s:5.2f} s: {mark}",
        flush=True,
    )
    for problem in one.problems[:5]:
        print(f"{problem}\n", flush=True)
    if one.problems:
        again = f'--first-round {one.seed} --fault "{one.fault.name}"'
        print(f"again: make chaos-compose ROUNDS=1 ARGS='{again}'", flush=True)


def print_table(rounds: Sequence[ComposeRound], seconds: float) -> None:
    print(f"\n{'fault':22}  rounds  operations  violations  one client without a write: median, worst")
    for name in dict.fromkeys(one.fault.name for one in rounds):
        of_it = [one for one in rounds if one.fault.name == name]
        gaps = [one.client_gap_s for one in of_it]
        violations = sum(len(one.problems) for one in of_it)
        operations = sum(one.operations for one in of_it)
        print(
            f"{name:22}  {len(of_it):6}  {operations:10}  {violations:10}  "
            f"{statistics.median(gaps):.2f} s, {max(gaps):.2f} s"
        )
    operations, violations = sum(one.operations for one in rounds), sum(len(one.problems) for one in rounds)
    print(f"\n{len(rounds)} rounds, {operations} operations, {violations} violations in {seconds:.0f} s")
    gaps = [one.client_gap_s for one in rounds if one.fault.one_node]
    if gaps:
        late = sum(gap > CLIENT_GAP_SECONDS_MAX for gap in gaps)
        print(
            f"one client, faults of one node: median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s without a "
            f"write; {late} of {len(gaps)} above {CLIENT_GAP_SECONDS_MAX:g} s"
        )


if __name__ == "__main__":
    sys.exit(main())
