"""The node's end of one link: carries out what a gateway asks for, with the node's own consensus and state machine.

Never waits for the gateway. What it tells without being asked (registry, pulse, status) goes before the answers that rest
on it: the link keeps the order. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from metasrv.gateway.beginning import Beginning, Place, beginning_out, config_out
from metasrv.gateway.counts import Counts
from metasrv.gateway.link import Link
from metasrv.gateway.log_lines import fields_in
from metasrv.gateway.messages import FromGateway, FromNode, Message, Pulse, Registry, registry_out
from metasrv.gateway.node_watches import NodeWatches
from metasrv.gateway.node_writes import NodeWrites, Proposal, own_log_of
from metasrv.gateway.slow_writes import note_told
from metasrv.gateway.statuses import status_out
from metasrv.model.errors import NoLeaderError, NotLeaderError
from metasrv.model.types import RaftStatus
from metasrv.model.wire import byte_string, integer, string, unsigned
from metasrv.node.context import NodeContext
from metasrv.raft.peers.wire_errors import encode_error

Handle = Callable[..., None]


class NodeEnd:
    """See the module. `served` is called when the gateway serves, `lost` when its link has ended, with a sentence."""

    def __init__(
        self, number: int, context: NodeContext, served: Callable[[], None], lost: Callable[[str], None]
    ) -> None:
        self.number = number
        self.link = self._make_link()
        self.heard_at = asyncio.get_running_loop().time()
        self.watchers = 0
        """Watch streams of its clients."""
        self._context = context
        self._served = served
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches = NodeWatches(lambda: context.machine.watches, self.link, self._failed)
        consensus = context.consensus
        self._writes = NodeWrites(
            consensus,
            own_log_of(consensus),
            context.clock,
            context.watch,
            self.link,
            self.tell_changes,
            self._failed,
        )
        self._proposals: list[Proposal] = []
        """Those of the frame that is being read."""
        self._counts = Counts(context.metrics)
        self._pings = 0
        self._pongs = 0
        self._unanswered: list[tuple[int, asyncio.Future[None]]] = []
        """Who waits for the answer to which ping."""
        self._has_ended = False
        self._told_registry = self._registry()
        self._told_pulse = self._pulse()
        self._told_status: Message = ()
        self._handles: dict[int, Handle] = {
            FromGateway.READY: served,
            FromGateway.PROPOSE: self._on_propose,
            FromGateway.BARRIER: self._on_barrier,
            FromGateway.STATUS: self._on_status,
            FromGateway.CURRENT: self._on_current,
            FromGateway.WATCH: self._on_watch,
            FromGateway.WATCH_PAGE: lambda number: self._watches.fetch(unsigned(number)),
            FromGateway.WATCH_END: lambda number: self._watches.forget(unsigned(number)),
            FromGateway.WATCHERS: self._on_watchers,
            FromGateway.VIEWS: self._on_views,
            FromGateway.COUNTS: self._counts.add,
            FromGateway.SLOW_WRITES: lambda tree: note_told(context.slow_writes, context.clock.monotonic(), tree),
            FromGateway.LOG: self._on_log,
            FromGateway.DAMAGE: lambda text: context.damage_found(string(text)),
            FromGateway.PONG: self._on_pong,
        }

    # ------------------------------------------------------------------------- what the node tells by itself

    def begin(self, processes: int, places: tuple[Place, ...], log_level: int) -> None:
        """The first message: everything that the gateway needs to serve."""
        context = self._context
        status = context.consensus.status()
        self._told_registry, self._told_pulse, self._told_status = self._registry(), self._pulse(), _essence(status)
        beginning = Beginning(
            config=context.config,
            processes=processes,
            binary_version=context.binary_version,
            commit=context.metrics.commit,
            state_path=context.machine.path,
            places=places,
            log_level=log_level,
            status=status,
            registry=self._told_registry,
            pulse=self._told_pulse,
        )
        self.link.send((FromNode.BEGIN, beginning_out(beginning)))

    def tell_changes(self, status: RaftStatus | None = None) -> None:
        """Send what has changed: registry and pulse, and the status when one is given."""
        machine, told = self._context.machine, self._told_registry
        if (
            machine.secrets is not told.secrets
            or machine.limits is not told.limits
            or machine.features is not told.features
            or machine.cluster_id != told.cluster_id
        ):
            self._told_registry = self._registry()
            self.link.send((FromNode.REGISTRY, registry_out(self._told_registry)))
        if status is not None:
            essence, pulse = _essence(status), self._pulse()
            if pulse != self._told_pulse:
                self._told_pulse = pulse
                self.link.send((FromNode.PULSE, tuple(pulse)))
            if essence != self._told_status:
                self._told_status = essence
                self.link.send((FromNode.STATUS, 0, status_out(status)))

    def reload(self) -> None:
        """Let the gateway load the configuration, and files that it names, anew."""
        self.link.send((FromNode.SETTINGS, config_out(self._context.config)))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._pings += 1
        self.link.send((FromNode.PING,))

    async def until_told(self) -> None:
        """Return once the gateway goes by what has changed and all that it asked before is here, or once it has ended."""
        if self._has_ended:
            return
        self.tell_changes()
        self.ping()
        answered = self._loop.create_future()
        self._unanswered.append((self._pings, answered))
        await answered

    def stop(self, grace_ms: int) -> None:
        """Let the gateway end its calls, and then itself."""
        self.link.send((FromNode.STOP, grace_ms))

    def revoke(self, reason: str) -> None:
        """End the gateway's views of the state (`state/views.py`)."""
        self.link.send((FromNode.REVOKE, reason))

    # ------------------------------------------------------------------------- the link

    def _make_link(self) -> Link:
        return Link(self._received, self._ended)

    def _received(self, messages: tuple[Any, ...]) -> None:
        self.heard_at = self._loop.time()
        for kind, *fields in messages:
            self._handles[integer(kind)](*fields)
        if self._proposals:
            proposals, self._proposals = self._proposals, []
            self._writes.propose(proposals)

    def _ended(self, reason: str) -> None:
        self._has_ended = True
        self._answer_pings(self._pings)
        for task in tuple(self._tasks):
            task.cancel()
        self._writes.close()
        self._watches.close()
        self._counts.end()
        self.watchers = 0
        self._context.machine.views.closed(self)
        self._lost(reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _failed(self, number: int, error: Exception) -> None:
        if isinstance(error, NotLeaderError | NoLeaderError):
            self.tell_changes(self._context.consensus.status())  # the gateway names the leader that it knows
        self.link.send((FromNode.FAILED, number, encode_error(error)))

    # ------------------------------------------------------------------------- what the gateway asks for

    def _on_propose(self, number: Any, forwards: Any, timeout_ms: Any, command: Any, *trace: Any) -> None:
        carried = None
        if trace:
            traceparent, tracestate = trace
            carried = (string(traceparent), string(tracestate))
        proposal = Proposal(unsigned(number), bool(forwards), unsigned(timeout_ms), byte_string(command), carried)
        self._proposals.append(proposal)

    def _on_barrier(self, number: Any, forwards: Any, timeout_ms: Any) -> None:
        self._start(self._barrier(unsigned(number), bool(forwards), unsigned(timeout_ms)))

    async def _barrier(self, number: int, forwards: bool, timeout_ms: int) -> None:
        consensus = self._context.consensus
        try:
            await (consensus.read_barrier if forwards else consensus.read_barrier_local)(timeout_ms)
        except Exception as error:
            self._failed(number, error)
            return
        self._answer_current(number)

    def _on_current(self, number: Any) -> None:
        self._answer_current(unsigned(number))

    def _answer_current(self, number: int) -> None:
        """What is applied now is in the state file when the gateway gets this answer."""
        machine = self._context.machine
        try:
            if machine.uncommitted:
                machine.commit()
        except Exception as error:
            self._failed(number, error)
            return
        self.tell_changes()
        self.link.send((FromNode.CURRENT, number, machine.installs))

    def _on_status(self, number: Any) -> None:
        status = self._context.consensus.status()
        self.tell_changes(status)
        self.link.send((FromNode.STATUS, unsigned(number), status_out(status)))

    def _on_watch(self, number: Any, key: Any, key_end: Any, existing: Any) -> None:
        end = None if key_end is None else string(key_end)
        self._watches.begin(unsigned(number), string(key), end, bool(existing))

    def _on_watchers(self, count: Any) -> None:
        self.watchers = unsigned(count)
        self._watches.watchers(self.watchers)

    def _on_views(self, count: Any) -> None:
        views = self._context.machine.views
        if unsigned(count):
            views.opened(self)
        else:
            views.closed(self)

    def _on_pong(self) -> None:
        self._pongs += 1
        self._answer_pings(self._pongs)

    def _answer_pings(self, number: int) -> None:
        """Let go who waits for the answer to this ping or an earlier one."""
        while self._unanswered and self._unanswered[0][0] <= number:
            _, answered = self._unanswered.pop(0)
            if not answered.done():
                answered.set_result(None)

    def _on_log(self, level: Any, name: Any, text: Any, trace: Any, fields: Any) -> None:
        logger = logging.getLogger(string(name))
        if not logger.isEnabledFor(integer(level)):
            return
        extra = {**fields_in(fields), "gateway": self.number}
        record = logger.makeRecord(logger.name, level, "", 0, "%s", (string(text),), None, extra=extra)
        record.exc_text = None if trace is None else string(trace)
        logger.handle(record)

    # ------------------------------------------------------------------------- what is told

    def _registry(self) -> Registry:
        machine = self._context.machine
        return Registry(machine.cluster_id, machine.features, machine.limits, machine.secrets)

    def _pulse(self) -> Pulse:
        context, machine = self._context, self._context.machine
        return Pulse(
            context.draining, context.copies.serves, machine.views.hurry, machine.last_applied.index, machine.installs
        )


def _essence(status: RaftStatus) -> Message:
    """What of a status a gateway must learn of soon; it asks for the whole when a client wants it."""
    return (
        status.state,
        status.term,
        status.leader_id,
        status.nodes,
        status.membership,
        status.drained,
        status.fatal,
        status.cluster_id,
    )
