"""What a gateway on another machine offers to the client-facing service: `grpc_api.context.GrpcContext` over its link.

Its configuration is its own; registry, status and pulse are what its node has told. Without a link it refuses what needs
a node, and goes by what it was told last in everything else. Runs on the gateway's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

from metasrv.config.model import Config
from metasrv.gateway.gateway_watches import GatewayWatch, GatewayWatches
from metasrv.gateway.messages import Confirm, FromNode, Pulse, pulse_in, registry_in
from metasrv.gateway.remote_consensus import RemoteConsensus
from metasrv.gateway.remote_reads import RemoteReads, RemoteView
from metasrv.gateway.standing_link import StandingLink
from metasrv.gateway.statuses import status_in
from metasrv.gateway.told_state import ToldState
from metasrv.grpc_api.calls import TIMEOUT_MS_DEFAULT
from metasrv.grpc_api.context import OpenInstant
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.errors import InvariantError, PeerUnreachableError, UnknownOutcomeError
from metasrv.model.types import RaftStatus, SeqV
from metasrv.model.wire import byte_string, string, unsigned
from metasrv.node.slow_writes import SlowWrites
from metasrv.process.clock import Clock, SystemClock
from metasrv.process.reloading import Reloader
from metasrv.raft.peers.wire_errors import decode_error
from metasrv.state.views import Views
from metasrv.state.watch import Take, WatchFilter, WatchItem, WatchReset
from metasrv.tracing.watch import RequestWatch


class Greeting:
    """What a node says first."""

    def __init__(self, release: Any, status: Any, registry: Any, pulse: Any) -> None:
        """Raises CodecError."""
        self.release = string(release)
        self.status = status_in(status)
        self.registry = registry_in(registry)
        self.pulse = pulse_in(pulse)


class RemoteState(ToldState):
    """Implements `grpc_api.context.LocalState`: tables that the node tells, and views that it pins."""

    def __init__(self, greeting: Greeting, link: StandingLink, reads: RemoteReads) -> None:
        super().__init__(greeting.registry, greeting.pulse)
        self.views = Views()
        self.began_with: Callable[[], int | None] = lambda: None
        """The count of links when the present read began, where that matters."""
        self._link = link
        self._reads = reads

    def take(self, pulse: Pulse) -> None:
        """The node has told a new one."""
        self.pulse = pulse
        self.views.hurry = pulse.hurry

    def open_reader(self) -> RemoteView:
        """A view that the node pins. Raises PeerUnreachableError."""
        self._link.check()
        began_with = self.began_with()
        if began_with is not None and began_with != self._link.count:
            raise PeerUnreachableError("this gateway was linked to another node meanwhile; read again")
        return self._reads.open_view(Confirm.NOTHING, TIMEOUT_MS_DEFAULT)

    def open_instant(self) -> AbstractContextManager[OpenInstant]:
        """Never asked for: `remote_methods.py` reads from the node."""
        raise InvariantError("a gateway on another machine has no state of its own")

    def get(self, key: str, now_ms: int) -> SeqV | None:
        """As `open_instant`."""
        raise InvariantError("a gateway on another machine has no state of its own")

    def get_many(self, keys: Iterable[str], now_ms: int) -> list[SeqV | None]:
        """As `open_instant`."""
        raise InvariantError("a gateway on another machine has no state of its own")

    def list_prefix(self, prefix: str, limit: int | None, now_ms: int) -> list[tuple[str, SeqV]]:
        """As `open_instant`."""
        raise InvariantError("a gateway on another machine has no state of its own")


class RemoteContext:
    """See the module."""

    def __init__(self, config: Config, link: StandingLink, greeting: Greeting, metrics: MetricsRegistry) -> None:
        self.config = config
        self.config_paths: tuple[str, ...] = ()
        self.processes = 1
        self.metrics = metrics
        self.binary_version = metrics.binary_version
        self.reloader = Reloader(metrics)
        self.clock: Clock = SystemClock()
        self.draining = False
        numbers = count(1)
        self.link = link
        self.consensus = RemoteConsensus(link, numbers, greeting.status, 1)
        self.consensus.check_link = link.check
        self.consensus.forwards_all = True
        self.reads = RemoteReads(link, numbers, link.check)
        self.machine = RemoteState(greeting, link, self.reads)
        self.watches = GatewayWatches(link, numbers)
        self.watch = RequestWatch(greeting.status.node_id, lambda: self.consensus.status().term)
        self.slow_writes = SlowWrites(self.clock.monotonic, self.clock.wall_ms)
        self.damage_found: Callable[[str], None] = lambda _sentence: None  # the node reads its own copy
        link.before_write = self._leaves

    @property
    def copies(self) -> Pulse:
        """Whether the node's copy of the state may be read."""
        return self.machine.pulse

    async def fresh_status(self) -> RaftStatus:
        return await self.consensus.fresh_status()

    async def until_readable(self) -> None:
        """Whatever is read is read from the node."""
        self.link.check()

    async def open_watch(self, key: str, key_end: str | None, kind: WatchFilter, initial_flush: bool) -> LinkWatch:
        self.link.check()
        return LinkWatch(await self.watches.open(key, key_end, kind, initial_flush), self.link)

    # ------------------------------------------------------------------------- what the node says, and that it is gone

    def greeted(self, greeting: Greeting) -> None:
        """Another node, or the same one again."""
        self.machine.registry = greeting.registry
        self.machine.take(greeting.pulse)
        self.consensus.take_status(greeting.status)

    def lost(self, reason: str) -> None:
        """The link has ended: what was under way ends, writes as unknown outcomes."""
        sentence = f"the link of this gateway to its node ended: {reason}"
        gone = PeerUnreachableError(sentence)
        self.consensus.lost(gone, UnknownOutcomeError(f"{sentence}; this write may have been made"))
        self.reads.lost(gone)
        self.watches.lost(gone)

    def handles(self) -> dict[int, Callable[..., None]]:
        """By the kind of a message, those that are not about the link itself."""
        return {
            FromNode.DONE: self.consensus.done,
            FromNode.FAILED: self._on_failed,
            FromNode.CURRENT: self.consensus.is_current,
            FromNode.STATUS: self.consensus.told_status,
            FromNode.REGISTRY: self._on_registry,
            FromNode.PULSE: lambda tree: self.machine.take(pulse_in(tree)),
            FromNode.CHANGES: self.watches.changed,
            FromNode.WATCHING: self.watches.watching,
            FromNode.WATCH_PAGE: self.watches.page,
            FromNode.WATCHES_RESET: self.watches.reset,
            FromNode.READ: self.reads.read,
            FromNode.LISTED: self.reads.answered,
            FromNode.ANSWER: self.reads.answered,
        }

    def _on_failed(self, number: Any, encoded: Any) -> None:
        error = decode_error(byte_string(encoded))
        self.consensus.failed(unsigned(number), error)
        self.watches.failed(unsigned(number), error)
        self.reads.failed(unsigned(number), error)

    def _on_registry(self, tree: Any) -> None:
        self.machine.registry = registry_in(tree)

    def _leaves(self) -> None:
        self.consensus.leaves()
        self.reads.leaves()


class LinkWatch:
    """A watch that ends with its link as unavailable. Implements `grpc_api.context.OpenWatch`."""

    def __init__(self, watch: GatewayWatch, link: StandingLink) -> None:
        self._watch = watch
        self._link = link
        self._began_with = link.count

    async def next_batch(self, take: Take | None = None) -> list[WatchItem]:
        """As `GatewayWatch.next_batch`; raises PeerUnreachableError when the link has ended."""
        if self._link.count != self._began_with:
            raise PeerUnreachableError("the watch ended with the link to the node; watch anew")
        try:
            return await self._watch.next_batch(take)
        except WatchReset as error:
            if self._link.is_up and self._link.count == self._began_with:
                raise
            raise PeerUnreachableError(f"the watch ended: {error}; watch anew") from error

    def close(self) -> None:
        """As `GatewayWatch.close`; nothing is told to a node that never knew of it."""
        self._watch.close()
