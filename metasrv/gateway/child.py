"""The gateway process: the client-facing service over a link to the node that started it.

Forked by `spawner.py`. It has no life of its own: it ends when the node says so, when the link ends and when the node's
process does, then at once and without closing the state file, which is the node's. Signals are the node's business too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop

from metasrv import __version__
from metasrv.gateway.beginning import beginning_in
from metasrv.gateway.counts import Counted
from metasrv.gateway.gateway_context import GatewayContext
from metasrv.gateway.link import Link
from metasrv.gateway.log_lines import LinkHandler
from metasrv.gateway.messages import FromGateway, FromNode
from metasrv.grpc_api.service import GrpcService
from metasrv.model.wire import integer, unsigned
from metasrv.process.operating_system import show_thread_name
from metasrv.process.private_files import keep_new_files_private
from metasrv.process.unused_memory import give_back_unused_memory
from metasrv.tracing.choosing import tracer_of

logger = logging.getLogger(__name__)

COUNTS_SECONDS = 0.2
"""How often the node learns what was counted."""
SWITCH_INTERVAL_SECONDS = 0.001
"""As in the node: a helper thread that computes gives the interpreter back to the event loop this soon."""


class GatewayProcess:
    """One gateway, from the first message to the last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.link = Link(self._received, _end_at_once)
        self._begun: asyncio.Future[GatewayContext] = self._loop.create_future()
        self._stop: asyncio.Future[int] = self._loop.create_future()
        self._handles: dict[int, Callable[..., None]] = {
            FromNode.BEGIN: self._on_begin,
            FromNode.STOP: self._on_stop,
            FromNode.PING: lambda: self.link.send((FromGateway.PONG,)),
            FromNode.SETTINGS: self._on_settings,
        }
        self._logs = LinkHandler(self.link)
        self._reloading: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the node says stop."""
        context = await self._begun
        counted = Counted(context.metrics)
        await context.consensus.until_current()  # opens the state file
        context.watch.tracer = tracer_of(
            context.config.tracing,
            node_id=context.watch.node_id,
            version=__version__,
            cluster_name=context.config.raft_config.cluster_name,
        )
        service = GrpcService(context, context.open_listeners)
        await service.start()
        gc.collect()
        gc.freeze()  # later collections skip what lives as long as the process
        self.link.send((FromGateway.READY,))
        counting = asyncio.create_task(self._count(context, counted), name="counts")
        memory = asyncio.create_task(give_back_unused_memory(), name="unused-memory")
        grace_ms = await self._stop
        await service.stop(grace_ms)
        for task in (counting, memory):
            task.cancel()
        await context.watch.close()
        self._tell_counts(context, counted)
        await asyncio.sleep(0)  # what was sent in this turn is written at its end
        while self.link.unsent_size_bytes:  # noqa: ASYNC110 - nothing tells when a socket is flushed
            await asyncio.sleep(0.005)

    async def _count(self, context: GatewayContext, counted: Counted) -> None:
        while True:
            await asyncio.sleep(COUNTS_SECONDS)
            self._tell_counts(context, counted)

    def _tell_counts(self, context: GatewayContext, counted: Counted) -> None:
        changes = counted.changes()
        if changes is not None:
            self.link.send((FromGateway.COUNTS, changes))
        context.tell_slow_writes()

    # ------------------------------------------------------------------------- what the node says

    def _received(self, messages: tuple[Any, ...]) -> None:
        self._logs.heard()
        for kind, *fields in messages:
            self._handles[integer(kind)](*fields)

    def _on_begin(self, tree: Any) -> None:
        beginning = beginning_in(tree)
        root = logging.getLogger()
        root.addHandler(self._logs)
        root.setLevel(beginning.log_level)
        context = GatewayContext(self.link, beginning)
        self._handles.update(context.handles())
        self._begun.set_result(context)

    def _on_stop(self, grace_ms: Any) -> None:
        if not self._stop.done():
            self._stop.set_result(unsigned(grace_ms))

    def _on_settings(self, tree: Any) -> None:
        context = self._begun.result()
        context.take_settings(tree)
        task = asyncio.create_task(context.reloader.look(everything=True), name="reload")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)


def _end_at_once(_reason: str) -> None:
    os._exit(1)


async def _serve(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="helper", initializer=show_thread_name))
    process = GatewayProcess()
    link.setblocking(False)
    await loop.create_connection(lambda: process.link, sock=link)
    await process.run()


def serve(link: int) -> None:
    """Run the process to its end; `link` is the descriptor of the link."""
    keep_new_files_private()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    uvloop.run(_serve(socket.socket(fileno=link)))
    # The node's state file stays open: closing it here would only look for work that is the node's.
    os._exit(0)
