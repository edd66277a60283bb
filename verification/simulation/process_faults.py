"""Faults of processes, power and clocks, hostile bytes, and orderly restarts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from verification.simulation.cluster import SimulatedCluster
from verification.simulation.machine import Machine
from verification.simulation.nemesis import Inflict, Nemesis

_PICKLE_BOMB = b"\x80\x04cos\nsystem\n(S'exit 1'\ntR."


async def _down(machines: Sequence[Machine], source: random.Random, *, power_lost: bool) -> None:
    """Kill machines together and start each again a while later."""
    for machine in machines:
        machine.kill(power_lost=power_lost)
    for machine in source.sample(machines, len(machines)):
        await asyncio.sleep(source.choice((0.01, 0.1, 0.4)) * source.random())
        if not machine.removed:
            machine.start()


async def kill_one(nemesis: Nemesis, source: random.Random) -> None:
    await _down([nemesis.any(source)], source, power_lost=False)


async def kill_leader(nemesis: Nemesis, source: random.Random) -> None:
    await _down([nemesis.leader(source)], source, power_lost=False)


async def kill_minority(nemesis: Nemesis, source: random.Random) -> None:
    await _down(nemesis.minority(source), source, power_lost=False)


async def kill_majority(nemesis: Nemesis, source: random.Random) -> None:
    await _down(nemesis.majority(source), source, power_lost=False)


async def kill_all(nemesis: Nemesis, source: random.Random) -> None:
    await _down(nemesis.all(), source, power_lost=False)


async def kill_rolling(nemesis: Nemesis, source: random.Random) -> None:
    for machine in nemesis.all():
        await _down([machine], source, power_lost=False)


async def power_one(nemesis: Nemesis, source: random.Random) -> None:
    await _down([nemesis.any(source)], source, power_lost=True)


async def power_leader(nemesis: Nemesis, source: random.Random) -> None:
    await _down([nemesis.leader(source)], source, power_lost=True)


async def power_minority(nemesis: Nemesis, source: random.Random) -> None:
    await _down(nemesis.minority(source), source, power_lost=True)


async def power_all(nemesis: Nemesis, source: random.Random) -> None:
    await _down(nemesis.all(), source, power_lost=True)


async def kill_at_persist_step(nemesis: Nemesis, source: random.Random) -> None:
    """Have a process die in the middle of making something durable, some steps from now; also while it starts."""
    machine = source.choice((nemesis.any, nemesis.leader, nemesis.follower))(source)
    for _ in range(source.randint(1, 3)):
        steps = source.choice((0, 1, 2, 3, 5, 8, 13, 30))
        if machine.process is None:
            machine.start(steps_left=steps)
        else:
            machine.process.loop.steps_left = steps
        for _ in range(60):
            await asyncio.sleep(0.01)
            if machine.process is None:
                break
    if not machine.removed:
        machine.start()


async def pause_one(nemesis: Nemesis, source: random.Random) -> None:
    await _pause([nemesis.any(source)], source)


async def pause_leader(nemesis: Nemesis, source: random.Random) -> None:
    """Longer than an election takes: the old leader wakes up believing in itself."""
    await _pause([nemesis.leader(source)], source)


async def pause_majority(nemesis: Nemesis, source: random.Random) -> None:
    await _pause(nemesis.majority(source), source)


async def _pause(machines: Sequence[Machine], source: random.Random) -> None:
    processes = [machine.process for machine in machines if machine.process is not None]
    for process in processes:
        process.loop.pause()
    try:
        await asyncio.sleep(source.choice((0.05, 0.3, 0.7, 1.5)) * (0.5 + source.random()))
    finally:
        for process in processes:
            process.loop.resume()


async def restart_orderly(nemesis: Nemesis, source: random.Random) -> None:
    """Stop a node as SIGTERM does; the operator starts it again."""
    source.choice((nemesis.any, nemesis.leader))(source).stop()


async def clock_jump(nemesis: Nemesis, source: random.Random) -> None:
    """Set the wall clock of one node wrong by a second, five minutes, an hour or a day."""
    machine = nemesis.any(source)
    offset_ms = source.choice((-1, 1)) * source.choice((1_000, 300_000, 3_600_000, 86_400_000))
    set_wall_clock(nemesis.cluster, machine, offset_ms)


def set_wall_clock(cluster: SimulatedCluster, machine: Machine, offset_ms: int) -> None:
    """Set a node's wall clock so far off; it stays so over restarts."""
    machine.wall_offset_ms = offset_ms
    if machine.process is not None:
        cluster.clock.wall_offset_ms[machine.process.loop] = offset_ms


async def clock_drift(nemesis: Nemesis, source: random.Random) -> None:
    """From its next start on, a node's clocks run too fast or too slow."""
    machine = nemesis.any(source)
    machine.rate = 1.0 + source.uniform(-0.05, 0.05)
    await _down([machine], source, power_lost=False)


async def hostile_bytes(nemesis: Nemesis, source: random.Random) -> None:
    """Give a node payloads that are no raft messages, as if a member had sent them."""
    process = nemesis.any(source).process
    if process is None:
        return
    others = [i for i in nemesis.cluster.machines if i != process.machine.node_id]
    driver = process.consensus.replica.driver
    for _ in range(source.randint(1, 20)):
        payload = source.choice(
            (
                b"",
                source.randbytes(source.randint(1, 200)),
                _PICKLE_BOMB,
                b"\x78\xda" + source.randbytes(50),
                b"\xdd\xff\xff\xff\xff" + source.randbytes(10),
                b"\x98\x00" + source.randbytes(6),
            )
        )
        sender = source.choice(others)
        process.loop.call_soon(driver.incoming, sender, payload)
        await asyncio.sleep(0.01 * source.random())


PROCESS_FAULTS: dict[str, Inflict] = {
    "kill one": kill_one,
    "kill leader": kill_leader,
    "kill minority": kill_minority,
    "kill majority": kill_majority,
    "kill all": kill_all,
    "kill rolling": kill_rolling,
    "power loss of one": power_one,
    "power loss of leader": power_leader,
    "power loss of minority": power_minority,
    "power loss of all": power_all,
    "kill at persist step": kill_at_persist_step,
    "pause one": pause_one,
    "pause leader": pause_leader,
    "pause majority": pause_majority,
    "orderly restart": restart_orderly,
    "clock jump": clock_jump,
    "clock drift": clock_drift,
    "hostile bytes": hostile_bytes,
}
