"""Faults of a running node's copy of the state: a byte flips, a row is lost, another value is applied.

The record that is harmed is one that nobody else writes, so that only the proof of the copies can find it.
`copy_checks.py` says what must come of it.
"""

from __future__ import annotations

import asyncio
import random

from metasrv.model import commands as c
from metasrv.model.errors import RequestError
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.digest import DIGEST_MASK
from metasrv.state.format import META_APPLIED, applied_out
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.machine import Process
from verification.simulation.nemesis import Inflict, Nemesis
from verification.simulation.proving import Harm

KEYS = "byte/"
"""Before all keys that clients use and watch."""
_TIMEOUT_MS = 1_500
_APPLIED_SECONDS_MAX = 1.0
_ROW = "SELECT data, checksum FROM kv WHERE key = ?"


async def flipped_byte(nemesis: Nemesis, source: random.Random) -> None:
    """A byte of a value or of its checksum changes in one node's file."""
    process, key = await _somebody_with_record(nemesis, source)
    if process is None:
        return
    data, checksum = process.state._store.execute(_ROW, (key,)).fetchone()
    if source.random() < 0.7:
        changed = bytearray(data)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        data = bytes(changed)
    else:
        checksum ^= 1 << source.randrange(32)
    process.state._store.execute("UPDATE kv SET data = ?, checksum = ? WHERE key = ?", (data, checksum, key))
    _note(process, Harm(key, (data, checksum)))


async def lost_row(nemesis: Nemesis, source: random.Random) -> None:
    """A row is gone from one node's file."""
    process, key = await _somebody_with_record(nemesis, source)
    if process is None:
        return
    process.state._store.execute("DELETE FROM kv WHERE key = ?", (key,))
    _note(process, Harm(key, None))


def apply_another_value(process: Process, key: str) -> None:
    """Leave a copy that is good in itself, as if this node alone had applied another value."""
    store, applied = process.state._store, process.state._applied
    record = store.read(key)
    if record is None:
        raise AssertionError(f"{key} is not there")
    gain = store.put(key, SeqV(record.seq, b"another value", record.meta or KVMeta()), record)
    process.state._applied = applied._replace(digest=(applied.digest + gain) & DIGEST_MASK)
    store.set_meta(META_APPLIED, applied_out(process.state._applied))
    process.machine.differs = True
    data, checksum = store.execute(_ROW, (key,)).fetchone()
    _note(process, Harm(key, (data, checksum)))


def is_harmed(process: Process) -> bool:
    """Whether the harm is still there: a power loss may take it back, and a snapshot replaces it."""
    machine = process.machine
    if machine.harm is not None:
        row = process.state._store.execute(_ROW, (machine.harm.key,)).fetchone()
        if row != machine.harm.row:
            machine.harm, machine.differs = None, False
    return machine.harm is not None


async def write_record(cluster: SimulatedCluster, node_id: int, key: str) -> Process | None:
    """Write a record through a node; its process once it has applied that, None when it did not come to that."""
    process = cluster.machines[node_id].process
    if process is None or not process.joined:
        return None

    async def put(asked: Process) -> c.Reply:
        command = c.Upsert(key, c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"the value of " + key.encode())
        return await asked.consensus.propose(command, _TIMEOUT_MS)

    try:
        await cluster.ask(node_id, put, _TIMEOUT_MS / 1000 + 0.5)
    except RequestError:
        return None
    deadline = cluster.scheduler.now + _APPLIED_SECONDS_MAX
    while process.alive and cluster.scheduler.now < deadline:
        if process.state.get(key, 0) is not None:
            return process
        await asyncio.sleep(0.01)
    return None


async def _somebody_with_record(nemesis: Nemesis, source: random.Random) -> tuple[Process | None, str]:
    key = f"{KEYS}{source.getrandbits(32):08x}"
    if not nemesis.may_lose_disk():
        return None, key
    machine = source.choice((nemesis.any, nemesis.leader))(source)
    process = await write_record(nemesis.cluster, machine.node_id, key)
    return (process if nemesis.may_lose_disk() else None), key


def _note(process: Process, harm: Harm) -> None:
    machine = process.machine
    machine.damaged, machine.harm = True, harm
    machine.world.witness.count("copies harmed")
    machine.world.note(f"the copy of node {machine.node_id} is harmed at {harm.key}")


COPY_FAULTS: dict[str, Inflict] = {"flipped byte": flipped_byte, "lost row": lost_row}
