"""pysyncobj's transport over the virtual network, with the behaviour of its TCP transport.

The node with the greater address dials, again after a while, and gives a connection up when nothing came for
`connectionTimeout`. What is sent without a connection is lost. There are no terms and no generations; the handshake is
the sender's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pysyncobj.transport import Transport

from metasrv.model.types import Endpoint
from metasrv.raft.core.translation import engine_node
from verification.simulation.loop import SimulatedLoop
from verification.simulation.network import Connection, Network

CONNECTION_TIMEOUT_SECONDS = 3.5
"""pysyncobj's default."""
RETRY_SECONDS = 0.2
"""In pysyncobj's favour: its default of connectionRetryTime, 5 s, is longer than most histories."""
CONNECT_TIMEOUT_SECONDS = 1.0


class StockTransport(Transport):  # type: ignore[misc]  # pysyncobj is untyped
    """Implements pysyncobj's Transport and the network's `End`. `arrived` is called after each message."""

    def __init__(
        self,
        network: Network,
        machine: int,
        others: list[int],
        loop: SimulatedLoop,
        endpoint_of: Callable[[int], Endpoint],
    ) -> None:
        super().__init__(None, None, [])
        self.machine = machine
        self.loop = loop
        self.arrived: Callable[[], None] = lambda: None
        self._network = network
        self._others = others
        self._endpoint_of = endpoint_of
        self._connections: dict[int, tuple[Connection, int]] = {}
        self._heard_at: dict[int, float] = {}

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    def start(self) -> None:
        self._network.listen(self._endpoint_of(self.machine), self)
        for other in self._others:
            if other < self.machine:
                self._dial(other)
        self._watch_silence()

    # ------------------------------------------------------------------ what the engine calls

    def send(self, node: Any, message: Any) -> bool:
        found = self._connections.get(int(node.id))
        if found is None:
            return False
        connection, side = found
        other = connection.ends[1 - side]
        assert isinstance(other, StockTransport)
        # As with metasrv, only messages between engines are dropped, doubled and reordered, never requests.
        raft = not str(message["type"]).startswith("apply_command")
        self._network.send(connection, side, lambda: other.take(connection, message), raft=raft)
        return True

    # ------------------------------------------------------------------ connections

    def _dial(self, other: int) -> None:
        if other in self._connections:
            return
        network = self._network
        target = network.listener(self._endpoint_of(other))
        cut = network.is_cut(self.machine, other) or network.is_cut(other, self.machine)
        if not isinstance(target, StockTransport) or cut:
            self.loop.call_later(CONNECT_TIMEOUT_SECONDS if cut else RETRY_SECONDS, self._dial, other)
            return
        connection = network.connect(self, target)
        seconds = 2 * network.delay(self.machine, other)
        self.loop.call_later(seconds, self._established, connection, target)

    def _established(self, connection: Connection, target: StockTransport) -> None:
        if not connection.open[0]:
            self._dial(target.machine)
            return
        self._connections[target.machine] = (connection, 0)
        self._heard_at[target.machine] = self.loop.time()
        self._onNodeConnected(engine_node(target.machine))
        self._network.send(connection, 0, lambda: target.greeted(connection))

    def greeted(self, connection: Connection) -> None:
        self.loop.call_soon(self.introduced, connection)

    def introduced(self, connection: Connection) -> None:
        """The dialler said who it is: forget an older connection of it."""
        dialler = connection.ends[0].machine
        older = self._connections.get(dialler)
        self._connections[dialler] = (connection, 1)
        self._heard_at[dialler] = self.loop.time()
        if older is not None and older[0] is not connection:
            self._network.close(older[0], older[1], "replaced")
        self._onNodeConnected(engine_node(dialler))

    def take(self, connection: Connection, message: Any) -> None:
        self.loop.call_soon(self._take, connection, message)

    def _take(self, connection: Connection, message: Any) -> None:
        side = 0 if connection.ends[0] is self else 1
        other = connection.ends[1 - side].machine
        found = self._connections.get(other)
        if found is None or found[0] is not connection:
            return
        self._heard_at[other] = self.loop.time()
        self._onMessageReceived(engine_node(other), message)
        self.arrived()

    def connection_broken(self, connection: Connection, side: int, reason: str) -> None:
        self.loop.call_soon(self._lost, connection)

    def _lost(self, connection: Connection) -> None:
        for other, (known, side) in list(self._connections.items()):
            if known is connection:
                del self._connections[other]
                self._onNodeDisconnected(engine_node(other))
                if side == 0:
                    self.loop.call_later(RETRY_SECONDS, self._dial, other)

    def _watch_silence(self) -> None:
        now = self.loop.time()
        for other, (connection, side) in list(self._connections.items()):
            if now - self._heard_at[other] > CONNECTION_TIMEOUT_SECONDS:
                self._network.close(connection, side, "nothing came")
        self._timer: asyncio.TimerHandle = self.loop.call_later(0.5, self._watch_silence)
