"""Faults of the byte streams between nodes, which frames, checks and handshakes must turn into broken connections.

TCP's checksum lets about one damaged packet in 65,000 pass, and a middle box may do anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from metasrv.model.types import Endpoint
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.handshake import LocalIdentity, Role
from metasrv.raft.peers.security import PeerSecurity
from verification.simulation.nemesis import Inflict, Nemesis
from verification.simulation.network import Weather
from verification.simulation.network_faults import under_weather
from verification.simulation.overtaking_faults import cut_off
from verification.simulation.security import OTHER_CLUSTER, STRANGER_INCARNATION, demands_proof, lets_strangers_in
from verification.simulation.streams import SimulatedStream, Streams
from verification.simulation.world import Wire

_STRANGER_MACHINE = 0
_NOWHERE = Endpoint("nowhere", 28103)
"""Where a stranger says that the member is."""
_WRONG_SECRET = b"a guess"
_STAY_SECONDS = 0.05


async def damaged_bytes(nemesis: Nemesis, source: random.Random) -> None:
    """Packets arrive changed, shortened, twice, late or not at all, unnoticed by TCP.

    Somebody may wait for missing bytes forever, so connections that lost some are reset at the end.
    """
    try:
        await under_weather(nemesis, source, Weather(damage=source.choice((0.01, 0.05, 0.3))))
    finally:
        nemesis.cluster.network.reset_incomplete()


async def breaks_within_frames(nemesis: Nemesis, source: random.Random) -> None:
    """Connections are reset after any byte, even of a handshake."""
    await under_weather(nemesis, source, Weather(breaks=source.choice((0.01, 0.05, 0.2))))


async def names_not_resolved(nemesis: Nemesis, source: random.Random) -> None:
    """Look-ups of host names fail or are not answered, while connections break and have to be dialled anew."""
    network = nemesis.cluster.network
    with network.under(Weather(unresolved=source.choice((0.3, 0.7, 1.0)))):
        for _ in range(source.randint(1, 3)):
            network.break_some(source)
            await asyncio.sleep(0.3 * source.random())


async def restart_behind_a_cut(nemesis: Nemesis, source: random.Random) -> None:
    """A node is cut off, killed and started again; what it sent before may arrive after what it sends then."""
    machine = nemesis.any(source)
    with cut_off(nemesis, machine.node_id):
        await asyncio.sleep(0.2 + 0.4 * source.random())
        machine.kill()
    if not machine.removed:
        machine.start()


async def strangers(nemesis: Nemesis, source: random.Random) -> None:
    """Callers from anywhere on the raft ports: bytes that are no frames, half a handshake, a wrong secret, silence."""
    for _ in range(source.randint(1, 8)):
        stranger = _Stranger(nemesis, source)
        course = source.choice((stranger.says_anything, stranger.goes_silent, stranger.pretends))
        task = asyncio.create_task(course(nemesis.any(source).endpoint))
        await asyncio.sleep(0.1 * source.random())
        if source.random() < 0.3:
            task.cancel()


class _Stranger:
    """A caller that is not a node of the cluster. Implements ConnectionEvents."""

    def __init__(self, nemesis: Nemesis, source: random.Random) -> None:
        cluster = nemesis.cluster
        self._nemesis = nemesis
        self._source = source
        self._streams = Streams(cluster.network, _STRANGER_MACHINE, cluster.loop, Wire(), source)

    async def says_anything(self, endpoint: Endpoint) -> None:
        """Send bytes that are no frames, or frames that announce gigabytes."""
        source = self._source
        await self._with_stream(
            endpoint,
            source.choice(
                (
                    b"GET / HTTP/1.1\r\n\r\n",
                    b"\xff\xff\xff\xff\x01",
                    b"\x00\x00\x00\x20\x06" + source.randbytes(40),
                    source.randbytes(source.randint(1, 300)),
                )
            ),
        )

    async def goes_silent(self, endpoint: Endpoint) -> None:
        await self._with_stream(endpoint, self._source.choice((b"", b"\x00\x00")))

    async def _with_stream(self, endpoint: Endpoint, said: bytes) -> None:
        stream = await self._connected(endpoint, asyncio.Protocol)
        if stream is not None:
            stream.write(said)
            await asyncio.sleep(_STAY_SECONDS * self._source.random())
            stream.close()

    async def pretends(self, endpoint: Endpoint) -> None:
        """Speak the protocol as a member would, except for the secret or the cluster's name."""
        source, cluster = self._source, self._nemesis.cluster
        node_id = source.choice(sorted(cluster.machines))
        cluster_id = source.choice((None, OTHER_CLUSTER)) if demands_proof(cluster.wire.security) else OTHER_CLUSTER
        identity = LocalIdentity(node_id, STRANGER_INCARNATION, _NOWHERE, cluster_id)
        security = PeerSecurity(source.choice((None, _WRONG_SECRET)), strict=False)
        made: list[DialledConnection] = []

        def make() -> DialledConnection:
            made.append(DialledConnection(identity, security, source.choice(tuple(Role)), None, self))
            return made[0]

        if await self._connected(endpoint, make) is not None:
            if await made[0].ready is not None:
                cluster.witness.count("strangers refused")
            made[0].abort("it has tried")

    async def _connected(self, endpoint: Endpoint, make: Callable[[], asyncio.Protocol]) -> SimulatedStream | None:
        try:
            stream = await self._streams.connect(endpoint)
        except OSError:
            return None  # nobody listens there at the moment
        stream.start(make())
        await asyncio.sleep(0)
        return stream

    def established(self, connection: Connection) -> None:
        cluster, remote = self._nemesis.cluster, connection.remote
        if remote is not None and not lets_strangers_in(cluster.wire.security, remote.cluster_id):
            cluster.witness.violation(f"node {remote.node_id} has let a stranger in")

    def flow_changed(self, connection: Connection) -> None:
        del connection

    def lost(self, connection: Connection) -> None:
        del connection

    def sent(self, connection: Connection, size_bytes: int) -> None:
        del connection, size_bytes

    def received(self, connection: Connection, size_bytes: int) -> None:
        del connection, size_bytes


WIRE_FAULTS: dict[str, Inflict] = {
    "damaged bytes": damaged_bytes,
    "breaks within frames": breaks_within_frames,
    "names not resolved": names_not_resolved,
    "restart behind a cut": restart_behind_a_cut,
    "strangers": strangers,
}
