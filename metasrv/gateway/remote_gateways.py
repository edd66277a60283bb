"""Gateways on other machines, as their node sees them: lets them in, tells them what changes, gives up silent ones.

They come over the raft port, with a role of their own (`raft/peers/gateway_streams.py`). Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from metasrv.gateway.remote_end import RemoteEnd
from metasrv.model.events import EventKind, Severity
from metasrv.model.limits import HANDSHAKE_TIMEOUT_MS, REMOTE_VIEWS_MAX
from metasrv.node.context import NodeContext
from metasrv.process.operating_system import show_thread_name
from metasrv.raft.consensus import RaftConsensus
from metasrv.raft.peers.gateway_streams import GatewayConnection, GatewayStream

logger = logging.getLogger(__name__)

TELL_SECONDS = 0.02
"""How often they are told of changed users, rights and limits, beside what they are told with answers."""
STATUS_TURNS = 3
"""Each third time the status of the node is told as well, which costs more to look at."""
PING_SECONDS = 0.5
SILENCE_SECONDS_MAX = 5.0
TOLD_SECONDS_MAX = SILENCE_SECONDS_MAX + 2 * PING_SECONDS
"""By then one has answered, or its link has been cut."""


class RemoteGateways:
    """Implements `metasrv.node.context.RemoteStanding`."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._numbers = count(1)
        self._came = asyncio.Event()
        self._ends: dict[RemoteEnd, None] = {}
        """All links; those that have said a word have a name."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gateway-views", initializer=show_thread_name)

    @property
    def linked(self) -> int:
        """Gateways that are served."""
        return sum(bool(end.name) for end in self._ends)

    @property
    def watchers(self) -> int:
        """Watch streams of their clients."""
        return sum(end.watchers for end in self._ends)

    async def until_told(self) -> None:
        """Return once each goes by the users, rights and limits that this node has applied, or can do nothing here."""
        waiting = {asyncio.ensure_future(end.until_told()): end for end in tuple(self._ends) if end.name}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=TOLD_SECONDS_MAX)
            for each in late:
                each.cancel()
                waiting[each].link.cut("it has not confirmed that it goes by changed users")

    def begin(self, connection: GatewayConnection) -> GatewayStream:
        """Serve the gateway at this connection; the door of the raft port."""
        end = RemoteEnd(
            next(self._numbers),
            self._context,
            connection,
            self._pool,
            lambda: REMOTE_VIEWS_MAX - sum(each.reads.views for each in self._ends),
            self._greeted,
            lambda reason: self._lost(end, reason),
        )
        self._ends[end] = None
        self._came.set()
        return end.link

    def _greeted(self, end: RemoteEnd) -> None:
        self._say(f"gateway {end.name} at {end.link.address} is linked to this node", Severity.INFO)

    def _lost(self, end: RemoteEnd, reason: str) -> None:
        self._ends.pop(end, None)
        if end.name:
            self._say(
                f"gateway {end.name} at {end.link.address} is no longer linked to this node: {reason}", Severity.INFO
            )

    def _say(self, text: str, severity: Severity) -> None:
        logger.info("%s", text)
        self._context.events.record(EventKind.GATEWAY, severity, text)
        self._context.metrics.remote_gateways(self.linked)

    async def run(self) -> None:
        """Tell and watch over them until cancelled, then end their links."""
        loop = asyncio.get_running_loop()
        pinged_at = 0.0
        try:
            for turn in count():
                if not self._ends:
                    self._came.clear()
                    await self._came.wait()
                await asyncio.sleep(TELL_SECONDS)
                status = self._context.consensus.status() if self._ends and turn % STATUS_TURNS == 0 else None
                pings = loop.time() - pinged_at >= PING_SECONDS
                for end in tuple(self._ends):
                    self._look_after(end, loop.time(), pings)
                    if end.name:
                        end.tell_changes(status)
                if pings:
                    pinged_at = loop.time()
        finally:
            for end in tuple(self._ends):
                end.refuse("the node is shutting down")
            self._pool.shutdown(wait=False)

    def _look_after(self, end: RemoteEnd, now: float, pings: bool) -> None:
        end.note_taken(now)
        silence = now - max(end.link.heard_at, end.took_at)
        if not end.name:
            if silence > HANDSHAKE_TIMEOUT_MS / 1000:
                end.link.cut("it has not said which messages it speaks")
        elif silence > SILENCE_SECONDS_MAX:
            end.link.cut(f"it has shown no sign of life for {silence:.1f} s")
        elif pings:
            end.ping()
            end.reads.end_idle()


def serve_remote_gateways(context: NodeContext) -> asyncio.Task[None] | None:
    """Open the door for gateways on other machines; a `Work` of `node/meta_node.py`."""
    consensus = context.consensus
    if not isinstance(consensus, RaftConsensus):
        return None
    gateways = RemoteGateways(context)
    context.remote_gateways = gateways
    transport = consensus.replica.peers.transport
    transport.serve_gateways(gateways.begin)
    task = asyncio.create_task(gateways.run(), name="remote-gateways")
    task.add_done_callback(lambda _done: transport.serve_gateways(None))
    return task
