"""The client port of a node that has gateways: keeps the port, runs the gateways, tells them what changes.

Takes the place of `grpc_api/service.py` in the node, which runs in each gateway instead. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from itertools import count

from metasrv.config.gateway_count import AUTO
from metasrv.gateway.beginning import Place
from metasrv.gateway.spawner import Spawner
from metasrv.gateway.supervisor import START_SECONDS_MAX, Gateways
from metasrv.grpc_api.listening import open_sockets, watch_settings
from metasrv.model.errors import BindError
from metasrv.model.limits import GATEWAYS_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.listening_socket import shared_listening_socket
from metasrv.process.operating_system import usable_processors

TELL_SECONDS = 0.02
"""How often gateways are told of changed users, rights and limits, beside what they are told with answers."""
STATUS_TURNS = 3
"""Each third time the status of the node is told as well, which costs more to look at."""
AUTOMATIC_MAX = 4


def gateway_count(configured: str) -> int:
    """How many gateways a node with this `grpc_gateways` has.

    `auto`: none where the node has two processors or fewer, because there they would take turns with it.
    """
    if configured != AUTO:
        return min(int(configured), GATEWAYS_MAX)
    processors = usable_processors()
    return 0 if processors <= 2 else min(AUTOMATIC_MAX, processors - 1)


class GatewayService:
    """Implements `metasrv.node.context.Service`."""

    name = "grpc"

    def __init__(self, context: NodeContext, control: socket.socket | None = None) -> None:
        """`control` is the socket to a process that starts gateways (`spawner.fork_spawner`)."""
        self._context = context
        self._holders: list[socket.socket] = []
        """Bound and not listening: nobody else gets the port while a gateway is started again."""
        self._gateways = Gateways(gateway_count(context.config.grpc_gateways), context, Spawner(control))
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> Endpoint:
        """Keep the port and start the gateways; returns the address. Raises BindError, ConfigError."""
        endpoint = self._context.config.grpc_endpoint
        watch_settings(self._context, self.name, endpoint, self._reload)  # the node has slow requests of its own as well
        # Opened as another node would: with SO_REUSEPORT alone, two nodes on one port would not notice each other.
        places = []
        for listening in await open_sockets(endpoint):
            places.append(Place(listening.family, listening.getsockname()))
            listening.close()
        self._holders = [_keep(place) for place in places]
        self._gateways.places = tuple(places)
        self._context.gateways = self._gateways
        self._telling = asyncio.create_task(self._tell(), name="gateways")
        self._gateways.start()
        if not await self._gateways.until_up(START_SECONDS_MAX):
            raise BindError(f"the gRPC API at {endpoint}: no gateway has begun to serve; the log says why")
        return Endpoint(endpoint.addr, places[0].address[1])

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting, give calls in flight `grace_ms` to finish, end the gateways."""
        await self._gateways.stop(grace_ms)
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        for holder in self._holders:
            holder.close()

    async def _tell(self) -> None:
        for turn in count():
            await asyncio.sleep(TELL_SECONDS)
            gateways = self._gateways
            self._context.metrics.gateways(gateways.configured, gateways.up, gateways.restarts)
            ends = gateways.ends()
            status = self._context.consensus.status() if ends and turn % STATUS_TURNS == 0 else None
            for end in ends:
                end.tell_changes(status)

    def _reload(self, _tls: ssl.SSLContext | None) -> None:
        """The files can be used: let the gateways load them."""
        for end in self._gateways.ends():
            end.reload()


def _keep(place: Place) -> socket.socket:
    """A socket that is bound and does not listen. Raises BindError."""
    try:
        return shared_listening_socket(place.family, place.address, None)
    except OSError as error:
        host, port, *_ = place.address
        raise BindError(f"the gRPC API cannot listen at {host}:{port}: {os.strerror(error.errno or 0)}") from error
