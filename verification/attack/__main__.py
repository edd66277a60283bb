"""`make attack`: each attack against a cluster of three nodes, beside a load whose answers are checked.

Prints one line an attack: what the load saw, leader changes, the largest resident memory, the longest probe. Ends with 1
when an attack changed the leader, gave the load an error or a wrong answer, made a probe fail or last, or took memory.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from metasrv.model.types import Endpoint
from metasrv.testing.processes import ProcessCluster
from verification.attack.attackers import ADMIN_ATTACKS, GRPC_ATTACKS
from verification.attack.checked_load import WRITERS, Outcome, probe, write_and_check

RESIDENT_MIB_MAX = 300
PROBE_SECONDS_MAX = 1.0
SETTLE_SECONDS = 2.0
"""After an attack, until what it held is given back."""


def resident_mib_max(pid: int) -> float:
    """The most that a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def forget_resident_max(pid: int) -> None:
    """Measure the largest resident memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def attack_once(cluster: ProcessCluster, name: str, seconds: float) -> tuple[Outcome, int, float, str]:
    """Attack the leader; what the load saw, the changes of the leader, the memory, and connections of the attacker."""
    leader = await cluster.wait_for_leader()
    process = cluster.nodes[leader].process
    assert process is not None
    term = await term_of(cluster, leader)
    forget_resident_max(process.pid)
    node = cluster.nodes[leader]
    port: Endpoint = node.grpc if name in GRPC_ATTACKS else node.admin
    outcome = Outcome()
    async with cluster.client() as client:
        tasks = [asyncio.create_task(write_and_check(client, number, outcome)) for number in range(WRITERS)]
        tasks.append(asyncio.create_task(probe(lambda: cluster.admin(leader, "/livez"), outcome)))
        await asyncio.sleep(1)
        attacker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "verification.attack.attackers",
            name,
            port.addr,
            str(port.port),
            str(seconds),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await attacker.communicate()
        if attacker.returncode:
            raise RuntimeError(f"the attacker itself failed, exit code {attacker.returncode}")
        await asyncio.sleep(SETTLE_SECONDS)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    ended = await cluster.wait_for_leader()
    return outcome, await term_of(cluster, ended) - term, resident_mib_max(process.pid), said.decode().strip()


async def term_of(cluster: ProcessCluster, node_id: int) -> int:
    status = await cluster.status(node_id)
    assert status is not None
    return int(status["current_term"])


def problems_of(outcome: Outcome, leader_changes: int, memory_mib: float) -> list[str]:
    """What an attack achieved."""
    found = []
    if leader_changes:
        found.append("leader changed")
    if outcome.wrong:
        found.append(f"wrong: {outcome.wrong[0]}")
    if outcome.errors:
        found.append(f"error: {outcome.errors[0]}")
    if memory_mib > RESIDENT_MIB_MAX:
        found.append("memory")
    if outcome.probes_failed or outcome.longest_probe_seconds > PROBE_SECONDS_MAX:
        found.append("probe")
    return found


async def run(names: Sequence[str], seconds: float) -> int:
    """Run the attacks one after the other; returns the exit code."""
    print(f"{'attack':28} {'ops':>5} {'errors':>6} {'slowest':>8} {'leaders':>7} {'memory':>8} {'probe':>8} {'again':>5}")
    failed = 0
    async with ProcessCluster(3) as cluster:
        await cluster.boot()
        for name in names:
            outcome, changes, memory_mib, connections = await attack_once(cluster, name, seconds)
            problems = problems_of(outcome, changes, memory_mib)
            failed += bool(problems)
            print(
                f"{name:28} {outcome.operations:5} {len(outcome.errors):6} {outcome.longest_seconds:6.2f} s"
                f" {changes:7} {memory_mib:4.0f} MiB {outcome.longest_probe_seconds:6.2f} s {connections:>5}"
                f"  {'; '.join(problems) or 'held'}",
                flush=True,
            )
    print(f"{len(names) - failed} of {len(names)} attacks achieved nothing")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    every = [*GRPC_ATTACKS, *ADMIN_ATTACKS]
    parser = argparse.ArgumentParser(prog="make attack", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    parser.add_argument("--only", choices=every, action="append", help="this attack; may be given several times")
    options = parser.parse_args(arguments)
    return asyncio.run(run(options.only or every, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
