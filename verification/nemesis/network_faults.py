"""Links that hold back, delay, lose, cut, garble; splits of every shape; strangers on the raft port.

Each fault checks that it took effect: harm that no byte met proves nothing. Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Iterable
from contextlib import closing

from metasrv.testing.link import LinkFault
from metasrv.testing.network import CLIENTS, why_unavailable
from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import Fault, any_follower, network_of

HELD = LinkFault(held=True)
SECONDS_MIN = 1.0
SECONDS_MAX = 3.5
STRIKE_SECONDS_MAX = 10.0
"""Random harm goes on until it has hit something, but no longer than this."""

Pairs = list[tuple[int, int]]


def all_pairs(cluster: ProcessCluster) -> Pairs:
    nodes = sorted(cluster.nodes)
    return [(source, target) for source in nodes for target in nodes if source != target]


def between(one: Iterable[int], other: Iterable[int]) -> Pairs:
    """Both directions of every pair of a node of each group."""
    others = list(other)
    return [pair for a in one for b in others for pair in ((a, b), (b, a))]


async def isolate_leader(cluster: ProcessCluster, source: random.Random) -> None:
    leader = await cluster.wait_for_leader()
    await _hold(cluster, between([leader], set(cluster.nodes) - {leader}), source)


async def isolate_follower(cluster: ProcessCluster, source: random.Random) -> None:
    follower = await any_follower(cluster, source)
    await _hold(cluster, between([follower], set(cluster.nodes) - {follower}), source)


async def isolate_everybody(cluster: ProcessCluster, source: random.Random) -> None:
    """Cut every link: no quorum anywhere."""
    await _hold(cluster, all_pairs(cluster), source)


async def split(cluster: ProcessCluster, source: random.Random) -> None:
    """A minority with the leader on one side, a majority on the other."""
    leader = await cluster.wait_for_leader()
    others = [node_id for node_id in sorted(cluster.nodes) if node_id != leader]
    company = source.sample(others, (len(cluster.nodes) - 1) // 2 - 1)
    minority = {leader, *company}
    await _hold(cluster, between(minority, set(cluster.nodes) - minority), source)


async def bridge(cluster: ProcessCluster, source: random.Random) -> None:
    """Cut the link between the leader and one follower; the others reach both."""
    leader = await cluster.wait_for_leader()
    await _hold(cluster, between([leader], [await any_follower(cluster, source)]), source)


async def leader_is_deaf(cluster: ProcessCluster, source: random.Random) -> None:
    """One way: the leader can send but not receive."""
    leader = await cluster.wait_for_leader()
    await _hold(cluster, [pair for pair in all_pairs(cluster) if pair[1] == leader], source)


async def leader_is_mute(cluster: ProcessCluster, source: random.Random) -> None:
    """One way: the leader can receive but not send."""
    leader = await cluster.wait_for_leader()
    await _hold(cluster, [pair for pair in all_pairs(cluster) if pair[0] == leader], source)


async def flapping(cluster: ProcessCluster, source: random.Random) -> None:
    """Cut and heal links again and again, other directions each time."""
    network = network_of(cluster)
    for _ in range(8):
        pairs = all_pairs(cluster)
        network.harm(HELD, source.sample(pairs, source.randint(1, len(pairs) - 1)))
        await asyncio.sleep(source.uniform(0.1, 0.5))
        network.heal()
        await asyncio.sleep(source.uniform(0.0, 0.2))


async def reset_all(cluster: ProcessCluster, source: random.Random) -> None:
    """Reset every connection between nodes again and again; sometimes refuse new ones for a while."""
    network = network_of(cluster)
    for _ in range(5):
        if source.random() < 0.5:
            network.harm(LinkFault(refuse=True), all_pairs(cluster))
        if network.reset() == 0:
            raise AssertionError("there was no connection between nodes to reset")
        await asyncio.sleep(source.uniform(0.05, 0.4))
        network.heal()
        await cluster.wait_for_leader()


async def half_open(cluster: ProcessCluster, source: random.Random) -> None:
    """End connections on one side only; the other goes on sending into the void."""
    network = network_of(cluster)
    leader = await cluster.wait_for_leader()
    follower = await any_follower(cluster, source)
    dialler, target = source.sample([leader, follower], 2)
    if network.half_open(dialler, target) == 0:
        raise AssertionError(f"node {dialler} had no connection to node {target}")
    await asyncio.sleep(source.uniform(SECONDS_MIN, SECONDS_MAX))
    network.heal()


async def slow(cluster: ProcessCluster, source: random.Random) -> None:
    """Delay and jitter everywhere, from a city's network to far above the heartbeat interval."""
    delay_s = source.choice([0.005, 0.03, 0.1, 0.3])
    await _for_a_while(cluster, LinkFault(delay_s=delay_s, jitter_s=delay_s * source.random()), source, "delayed")


async def lossy(cluster: ProcessCluster, source: random.Random) -> None:
    fault = LinkFault(loss=source.choice([0.01, 0.05, 0.2]), jitter_s=0.002)
    await _for_a_while(cluster, fault, source, "lost, sent again")


async def narrow(cluster: ProcessCluster, source: random.Random) -> None:
    """Little bandwidth everywhere, while a follower needs to catch up."""
    network = network_of(cluster)
    follower = await any_follower(cluster, source)
    await cluster.kill(follower)
    await asyncio.sleep(1.0)
    network.harm(LinkFault(bytes_per_second=source.choice([30_000, 100_000, 400_000])), all_pairs(cluster))
    cluster.start(follower)
    await _until_struck(cluster, source, "throttled")


async def cut_frames(cluster: ProcessCluster, source: random.Random) -> None:
    """Connections break in the middle of a frame."""
    await _for_a_while(cluster, LinkFault(cut=source.choice([0.002, 0.02])), source, "cut mid-frame")


async def flip_bits(cluster: ProcessCluster, source: random.Random) -> None:
    await _for_a_while(cluster, LinkFault(corrupt=source.choice([0.002, 0.02])), source, "bit flipped")


async def drop_bytes(cluster: ProcessCluster, source: random.Random) -> None:
    """Drop pieces of streams without a reset."""
    await _for_a_while(cluster, LinkFault(shorten=source.choice([0.002, 0.02])), source, "bytes missing")


async def insert_garbage(cluster: ProcessCluster, source: random.Random) -> None:
    await _for_a_while(cluster, LinkFault(garbage=source.choice([0.002, 0.02])), source, "garbage inserted")


async def cut_off_clients(cluster: ProcessCluster, source: random.Random) -> None:
    """Clients lose their connections in the middle of calls: reset, cut within a message, or silent for a while."""
    network = network_of(cluster)
    pairs = between([CLIENTS], cluster.nodes)
    before = network.strikes.total()
    for _ in range(6):
        choice = source.randrange(4)
        if choice == 0:
            network.reset(lambda dialler, _target: dialler == CLIENTS)
        elif choice == 1:
            network.harm(LinkFault(cut=0.05), pairs)
        elif choice == 2:
            network.harm(LinkFault(delay_s=0.02, jitter_s=0.1, loss=0.05), pairs)
        else:  # one way only: requests arrive and are executed, their answers are late
            network.harm(HELD, [(node_id, CLIENTS) for node_id in cluster.nodes])
        await asyncio.sleep(source.uniform(0.2, 0.8))
        if source.random() < 0.7:
            network.reset(lambda dialler, _target: dialler == CLIENTS)
        network.heal()
        await asyncio.sleep(source.uniform(0.0, 0.3))
    if network.strikes.total() == before:
        raise AssertionError("no client was harmed")


async def hostile_strangers(cluster: ProcessCluster, source: random.Random) -> None:
    """Strangers connect to every raft port: random bytes, absurd lengths, silence, floods of connections."""
    payloads = [
        source.randbytes(3000),
        struct.pack(">I", 2**31 - 1) + b"\1" + source.randbytes(200),
        struct.pack(">I", 60) + source.randbytes(60),
        b"GET / HTTP/1.1\r\nHost: raft\r\n\r\n",
        b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.",
        b"",
    ]
    for _ in range(6):
        calls = [
            _intrude(cluster, node_id, source.choice(payloads)) for node_id in sorted(cluster.nodes) for _ in range(10)
        ]
        if not any(await asyncio.gather(*calls)):
            raise AssertionError("no stranger got through to a raft port")
        await asyncio.sleep(source.uniform(0.0, 0.3))


async def _intrude(cluster: ProcessCluster, node_id: int, payload: bytes) -> bool:
    """Connect, send `payload`, and wait until the node ends it or a moment has passed; whether it connected."""
    endpoint = cluster.nodes[node_id].raft
    try:
        reader, writer = await asyncio.open_connection(endpoint.addr, endpoint.port)
    except OSError:
        return False
    with closing(writer):
        try:
            writer.write(payload)
            await asyncio.wait_for(reader.read(4096), 0.5)
        except (OSError, TimeoutError):
            return True
    return True


async def _hold(cluster: ProcessCluster, pairs: Pairs, source: random.Random) -> None:
    """Hold these links back for a while; what was held back arrives afterwards, or the connections are reset."""
    network = network_of(cluster)
    before = network.strikes["held back"]
    network.harm(HELD, pairs)
    await asyncio.sleep(source.uniform(SECONDS_MIN, SECONDS_MAX))
    if network.strikes["held back"] == before:
        raise AssertionError(f"nothing was sent over {pairs}")
    if source.random() < 0.5:
        concerned = set(pairs)
        network.reset(lambda dialler, target: (dialler, target) in concerned or (target, dialler) in concerned)
    network.heal()


async def _for_a_while(cluster: ProcessCluster, fault: LinkFault, source: random.Random, kind: str) -> None:
    network_of(cluster).harm(fault, all_pairs(cluster))
    await _until_struck(cluster, source, kind)


async def _until_struck(cluster: ProcessCluster, source: random.Random, kind: str) -> None:
    network = network_of(cluster)
    before = network.strikes[kind]
    await asyncio.sleep(source.uniform(SECONDS_MIN, SECONDS_MAX))
    deadline = asyncio.get_running_loop().time() + STRIKE_SECONDS_MAX
    while network.strikes[kind] == before:
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"harm of the kind {kind!r} hit no byte")
        await asyncio.sleep(0.05)
    network.heal()


NETWORK_FAULTS = [
    Fault(name, harm, why_unavailable)
    for name, harm in (
        ("isolate the leader", isolate_leader),
        ("isolate a follower", isolate_follower),
        ("isolate everybody", isolate_everybody),
        ("split, leader in minority", split),
        ("bridge", bridge),
        ("leader deaf (one-way)", leader_is_deaf),
        ("leader mute (one-way)", leader_is_mute),
        ("flapping links", flapping),
        ("connections reset, refused", reset_all),
        ("half-open connection", half_open),
        ("delay and jitter", slow),
        ("packet loss", lossy),
        ("throttle while catching up", narrow),
        ("cut mid-frame", cut_frames),
        ("bits flipped", flip_bits),
        ("bytes dropped", drop_bytes),
        ("garbage inserted", insert_garbage),
        ("clients cut off", cut_off_clients),
        ("strangers on the raft port", hostile_strangers),
    )
]
