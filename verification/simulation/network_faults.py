"""Faults of the network between nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from itertools import permutations

from verification.simulation.nemesis import Inflict, Nemesis
from verification.simulation.network import Weather

Path = tuple[int, int]


async def _cut(nemesis: Nemesis, source: random.Random, paths: Iterable[Path]) -> None:
    """Cut some directed paths for a while."""
    chosen = list(paths)
    for path in chosen:
        nemesis.cluster.network.cut(*path)
    try:
        await asyncio.sleep(source.choice((0.1, 0.4, 1.0)) * (0.5 + source.random()))
    finally:
        for path in chosen:
            nemesis.cluster.network.mend(*path)


def _between(one: Iterable[int], other: Iterable[int]) -> list[Path]:
    others = list(other)
    return [path for a in one for b in others if a != b for path in ((a, b), (b, a))]


def _nodes(nemesis: Nemesis) -> list[int]:
    return sorted(nemesis.cluster.machines)


async def isolate_leader(nemesis: Nemesis, source: random.Random) -> None:
    """Cut the leader off; clients still reach it, and must not read stale values."""
    await _cut(nemesis, source, _between([nemesis.leader(source).node_id], _nodes(nemesis)))


async def isolate_one(nemesis: Nemesis, source: random.Random) -> None:
    await _cut(nemesis, source, _between([nemesis.any(source).node_id], _nodes(nemesis)))


async def split(nemesis: Nemesis, source: random.Random) -> None:
    nodes = _nodes(nemesis)
    side = set(source.sample(nodes, source.randint(1, len(nodes) - 1)))
    await _cut(nemesis, source, _between(side, [i for i in nodes if i not in side]))


async def bridge(nemesis: Nemesis, source: random.Random) -> None:
    """Split the cluster into two halves that only one node can reach both of."""
    nodes = _nodes(nemesis)
    source.shuffle(nodes)
    middle = len(nodes) // 2
    await _cut(nemesis, source, _between(nodes[:middle], nodes[middle + 1 :]))


async def ring(nemesis: Nemesis, source: random.Random) -> None:
    """Let each node reach only two others."""
    nodes = _nodes(nemesis)
    source.shuffle(nodes)
    near = {frozenset((nodes[i], nodes[i - 1])) for i in range(len(nodes))}
    await _cut(nemesis, source, [(a, b) for a, b in permutations(nodes, 2) if frozenset((a, b)) not in near])


async def one_way(nemesis: Nemesis, source: random.Random) -> None:
    """One node can send but not receive, or the other way round."""
    node_id = source.choice((nemesis.any, nemesis.leader))(source).node_id
    others = [i for i in _nodes(nemesis) if i != node_id]
    hears = source.random() < 0.5
    await _cut(nemesis, source, [(node_id, i) if hears else (i, node_id) for i in others])


async def random_paths(nemesis: Nemesis, source: random.Random) -> None:
    paths = [path for path in permutations(_nodes(nemesis), 2) if source.random() < 0.35]
    await _cut(nemesis, source, paths)


async def deaf_leader(nemesis: Nemesis, source: random.Random) -> None:
    """Delay the answers to the leader, then cut what it sends: it still receives old answers while another is elected.

    What it reads without asking the others again is stale.
    """
    leader = nemesis.leader(source).node_id
    network = nemesis.cluster.network
    others = [i for i in _nodes(nemesis) if i != leader]
    try:
        for step in range(14):
            # Delays grow step by step: a leader without answers for an election timeout steps down.
            for i in others:
                network.slow_paths[i, leader] = 0.06 * step
            await asyncio.sleep(0.06)
        for i in others:
            network.cut(leader, i)
        for _ in range(40):
            await asyncio.sleep(0.02)
            nemesis.probe(leader, source.choice(others))
    finally:
        for i in others:
            network.slow_paths.pop((i, leader), None)
            network.mend(leader, i)


async def flapping(nemesis: Nemesis, source: random.Random) -> None:
    paths = _between([nemesis.any(source).node_id], _nodes(nemesis))
    network = nemesis.cluster.network
    for _ in range(source.randint(3, 10)):
        for path in paths:
            network.cut(*path)
        try:
            await asyncio.sleep(0.25 * source.random())
        finally:
            for path in paths:
                network.mend(*path)
        await asyncio.sleep(0.25 * source.random())


async def break_connections(nemesis: Nemesis, source: random.Random) -> None:
    """Reset connections again and again: what is under way is lost."""
    for _ in range(source.randint(1, 6)):
        nemesis.cluster.network.break_some(source)
        await asyncio.sleep(0.2 * source.random())


async def slow_paths(nemesis: Nemesis, source: random.Random) -> None:
    network = nemesis.cluster.network
    chosen = [path for path in permutations(_nodes(nemesis), 2) if source.random() < 0.4]
    for path in chosen:
        network.slow_paths[path] = source.choice((0.005, 0.05, 0.3))
    try:
        await asyncio.sleep(0.3 + source.random())
    finally:
        for path in chosen:
            network.slow_paths.pop(path, None)


async def under_weather(nemesis: Nemesis, source: random.Random, weather: Weather) -> None:
    """Have this weather for a while."""
    with nemesis.cluster.network.under(weather):
        await asyncio.sleep(0.3 + source.random())


async def jitter(nemesis: Nemesis, source: random.Random) -> None:
    await under_weather(nemesis, source, Weather(0.001, source.choice((0.005, 0.03, 0.2))))


async def loss(nemesis: Nemesis, source: random.Random) -> None:
    await under_weather(nemesis, source, Weather(loss=source.choice((0.02, 0.1, 0.3))))


async def wild(nemesis: Nemesis, source: random.Random) -> None:
    """Drop, double and reorder raft messages, which no connection does."""
    await under_weather(nemesis, source, Weather(wild=source.choice((0.05, 0.2, 0.5))))


NETWORK_FAULTS: dict[str, Inflict] = {
    "isolate leader": isolate_leader,
    "isolate one": isolate_one,
    "split": split,
    "bridge": bridge,
    "ring": ring,
    "one way": one_way,
    "random paths": random_paths,
    "deaf leader": deaf_leader,
    "flapping": flapping,
    "break connections": break_connections,
    "slow paths": slow_paths,
    "jitter": jitter,
    "loss": loss,
    "drop, double, reorder": wild,
}
