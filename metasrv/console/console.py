"""The console of one node: its history and events, what the other members say, and the streams that show all that.

One tick every two seconds serves everybody: it samples this node, and while somebody looks it also asks the other
members and makes the state, once for all. Nobody looks: then other nodes are left alone. Must not know HTTP. Runs on the
event loop; the data directory is looked at in a helper thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from metasrv.console.cluster_events import Repetitions, TaggedEvent, merged
from metasrv.console.folding import Folding
from metasrv.console.history import STEP_MS, History, Point
from metasrv.console.known_nodes import KnownNodes
from metasrv.console.sampling import Sampler
from metasrv.console.state import Knowledge, state_view
from metasrv.console.streams import LineStream, Streams
from metasrv.model.errors import MetasrvError, NotDoneError, OverloadedError
from metasrv.model.events import Event
from metasrv.model.limits import CONSOLE_STREAMS_MAX, EVENTS_ANSWERED_MAX
from metasrv.model.reach import is_heard
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.own_summary import OwnSummary

logger = logging.getLogger(__name__)

LOOKED_AT_SECONDS = 10.0
"""After a request somebody counts as looking for this time."""
FIRST_ANSWERS_SECONDS = 0.7
"""A request waits for the other members at most this time, a little more than they have to answer."""
FRESH_SECONDS = 3.0
EVENTS_SHOWN = 200
"""Events that a stream begins with."""
IDLE_PROBE_TICKS = 5
"""While nobody looks, the data directory is looked at with each of so many ticks."""


class Console:
    """Started and stopped with the admin API."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._node_id = context.config.raft_config.id
        self.history = History()
        self.streams = Streams()
        self._sampler = Sampler(context)
        self._folding = Folding(context)
        self._known = KnownNodes(context, self._peer_event)
        self._repetitions = Repetitions()
        self.own = OwnSummary(context)
        self._looked_at = float("-inf")
        """Monotonic seconds of the last request here."""
        self._ticks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._opening: dict[str, tuple[float, bytes]] = {}
        """The lines that a stream begins with, by their type, each with the monotonic time at which it was made."""
        self._stopped = False

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to sample."""
        self._context.events.on_event = self._own_event
        self._start(self._run(), "console")

    async def stop(self) -> None:
        """End all streams and everything under way."""
        self._stopped = True
        self.streams.end_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                self.tick()
            except MetasrvError as error:
                logger.warning("the console has nothing to show: %s", error)
            due = max(due + STEP_MS / 1000, loop.time())
            await asyncio.sleep(due - loop.time())

    def tick(self) -> None:
        """Sample, and serve those who look."""
        context, status = self._context, self._context.consensus.status()
        lag_ms = context.loop_lag_peak_ms
        point = self._sampler.take(status)
        self.history.add(point, context.clock.monotonic())
        self._opening.pop("history", None)
        self._folding.look(status, lag_ms, context.directory)
        looked_at = self._is_looked_at()
        if looked_at or self._ticks % IDLE_PROBE_TICKS == 0:
            self._start(self.own.look_at_directory(), "console-directory")
        self._ticks += 1
        if looked_at:
            self._ask()
        if len(self.streams):
            self._publish(status, point)

    def _publish(self, status: RaftStatus, point: Point) -> None:
        line = _line({"type": "state", "state": self.state(status)})
        self._opening["state"] = (self._context.clock.monotonic(), line)
        self.streams.publish(line)
        self.streams.publish(_line({"type": "point", "time_ms": point.time_ms, "values": point.values}))

    # ------------------------------------------------------------------ other members

    def _is_looked_at(self) -> bool:
        return len(self.streams) > 0 or self._context.clock.monotonic() - self._looked_at < LOOKED_AT_SECONDS

    def _ask(self) -> asyncio.Task[None]:
        """One round at a time."""
        if self._asking is None or self._asking.done():
            membership = self._context.consensus.status().membership
            others = {*membership.voters, *membership.learners} - {self._node_id}
            self._asking = self._start(self._known.ask(others), "console-asks")
        return self._asking

    async def look(self) -> None:
        """Somebody asks for the state or for events: have news of the other members soon, at the first time wait."""
        now = self._context.clock.monotonic()
        self._looked_at = now
        if self._stopped or now - self._known.asked_at < FRESH_SECONDS:
            return
        waited_for = [self._ask()]
        if self._context.directory is None:
            waited_for.append(self._start(self.own.look_at_directory(), "console-directory"))
        await asyncio.wait(waited_for, timeout=FIRST_ANSWERS_SECONDS)

    # ------------------------------------------------------------------ what is shown

    def state(self, status: RaftStatus | None = None) -> dict[str, Any]:
        """The shape of `GET /v1/console`."""
        status = status or self._context.consensus.status()
        own = self.own.summary(status)
        return state_view(Knowledge(self._context, status, own, self._known, self._sampler.rates))

    def events(self, since_ms: int = 0, limit: int = EVENTS_SHOWN, only_node: int | None = None) -> dict[str, Any]:
        """The shape of `GET /v1/events`."""
        status = self._context.consensus.status()
        found = merged(
            status.node_id, self._context.events, self._known, since_ms, min(limit, EVENTS_ANSWERED_MAX), only_node
        )
        missing = [
            peer.node_id
            for peer in status.peers
            if not is_heard(peer, status) or not self._known.get(peer.node_id).answers
        ]
        return {"events": found, "missing_nodes": missing}

    async def open_stream(self) -> LineStream:
        """A stream with the state, the history and the last events. Raises OverloadedError, NotDoneError.

        Pages that are opened together, as behind a proxy that comes back, share these lines.
        """
        wall_ms = self._context.clock.wall_ms
        lines = [self._opening_line("state", lambda: {"state": self.state()})]
        await asyncio.sleep(0)
        lines.append(self._opening_line("history", lambda: {"history": self.history.view(wall_ms())}))
        await asyncio.sleep(0)
        lines.append(self._opening_line("events", self.events))
        if self._stopped:
            raise NotDoneError("this node is shutting down")
        if len(self.streams) >= CONSOLE_STREAMS_MAX:
            raise OverloadedError(f"{CONSOLE_STREAMS_MAX} pages follow this node already; close one, or ask another node")
        return self.streams.open(lines)

    def _opening_line(self, kind: str, make: Callable[[], dict[str, Any]]) -> bytes:
        now = self._context.clock.monotonic()
        made_at, line = self._opening.get(kind, (float("-inf"), b""))
        if now - made_at > STEP_MS / 1000:
            line = _line({"type": kind, **make()})
            self._opening[kind] = (now, line)
        return line

    def _own_event(self, event: Event) -> None:
        self._show_event(self._node_id, self._context.events.incarnation, event)

    def _peer_event(self, node_id: int, incarnation: str, event: Event) -> None:
        self._show_event(node_id, incarnation, event)

    def _show_event(self, node_id: int, incarnation: str, event: Event) -> None:
        self._opening.pop("events", None)  # a stream that is opened now would lack it
        if len(self.streams) and not self._repetitions.is_told(event):
            self.streams.publish(_line({"type": "event", "event": TaggedEvent(node_id, incarnation, event).view()}))


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
