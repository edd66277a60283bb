"""Server reflection under both of its names, so that tools such as grpcurl need no schema. Runs on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from metasrv.grpc_api.calls import Call
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.status import StatusCode

# The type information of the package leaves out its asyncio half.
_reflection_aio: Any = vars(reflection)["aio"]

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
REFLECTION_NAMES: tuple[str, ...] = (REFLECTION_V1, reflection.SERVICE_NAME)


class _Symbols:
    """The default pool, extended to find methods: `grpcurl describe` asks for them by name."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the pool's own name
        """The file that defines a message, enumeration, service, field or method; raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service_name, _, method_name = symbol.rpartition(".")
            service = self._pool.FindServiceByName(service_name)
            if method_name not in service.methods_by_name:
                raise
            return service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def reflection_routes(services: tuple[str, ...]) -> dict[str, Route]:
    """Reflection on `services`; v1 and v1alpha have the same messages."""
    servicer = _reflection_aio.ReflectionServicer((*services, *REFLECTION_NAMES), pool=_Symbols())

    async def answer(requests: AsyncIterator[bytes], call: Call) -> None:
        async for reply in servicer.ServerReflectionInfo(_parsed(requests, call), None):
            await call.write(reply.SerializeToString())

    route = Route(answer, single_request=False, single_reply=False)
    return {f"/{name}/ServerReflectionInfo": route for name in REFLECTION_NAMES}


async def _parsed(requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[Any]:
    async for data in requests:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError as error:
            await call.abort(StatusCode.INVALID_ARGUMENT, f"not a request for reflection: {error}")
