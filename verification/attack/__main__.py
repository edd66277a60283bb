"""`make attack`: each attack against a cluster of three nodes, beside a load whose answers are checked.

With `--secured` the cluster has TLS on all ports, passwords, users and tokens, attackers come with nothing and with a
client's credentials, and there are attacks on what was added. Prints one line an attack: what the load saw, leader
changes, the largest resident memory, the longest probe, what the attacked node logged. Ends with 1 when an attack
changed the leader, gave the load an error, a wrong answer or a long wait, made a probe fail or last, or took memory or
log files.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from metasrv.model.types import Endpoint
from metasrv.testing.process_node import ProcessNode
from verification.attack.catalog import EVERY_ATTACK, PLAIN_ATTACKS, SECURED_ATTACKS, Listed, Port
from verification.attack.checked_load import (
    LOGIN_PAUSE_SECONDS,
    WRITERS,
    Outcome,
    log_in_and_read,
    probe,
    write_and_check,
)
from verification.attack.settings import PlainCluster, SecuredCluster, size_bytes
from verification.attack.tls_attacks import has_openssl

RESIDENT_MIB_MAX = 300
PROBE_SECONDS_MAX = 1.0
OPERATION_SECONDS_MAX = 2.0
"""A write with the read after it, or a login with a read: within a client's patience with one node."""
LOG_KIB_MAX = 100
LEAD_SECONDS = 1.0
"""The load has so long for itself before an attack."""
SETTLE_SECONDS = 2.0
"""After an attack, until what it held is given back."""


class Result(NamedTuple):
    """What one attack did."""

    outcome: Outcome
    leader_changes: int
    memory_mib: float
    log_kib: float
    connections: str
    """How many the attacker made."""

    def row(self) -> str:
        """The figures of the table, after the name."""
        outcome = self.outcome
        return (
            f"{outcome.operations:5} {len(outcome.errors):6} {outcome.longest_seconds:6.2f} s"
            f" {outcome.longest_login_seconds:6.2f} s {self.leader_changes:7} {self.memory_mib:4.0f} MiB"
            f" {outcome.longest_probe_seconds:6.2f} s {self.log_kib:4.0f} KiB {self.connections:>6}"
        )

    def problems(self) -> list[str]:
        """What the attack achieved; empty for nothing."""
        outcome = self.outcome
        found = {
            "leader changed": self.leader_changes > 0,
            f"wrong: {next(iter(outcome.wrong), '')}": bool(outcome.wrong),
            f"error: {next(iter(outcome.errors), '')}": bool(outcome.errors),
            "slow": max(outcome.longest_seconds, outcome.longest_login_seconds) > OPERATION_SECONDS_MAX,
            "memory": self.memory_mib > RESIDENT_MIB_MAX,
            "probe": outcome.probes_failed > 0 or outcome.longest_probe_seconds > PROBE_SECONDS_MAX,
            "log": self.log_kib > LOG_KIB_MAX,
        }
        return [text for text, is_so in found.items() if is_so]


def resident_mib_max(pid: int) -> float:
    """The most that a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def forget_resident_max(pid: int) -> None:
    """Measure the largest resident memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def attack_once(cluster: PlainCluster, name: str, listed: Listed, seconds: float) -> Result:
    """Attack the leader beside the load."""
    leader = await cluster.wait_for_leader()
    node = cluster.nodes[leader]
    assert node.process is not None
    term = await term_of(cluster, leader)
    logins = await cluster.renew_logins(leader, int((LEAD_SECONDS + seconds + SETTLE_SECONDS) / LOGIN_PAUSE_SECONDS))
    forget_resident_max(node.process.pid)
    logged_bytes = size_bytes(node.console)
    outcome = Outcome()
    async with cluster.client() as client:
        tasks = [asyncio.create_task(write_and_check(client, number, outcome)) for number in range(WRITERS)]
        tasks.append(asyncio.create_task(probe(lambda: cluster.admin(leader, "/livez"), outcome)))
        tasks.append(asyncio.create_task(log_in_and_read(logins, outcome)))
        await asyncio.sleep(LEAD_SECONDS)
        connections = await run_attacker(cluster, node, name, listed, seconds)
        await asyncio.sleep(SETTLE_SECONDS)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    for login in logins:
        await login.close()
    ended = await cluster.wait_for_leader()
    log_kib = (size_bytes(node.console) - logged_bytes) / 1024
    changes = await term_of(cluster, ended) - term
    return Result(outcome, changes, resident_mib_max(node.process.pid), log_kib, connections)


async def run_attacker(cluster: PlainCluster, node: ProcessNode, name: str, listed: Listed, seconds: float) -> str:
    """Attack a node for some seconds, from another process; what the attacker says of its connections."""
    ports: dict[Port, Endpoint] = {Port.GRPC: node.grpc, Port.ADMIN: node.admin, Port.RAFT: node.raft}
    port, credentials = ports[listed.port], await cluster.give(listed.given)
    flags = ["--tls"] if cluster.has_tls else []
    attacker = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "verification.attack.attackers", name, port.addr, str(port.port), str(seconds), *flags),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **credentials.environment()},
    )
    said, _ = await attacker.communicate()
    if attacker.returncode:
        raise RuntimeError(f"the attacker itself failed, exit code {attacker.returncode}")
    return said.decode().strip()


async def term_of(cluster: PlainCluster, node_id: int) -> int:
    status = await cluster.status(node_id)
    assert status is not None
    return int(status["current_term"])


async def run(cluster: PlainCluster, attacks: dict[str, Listed], seconds: float) -> int:
    """Run the attacks one after the other; returns the exit code."""
    print(f"{'attack':37}   ops errors  slowest    login leaders   memory    probe      log  again")
    failed = 0
    async with cluster:
        await cluster.prepare()
        for name, listed in attacks.items():
            result = await attack_once(cluster, name, listed, seconds)
            problems = result.problems()
            failed += bool(problems)
            print(f"{name:37} {result.row()}  {'; '.join(problems) or 'held'}", flush=True)
    print(f"{len(attacks) - failed} of {len(attacks)} attacks achieved nothing")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make attack", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    parser.add_argument("--secured", action="store_true", help="with TLS on all ports, passwords, users and tokens")
    parser.add_argument("--only", choices=EVERY_ATTACK, action="append", help="this attack; may be given several times")
    options = parser.parse_args(arguments)
    attacks = SECURED_ATTACKS if options.secured else PLAIN_ATTACKS
    if unknown := [name for name in options.only or () if name not in attacks]:
        parser.error(f"only with --secured: {', '.join(unknown)}")
    chosen = {name: attacks[name] for name in options.only or attacks}
    if not has_openssl() and (left_out := [name for name, listed in chosen.items() if listed.openssl]):
        print(f"left out, because there is no program openssl: {', '.join(left_out)}")
        chosen = {name: listed for name, listed in chosen.items() if not listed.openssl}
    return asyncio.run(run(SecuredCluster(3) if options.secured else PlainCluster(3), chosen, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
