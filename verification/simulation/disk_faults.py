"""Faults of disks and files; docs/faults.md has what else is tried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from verification.simulation.disk import Image
from verification.simulation.nemesis import Inflict, Nemesis

_SETTLE_SECONDS = 0.6


async def slow_syncs(nemesis: Nemesis, source: random.Random) -> None:
    """Each write takes long, at worst longer than an election."""
    machine = source.choice((nemesis.any, nemesis.leader))(source)
    seconds = source.choice((0.02, 0.1, 0.3, 1.0))
    machine.faults.slow_seconds = seconds
    machine.faults.slow_until = nemesis.cluster.scheduler.now + seconds * source.randint(2, 6)


async def syncs_fail(nemesis: Nemesis, source: random.Random) -> None:
    """A write is refused, or done but reported as failed: the node stops and is started again."""
    await _failing(nemesis, source, source.choice(("refused", "failed late")))


async def disk_full(nemesis: Nemesis, source: random.Random) -> None:
    await _failing(nemesis, source, "full")


async def _failing(nemesis: Nemesis, source: random.Random, what: str) -> None:
    machine = source.choice((nemesis.any, nemesis.leader, nemesis.follower))(source)
    machine.faulty = True
    machine.faults.errors.extend([what] * source.randint(1, 2))
    try:
        await asyncio.sleep(_SETTLE_SECONDS)
    finally:
        machine.faults.errors.clear()


async def disk_full_for_state(nemesis: Nemesis, source: random.Random) -> None:
    """The disk is full when entries are applied to the state."""
    machine = source.choice((nemesis.any, nemesis.leader))(source)
    machine.faulty = True
    machine.faults.state_full = source.randint(1, 3)
    try:
        await asyncio.sleep(_SETTLE_SECONDS)
    finally:
        machine.faults.state_full = 0


async def damage_files(nemesis: Nemesis, source: random.Random) -> None:
    """A file of a stopped node is damaged: it refuses to start, or recovers; it never serves what is wrong."""
    if not nemesis.may_lose_disk():
        return
    machine = nemesis.any(source)
    if machine.process is None:
        return
    older = machine.process.disk.image()
    await asyncio.sleep(0.3 * source.random())
    if machine.process is None or not nemesis.may_lose_disk():
        return
    machine.kill()
    if machine.image is not None:
        others = [other for other in nemesis.all() if other is not machine and other.process is not None]
        foreign = source.choice(others).process.disk.image() if others else older  # type: ignore[union-attr]
        machine.damaged = True
        machine.image = damaged(machine.image, older, foreign, source, nemesis.cluster.note)
    nemesis.watch_for(machine)
    await asyncio.sleep(0.2 * source.random())
    machine.start()


def damaged(image: Image, older: Image, foreign: Image, source: random.Random, note: Callable[[str], None]) -> Image:
    """An image with one file damaged."""
    path = source.choice(sorted(image))
    content = bytearray(image[path])
    result = dict(image)
    what = source.choice(("flip", "flip", "flip many", "truncate", "zero tail", "zero", "stale", "foreign", "missing"))
    note(f"{what}: {path}")
    if not content and what != "missing":
        return result
    match what:
        case "flip":
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        case "flip many":
            for _ in range(source.randint(2, 200)):
                content[source.randrange(len(content))] = source.randrange(256)
        case "truncate":
            del content[source.randrange(len(content)) :]
        case "zero tail":
            start = source.randrange(len(content))
            content[start:] = bytes(len(content) - start)
        case "zero":
            content[:] = bytes(len(content))
        case "stale":
            content[:] = older.get(path, bytes(content))
        case "foreign":
            content[:] = foreign.get(path, b"")
        case "missing":
            del result[path]
            return result
    result[path] = bytes(content)
    return result


DISK_FAULTS: dict[str, Inflict] = {
    "slow syncs": slow_syncs,
    "syncs fail": syncs_fail,
    "disk full": disk_full,
    "disk full for state": disk_full_for_state,
    "damaged files": damage_files,
}
