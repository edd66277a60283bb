"""The standard health service (grpc.health.v1): what load balancers and probes ask. Runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from metasrv.grpc_api.calls import Call
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.status import StatusCode

SERVICE_NAME: str = health.SERVICE_NAME
_STATUS: Any = health_pb2.HealthCheckResponse
SERVING: int = _STATUS.SERVING
NOT_SERVING: int = _STATUS.NOT_SERVING
UNKNOWN: int = _STATUS.SERVICE_UNKNOWN


class HealthService:
    """One status for each of `names`; the empty name stands for the whole server."""

    def __init__(self, names: tuple[str, ...], serves: Callable[[], bool]) -> None:
        self._serves = serves
        self._statuses = dict.fromkeys(names, NOT_SERVING)
        self._changed = asyncio.Condition()
        self._ended = False

    def routes(self) -> dict[str, Route]:
        return {
            f"/{SERVICE_NAME}/Check": Route(self._check, single_request=True, single_reply=True),
            f"/{SERVICE_NAME}/Watch": Route(self._watch, single_request=True, single_reply=False),
        }

    async def refresh(self) -> None:
        """Check whether this node serves, and tell watchers of a change."""
        await self._set(SERVING if self._serves() else NOT_SERVING)

    async def _set(self, status: int) -> None:
        if self._ended or all(known == status for known in self._statuses.values()):
            return
        async with self._changed:
            self._statuses = dict.fromkeys(self._statuses, status)
            self._changed.notify_all()

    async def end(self) -> None:
        """Report NOT_SERVING to every watcher and end its call: the server stops."""
        await self._set(NOT_SERVING)
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _check(self, data: bytes, call: Call) -> bytes:
        await self.refresh()
        status = self._statuses.get(await _service(data, call))
        if status is None:
            await call.abort(StatusCode.NOT_FOUND, "no service of this name")
        return _encoded(status)

    async def _watch(self, data: bytes, call: Call) -> None:
        """Send the status now and at every change. A name that is not known may become known, so the call goes on."""
        service = await _service(data, call)
        sent: int | None = None
        while True:
            status = self._statuses.get(service, UNKNOWN)
            if status != sent:
                await call.write(_encoded(status))
                sent = status
            if self._ended:
                return
            async with self._changed:
                while not self._ended and self._statuses.get(service, UNKNOWN) == sent:
                    await self._changed.wait()


async def _service(data: bytes, call: Call) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError as error:
        await call.abort(StatusCode.INVALID_ARGUMENT, f"the request is not the message of this method: {error}")


def _encoded(status: int) -> bytes:
    return bytes(_STATUS(status=status).SerializeToString())
