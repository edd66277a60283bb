"""What a gateway offers to the client-facing service: implements `grpc_api.context.GrpcContext` over the link.

Also takes what the node tells without being asked. Runs on the gateway's event loop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import count
from typing import Any

from metasrv.config.model import Config
from metasrv.gateway.beginning import Beginning, config_in
from metasrv.gateway.file_state import FileState
from metasrv.gateway.gateway_watches import GatewayWatch, GatewayWatches
from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway, FromNode, Pulse, pulse_in, registry_in
from metasrv.gateway.remote_consensus import RemoteConsensus
from metasrv.gateway.slow_writes import SlowWritesToTell
from metasrv.grpc_api.listening import BACKLOG
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.errors import BindError
from metasrv.model.types import Endpoint, RaftStatus
from metasrv.model.wire import byte_string, string, unsigned
from metasrv.process.clock import Clock, SystemClock
from metasrv.process.listening_socket import shared_listening_socket
from metasrv.process.reloading import Reloader
from metasrv.raft.peers.wire_errors import decode_error
from metasrv.state.watch import WatchFilter
from metasrv.tracing.watch import RequestWatch


class GatewayContext:
    """See the module."""

    def __init__(self, link: Link, beginning: Beginning) -> None:
        self.config: Config = beginning.config
        self.config_paths: tuple[str, ...] = ()
        """Nothing: the node says when its files have changed."""
        self.binary_version = beginning.binary_version
        self.processes = beginning.processes
        self.metrics = MetricsRegistry(beginning.binary_version, beginning.commit)
        self.reloader = Reloader(self.metrics)
        self.clock: Clock = SystemClock()
        numbers = count(1)
        self.consensus = RemoteConsensus(link, numbers, beginning.status, beginning.processes)
        self.machine = FileState(beginning.state_path, beginning.registry, beginning.pulse, self.consensus.current_file)
        self.consensus.until_read = self.machine.until_read
        self.watches = GatewayWatches(link, numbers)
        self.watch = RequestWatch(beginning.status.node_id, lambda: self.consensus.status().term)
        """Slow requests have their lines, and traced ones their spans."""
        self.slow_writes = SlowWritesToTell(self.clock.monotonic, self.clock.wall_ms)
        self._link = link
        self._places = beginning.places
        self.machine.views.changed = lambda count: link.send((FromGateway.VIEWS, count))

    @property
    def pulse(self) -> Pulse:
        return self.machine.pulse

    @property
    def draining(self) -> bool:
        return self.pulse.draining

    @property
    def copies(self) -> Pulse:
        """Whether the node's copy of the state may be read."""
        return self.pulse

    def damage_found(self, sentence: str) -> None:
        """Tell the node that a read found the state damaged."""
        self._link.send((FromGateway.DAMAGE, sentence))

    def tell_slow_writes(self) -> None:
        """Tell the node of the slowest and the largest writes since the last call."""
        taken = self.slow_writes.taken()
        if taken:
            self._link.send((FromGateway.SLOW_WRITES, taken))

    async def open_listeners(self, endpoint: Endpoint) -> list[socket.socket]:
        """Sockets of its own at the node's client port. Raises BindError."""
        try:
            return [shared_listening_socket(place.family, place.address, BACKLOG) for place in self._places]
        except OSError as error:
            raise BindError(f"a gateway cannot listen at {endpoint}: {os.strerror(error.errno or 0)}") from error

    async def fresh_status(self) -> RaftStatus:
        return await self.consensus.fresh_status()

    async def until_readable(self) -> None:
        await self.consensus.until_current()

    async def open_watch(self, key: str, key_end: str | None, kind: WatchFilter, initial_flush: bool) -> GatewayWatch:
        return await self.watches.open(key, key_end, kind, initial_flush)

    # ------------------------------------------------------------------------- what the node says

    def handles(self) -> dict[int, Callable[..., None]]:
        """By the kind of a message, those that are not about the process itself."""
        return {
            FromNode.DONE: self.consensus.done,
            FromNode.FAILED: self._on_failed,
            FromNode.CURRENT: self.consensus.is_current,
            FromNode.STATUS: self.consensus.told_status,
            FromNode.REGISTRY: self._on_registry,
            FromNode.PULSE: self._on_pulse,
            FromNode.CHANGES: self.watches.changed,
            FromNode.WATCHING: self.watches.watching,
            FromNode.WATCH_PAGE: self.watches.page,
            FromNode.WATCHES_RESET: self.watches.reset,
            FromNode.REVOKE: self._on_revoke,
        }

    def take_settings(self, tree: Any) -> None:
        """The configuration has changed, or files that it names."""
        self.config = config_in(tree)

    def _on_failed(self, number: Any, encoded: Any) -> None:
        error = decode_error(byte_string(encoded))
        self.consensus.failed(unsigned(number), error)
        self.watches.failed(unsigned(number), error)

    def _on_revoke(self, reason: Any) -> None:
        self.machine.views.revoke(string(reason))

    def _on_registry(self, tree: Any) -> None:
        self.machine.registry = registry_in(tree)

    def _on_pulse(self, tree: Any) -> None:
        self.machine.pulse = pulse_in(tree)
