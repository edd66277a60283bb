"""A byte that flips in the state file of a running node, and what has to come of it.

Within a minute the node says so in status, readiness, metrics and log, with the key, and stops serving. Then it is
rebuilt as docs/runbooks/damaged-copy.md says, word by word. Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from metasrv.client import AsyncClient
from metasrv.model.errors import MetasrvError
from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import Fault, any_follower, ask

FOUND_SECONDS_MAX = 60.0
REBUILT_SECONDS_MAX = 60.0
VALUE_SIZE_BYTES = 32 * 1024
"""Pages of its own in the file, which no other write brings into the write-ahead log."""
_LOOK_SECONDS = 0.2


async def flip_at_a_follower(cluster: ProcessCluster, source: random.Random) -> None:
    await _flip_and_rebuild(cluster, source, await any_follower(cluster, source))


async def flip_at_the_leader(cluster: ProcessCluster, source: random.Random) -> None:
    await _flip_and_rebuild(cluster, source, await cluster.wait_for_leader())


async def _flip_and_rebuild(cluster: ProcessCluster, source: random.Random, victim: int) -> None:
    leads = await cluster.wait_for_leader() == victim
    key, value = f"byte/{source.getrandbits(32):08x}", source.randbytes(VALUE_SIZE_BYTES)
    async with cluster.client(*cluster.nodes) as client:
        await _write(client, key, value)
    await _until_in_the_file(cluster, victim)
    if leads:
        await _lead_again(cluster, victim)
    flip(state_file(cluster, victim), value, source)
    await require_found(cluster, victim, key)
    await require_rebuilt(cluster, victim, key, value)


async def _write(client: AsyncClient, key: str, value: bytes) -> None:
    """Write a record of this key alone, however often it takes: the same value twice does no harm."""
    deadline = time.monotonic() + FOUND_SECONDS_MAX
    while True:
        try:
            await client.upsert(key, value)
            return
        except MetasrvError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


async def _until_in_the_file(cluster: ProcessCluster, victim: int) -> None:
    """An orderly stop moves the write-ahead log into the file, as sixteen megabytes of writes would."""
    await cluster.restart(victim)
    await cluster.wait_for_leader(members=len(cluster.nodes))
    await cluster.wait_for_ready(victim)


async def _lead_again(cluster: ProcessCluster, victim: int) -> None:
    """Give the leadership back to the node that was restarted."""
    deadline = time.monotonic() + FOUND_SECONDS_MAX
    while (leader := await cluster.wait_for_leader(members=len(cluster.nodes))) != victim:
        _require(time.monotonic() < deadline, f"node {victim} does not lead again")
        await ask(cluster, leader, f"/v1/ctrl/trigger_transfer_leader?to={victim}")
        await asyncio.sleep(_LOOK_SECONDS)


def state_file(cluster: ProcessCluster, node_id: int) -> Path:
    return cluster.nodes[node_id].raft_dir / "df_meta" / "V004" / "state" / "state.db"


def flip(path: Path, value: bytes, source: random.Random) -> None:
    """Change one bit of a value on the disk, under the running node. SQLite cuts a value into pieces of a page."""
    content = path.read_bytes()
    piece = value[-512:]
    start = content.index(piece)
    at = start + source.randrange(len(piece))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1 << source.randrange(8)]))


async def require_found(cluster: ProcessCluster, victim: int, key: str) -> None:
    """The alarm in all its places, and that the node refuses; the others have a leader and name it."""
    deadline = time.monotonic() + FOUND_SECONDS_MAX
    while not (await _copies(cluster, victim)).get("damage"):
        if time.monotonic() > deadline:
            words = cluster.logs(victim)
            raise AssertionError(f"node {victim}: the flipped byte was not found in {FOUND_SECONDS_MAX:g} s\n{words}")
        await asyncio.sleep(_LOOK_SECONDS)
    found = await _copies(cluster, victim)
    _require(f"key {key!r}" in found["damage"], f"the status does not name the key: {found}")
    _require(found["serves"] is False, f"node {victim} serves on: {found}")
    _, ready = await cluster.admin(victim, "/readyz")
    _require("[-]copy failed" in ready, f"readiness does not show it: {ready}")
    _require(await ask(cluster, victim, "/readyz") == 503, f"node {victim} is ready")
    _, metrics = await cluster.admin(victim, "/v1/metrics")
    _require("metasrv_node_copy_damaged 1" in metrics.splitlines(), "the metrics do not show it")
    log = cluster.logs(victim, lines=10_000)
    _require(f"copy of the state is damaged: {found['damage']}" in log, "the log does not say it")
    async with cluster.client(victim, timeout_ms=2_000) as client:
        try:
            answer: object = await client.get(key, stale=True)
        except MetasrvError as error:
            answer = error
    _require(isinstance(answer, MetasrvError), f"node {victim} answers from its damaged copy: {answer}")
    _require(await cluster.wait_for_leader(other_than=victim) != victim, f"node {victim} leads on")
    other = next(node_id for node_id in cluster.nodes if node_id != victim)
    deadline = time.monotonic() + FOUND_SECONDS_MAX
    while str(victim) not in (await _copies(cluster, other)).get("differing", {}):
        _require(time.monotonic() < deadline, f"node {other} does not name node {victim}")
        await asyncio.sleep(_LOOK_SECONDS)


async def require_rebuilt(cluster: ProcessCluster, victim: int, key: str, value: bytes) -> None:
    """The runbook: look at the others, stop, start once with --rebuild, see that it is ready, start it as usual."""
    for node_id in cluster.nodes:
        if node_id != victim:
            found = await _copies(cluster, node_id)
            _require(found.get("damage") is None, f"node {node_id} is damaged too: {found}")
    node = cluster.nodes[victim]
    before = dict(node.settings)
    await cluster.stop(victim)
    node.settings["join"] = [str(other.advertised) for other in cluster.nodes.values() if other is not node]
    node.write_config()
    cluster.start(victim, "--rebuild")
    await cluster.wait_for_leader(members=len(cluster.nodes), timeout_s=REBUILT_SECONDS_MAX)
    await cluster.wait_for_ready(victim, timeout_s=REBUILT_SECONDS_MAX)
    await cluster.stop(victim)
    node.settings.clear()
    node.settings.update(before)
    node.write_config()
    cluster.start(victim)
    await cluster.wait_for_leader(members=len(cluster.nodes), timeout_s=REBUILT_SECONDS_MAX)
    await cluster.wait_for_ready(victim, timeout_s=REBUILT_SECONDS_MAX)
    found = await _copies(cluster, victim)
    _require(not found.get("damage") and found.get("serves") is True, f"node {victim} is not well: {found}")
    _require(len(list(node.raft_dir.glob("aside-*/df_meta"))) > 0, "the old data was not moved aside")
    async with cluster.client(victim) as client:
        record = await client.get(key)
    _require(record is not None and record.data == value, f"node {victim} does not hold what was written")


async def _copies(cluster: ProcessCluster, node_id: int) -> dict[str, Any]:
    status = await cluster.status(node_id)
    return {} if status is None else dict(status["copies"])


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


COPY_FAULTS = [
    Fault("flipped byte, follower", flip_at_a_follower),
    Fault("flipped byte, leader", flip_at_the_leader),
]
