"""Members that leave, are replaced by empty nodes under the same or another id, and move leadership about.

Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys

from metasrv.model.errors import DataDamagedError
from metasrv.testing.processes import DEADLINE_SECONDS, ProcessCluster
from verification.nemesis.fault import Fault, any_follower, any_node, ask

LEAVE_ATTEMPTS_MAX = 10
FILES_NOTICED_SECONDS_MAX = 10.0


async def leave(cluster: ProcessCluster, node_id: int) -> None:
    """Remove a node with the command that an operator uses, through the others; the node itself is not touched."""
    others = [node for other_id, node in cluster.nodes.items() if other_id != node_id and node.is_running]
    arguments = ["--leave-id", str(node_id)]
    for node in others:
        arguments += ["--leave-via", str(node.raft)]
    said = ""
    for attempt in range(LEAVE_ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(0.5)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "metasrv.cli.server",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode == 0:
            return
        said = output.decode(errors="replace")
    raise AssertionError(f"node {node_id} could not be removed in {LEAVE_ATTEMPTS_MAX} attempts: {said}")


async def replace_same_id(cluster: ProcessCluster, source: random.Random) -> None:
    """A node loses its disk and comes back empty under its id; half of the time it is removed before."""
    victim = await any_node(cluster, source)
    await cluster.kill(victim)
    if source.random() < 0.5:
        await cluster.wait_for_leader(other_than=victim)
        await leave(cluster, victim)
    cluster.rejoin_from_scratch(victim)
    cluster.start(victim)
    await _until_all_vote(cluster)


async def take_files_away(cluster: ProcessCluster, source: random.Random) -> None:
    """A running node's directory is moved away and comes back, or is removed for good: it must stop by itself."""
    victim = await any_node(cluster, source)
    node, is_moved = cluster.nodes[victim], source.random() < 0.5
    aside = node.raft_dir.with_name("aside")
    node.raft_dir.rename(aside)
    code = await cluster.wait_exit(victim, FILES_NOTICED_SECONDS_MAX)
    if code != DataDamagedError.exit_code:
        raise AssertionError(f"node {victim} ended with {code} without its files\n{cluster.logs(victim)}")
    if is_moved:
        shutil.rmtree(node.raft_dir, ignore_errors=True)
        aside.rename(node.raft_dir)
    else:
        shutil.rmtree(aside)
        cluster.rejoin_from_scratch(victim)
    cluster.start(victim)
    await _until_all_vote(cluster)


async def replace_other_id(cluster: ProcessCluster, source: random.Random) -> None:
    """A node dies for good; an empty one with a new id takes its place, before or after the old one leaves."""
    victim = await any_node(cluster, source)
    await cluster.kill(victim)
    await cluster.wait_for_leader(other_than=victim)
    if source.random() < 0.5:
        await leave(cluster, victim)
        cluster.forget(victim)
        await _add(cluster)
    else:
        await _add(cluster)
        await leave(cluster, victim)
        cluster.forget(victim)
    await _until_all_vote(cluster)


async def leave_alive(cluster: ProcessCluster, source: random.Random) -> None:
    """A follower is removed while it runs and goes on talking for a while; then it joins again, empty."""
    victim = await any_follower(cluster, source)
    await leave(cluster, victim)
    await asyncio.sleep(source.uniform(0.0, 1.5))
    await cluster.kill(victim)
    cluster.rejoin_from_scratch(victim)
    cluster.start(victim)
    await _until_all_vote(cluster)


async def kill_while_joining(cluster: ProcessCluster, source: random.Random) -> None:
    """Kill a joining node twice, once keeping its data; the leader may die meanwhile."""
    victim = await any_follower(cluster, source)
    await cluster.kill(victim)
    cluster.rejoin_from_scratch(victim)
    for _ in range(2):
        cluster.start(victim)
        await asyncio.sleep(source.uniform(0.2, 1.2))
        await cluster.kill(victim)
    if source.random() < 0.5:
        cluster.rejoin_from_scratch(victim)
    cluster.start(victim)
    await _until_all_vote(cluster)


async def transfer_leadership(cluster: ProcessCluster, source: random.Random) -> None:
    """Several hand-overs in a row, some to a node that cannot take it."""
    for _ in range(4):
        leader = await cluster.wait_for_leader()
        target = source.choice([*sorted(cluster.nodes), 99])
        await ask(cluster, leader, f"/v1/ctrl/trigger_transfer_leader?to={target}")
        await asyncio.sleep(source.uniform(0.05, 0.5))


async def _add(cluster: ProcessCluster) -> None:
    added = cluster.add_node()
    await cluster.open_network()
    cluster.start(added)
    statuses = await cluster.wait_for_statuses(
        lambda seen: all(str(added) in [voter["name"] for voter in status["voters"]] for status in seen.values()),
        f"node {added} to be a voter everywhere",
        2 * DEADLINE_SECONDS,
    )
    if added not in statuses:
        raise AssertionError(f"node {added} does not run")


async def _until_all_vote(cluster: ProcessCluster) -> None:
    names = sorted(map(str, cluster.nodes))
    await cluster.wait_for_statuses(
        lambda seen: all(sorted(voter["name"] for voter in status["voters"]) == names for status in seen.values()),
        f"exactly the nodes {', '.join(names)} to be voters",
        2 * DEADLINE_SECONDS,
    )


MEMBERSHIP_FAULTS = [
    Fault("replace, same id", replace_same_id),
    Fault("replace, another id", replace_other_id),
    Fault("leave alive, join again", leave_alive),
    Fault("kill -9 while joining", kill_while_joining),
    Fault("transfer leadership", transfer_leadership),
    Fault("files taken away", take_files_away),
]
