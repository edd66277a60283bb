"""A node's gRPC listener in a thread of its own, for tests that make blocking calls and move its clock."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from metasrv.grpc_api.service import GrpcService
from metasrv.testing.hand_clock import HandClock
from tests.support.grpc_bench import make_context
from tests.support.grpc_wire import Wire
from tests.support.state_histories import BASE_MS

START_SECONDS = 10.0


class ThreadedNode:
    """A node in a thread of its own; time is what the test says."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.clock = HandClock(0, epoch_ms=BASE_MS)
        self.wire = Wire(self._run(self._start()))

    async def _start(self) -> str:
        self._context, _ = make_context(Path(self._directory.name), clock=self.clock)
        self._service = GrpcService(self._context)
        return str(await self._service.start())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_SECONDS)

    @property
    def time_ms(self) -> int:
        return self.clock.wall_ms()

    def close(self) -> None:
        self.wire.close()
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.cleanup()

    async def _stop(self) -> None:
        await self._service.stop(0)
        self._context.machine.close()
