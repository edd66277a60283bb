"""The gateway processes of a node: starts them, watches over them, starts them again, ends them.

Every gateway opens a listening socket of its own on the node's client port once it can serve (SO_REUSEPORT): the kernel
spreads new connections over those that are open, so that a gateway that is gone gets none. The node itself only keeps the
port.
A gateway that ends, or shows no sign of life for `SILENCE_SECONDS_MAX`, is started again, later each time.
Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from metasrv.gateway.beginning import Place
from metasrv.gateway.node_end import NodeEnd
from metasrv.gateway.spawner import Spawner
from metasrv.model.events import EventKind, Severity
from metasrv.node.context import NodeContext

logger = logging.getLogger(__name__)

SILENCE_SECONDS_MAX = 5.0
"""Less than SQLite waits for a lock: a gateway that was stopped in the middle of a read may hold one of the file's."""
PING_SECONDS = 0.5
START_SECONDS_MAX = 60.0
"""From the start of a process until it serves, on a busy machine."""
BACKOFF_SECONDS_MIN = 0.05
BACKOFF_SECONDS_MAX = 10.0
TOLD_SECONDS_MAX = SILENCE_SECONDS_MAX + 2 * PING_SECONDS
"""By then a gateway has answered, or has been killed."""
GOOD_SECONDS = 30.0
"""A gateway that has served for this time and ends is started again at once."""
STOP_EXTRA_SECONDS = 3.0
"""Beside the time for its calls, until a gateway that is to stop is killed."""

Places = Callable[[], tuple[Place, ...]]


class Gateway:
    """One place among the gateways, and the process that has it now."""

    def __init__(self, number: int, processes: int, context: NodeContext, spawner: Spawner, places: Places) -> None:
        self._number = number
        self._processes = processes
        self._context = context
        self._spawner = spawner
        self._places = places
        self.process_id = 0
        """0 while there is none."""
        self.end: NodeEnd | None = None
        self.restarts = 0
        self.serving = asyncio.Event()
        self._stop_asked = asyncio.Event()

    async def run(self) -> None:
        """Keep a process in this place until `stop`."""
        loop = asyncio.get_running_loop()
        backoff = BACKOFF_SECONDS_MIN
        while not self._stop_asked.is_set():
            began_at = loop.time()
            try:
                reason = await self._run_once()
            except OSError as error:
                reason = f"it cannot be started: {error}"
            if self._stop_asked.is_set():
                return
            self.restarts += 1
            lasted = loop.time() - began_at
            backoff = BACKOFF_SECONDS_MIN if lasted >= GOOD_SECONDS else min(backoff * 2, BACKOFF_SECONDS_MAX)
            text = f"gateway {self._number} has ended and is started again: {reason}"
            logger.warning("%s", text)
            self._context.events.record(EventKind.GATEWAY, Severity.WARNING, text)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_asked.wait(), backoff)

    def stop(self, grace_ms: int) -> None:
        """Let the process end its calls and itself; it is not started again."""
        self._stop_asked.set()
        if self.end is not None:
            self.end.stop(grace_ms)

    async def _run_once(self) -> str:
        """Start a process and stay with it; returns why it is gone."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[str] = loop.create_future()

        def lost(reason: str) -> None:
            if not gone.done():
                gone.set_result(reason)

        own, its = socket.socketpair()
        own.setblocking(False)
        try:
            with its:
                self.process_id = await self._spawner.start(its)
        except BaseException:
            own.close()
            raise
        end = NodeEnd(self._number, self._context, self.serving.set, lost)
        try:
            await loop.create_connection(lambda: end.link, sock=own)
            self.end = end
            end.begin(self._processes, self._places(), logging.getLogger("metasrv").getEffectiveLevel())
            reason = await self._watch_over(end, gone)
        finally:
            self.serving.clear()
            self.end = None
            end.link.cut("the gateway has ended")
            code = await self._spawner.end(self.process_id)
            self.process_id = 0
        return f"{reason}; its process ended with {code}"

    async def _watch_over(self, end: NodeEnd, gone: asyncio.Future[str]) -> str:
        """Return why the gateway is to be given up."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        while True:
            await asyncio.wait({gone}, timeout=PING_SECONDS)
            if gone.done():
                return gone.result()
            if not self.serving.is_set():
                if loop.time() - started_at > START_SECONDS_MAX:
                    return f"it has not begun to serve within {START_SECONDS_MAX:.0f} s"
                continue
            silence = loop.time() - end.heard_at
            if silence > SILENCE_SECONDS_MAX:
                return f"it has shown no sign of life for {silence:.1f} s"
            end.ping()


class Gateways:
    """All gateways of a node; implements `metasrv.node.context.GatewaysStanding`."""

    def __init__(self, count: int, context: NodeContext, spawner: Spawner) -> None:
        self._spawner = spawner
        self.places: tuple[Place, ...] = ()
        """Where they listen; set before they are started."""
        self._gateways = [Gateway(number, count, context, spawner, lambda: self.places) for number in range(1, count + 1)]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def configured(self) -> int:
        return len(self._gateways)

    @property
    def up(self) -> int:
        return sum(gateway.serving.is_set() for gateway in self._gateways)

    async def until_up(self, timeout_seconds: float) -> bool:
        """Wait until all serve; returns whether one does by then."""
        serving = [asyncio.create_task(gateway.serving.wait()) for gateway in self._gateways]
        try:
            await asyncio.wait(serving, timeout=timeout_seconds)
        finally:
            for task in serving:
                task.cancel()
        return self.up > 0

    @property
    def restarts(self) -> int:
        return sum(gateway.restarts for gateway in self._gateways)

    @property
    def watchers(self) -> int:
        return sum(end.watchers for end in self.ends())

    def ends(self) -> list[NodeEnd]:
        """The links to those that run."""
        return [gateway.end for gateway in self._gateways if gateway.end is not None]

    async def until_told(self) -> None:
        """Return once every gateway goes by the users, rights and limits that this node has applied.

        What a gateway had asked of the node before, the node has by then. One that does not answer is killed before long.
        """
        waiting = [asyncio.ensure_future(end.until_told()) for end in self.ends()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=TOLD_SECONDS_MAX)
            for each in late:
                each.cancel()

    def start(self) -> None:
        """Start all; `until_up` tells when one serves."""
        self._tasks = [asyncio.create_task(gateway.run(), name="gateway") for gateway in self._gateways]

    async def stop(self, grace_ms: int) -> None:
        """Let calls under way finish for `grace_ms`, then end all processes."""
        for gateway in self._gateways:
            gateway.stop(grace_ms)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_ms / 1000 + STOP_EXTRA_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._spawner.close()
