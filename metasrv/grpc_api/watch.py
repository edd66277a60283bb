"""The Watch method: changes of keys as this node applies them (docs/contract/grpc.md section d.7).

Queues, filters and the initial flush belong to `metasrv.state.watch`; here they become messages. A client that goes
away cancels the handler, which closes its watcher. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.grpc_api.calls import Stream, cluster_metadata
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.encoding import field, is_large, record_field, tag
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.replies import record_out
from metasrv.grpc_api.shares import Shares, holder_of
from metasrv.model.limits import WATCHERS_MAX
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.validate import validate_key
from metasrv.state.watch import WatcherOverflow, WatchFilter, WatchItem, WatchReset

MARKER = pb.WatchResponse().SerializeToString()
"""Ends the initial flush: no event, no initialization flag; by proto3's rules an empty message."""
_EVENT, _CURRENT, _PREV = tag(pb.WatchResponse, "event"), tag(pb.Event, "current"), tag(pb.Event, "prev")

_FILTERS = {int(kind): kind for kind in WatchFilter}


class WatchMethod:
    """Body of Watch."""

    def __init__(self, context: GrpcContext) -> None:
        self._context = context
        self._machine = context.machine
        self._metrics = context.metrics
        self._shares = Shares("watch streams")

    async def watch(self, request: pb.WatchRequest, stream: Stream) -> None:
        """Serve changes until the client leaves, falls too far behind, or the node stops."""
        key_end = request.key_end if request.HasField("key_end") else None
        validate_key(request.key)
        if key_end is not None:
            validate_key(key_end, "the end of the range")
        # An unknown number reads as the enum's default, as everywhere in proto3.
        kind = _FILTERS.get(request.filter_type, WatchFilter.ALL)
        holder = holder_of(stream.call)
        self._shares.take(holder, WATCHERS_MAX // self._context.processes)
        try:
            watcher = await self._context.open_watch(request.key, key_end, kind, request.initial_flush)
        except BaseException:
            self._shares.give_back(holder)
            raise
        try:
            # Now, not with the first change: a client's call returns when it sees the initial metadata.
            await stream.start(cluster_metadata(self._machine.cluster_id))
            while items := await watcher.next_batch():
                await self._send(items, stream)
        except WatcherOverflow as error:
            raise StatusError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the watch ended because the client read too slowly: {error}; read the keys again and watch anew",
            ) from error
        except WatchReset as error:
            raise StatusError(
                StatusCode.ABORTED, f"the watch ended: {error}; read the keys again and watch anew"
            ) from error
        finally:
            watcher.close()
            self._shares.give_back(holder)

    async def _send(self, items: list[WatchItem], stream: Stream) -> None:
        initialization = 0
        try:
            for item in items:
                initialization += item.is_initialization
                await stream.send(MARKER if item.marker else watch_response(item))
        finally:
            self._metrics.watch_items(initialization, len(items) - initialization)


def watch_response(item: WatchItem) -> bytes:
    """An encoded WatchResponse with an event."""
    if is_large(item.current) or is_large(item.prev):
        records = [*record_field(_CURRENT, item.current), *record_field(_PREV, item.prev)]
        event_parts = field(_EVENT, [pb.Event(key=item.key).SerializeToString(), *records])
        head = pb.WatchResponse(is_initialization=item.is_initialization).SerializeToString()
        return b"".join([head, *event_parts])
    event = pb.Event(key=item.key, current=record_out(item.current), prev=record_out(item.prev))
    response = pb.WatchResponse(event=event, is_initialization=item.is_initialization)
    return response.SerializeToString()
