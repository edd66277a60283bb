"""The Watch method: changes of keys as this node applies them (docs/contract/grpc.md section d.7).

Queues, filters and the initial flush belong to `metasrv.state.watch`; here they become messages. A client that goes
away cancels the handler, which closes its watcher. Runs on the event loop.
"""

from __future__ import annotations

from functools import partial

from metasrv.grpc_api.batches import joined
from metasrv.grpc_api.calls import Stream, cluster_metadata
from metasrv.grpc_api.changes import EncodedChanges
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.encoding import is_large
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.shares import Shares, holder_of
from metasrv.model.limits import WATCHERS_MAX
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.validate import validate_key
from metasrv.state.watch import WatcherOverflow, WatchFilter, WatchItem, WatchReset

_FILTERS = {int(kind): kind for kind in WatchFilter}


class WatchMethod:
    """Body of Watch."""

    def __init__(self, context: GrpcContext) -> None:
        self._context = context
        self._machine = context.machine
        self._metrics = context.metrics
        self._shares = Shares("watch streams")
        self._encoded = EncodedChanges()

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
            while items := await watcher.next_batch(partial(self._send_now, stream)):
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

    def _send_now(self, stream: Stream, item: WatchItem) -> bool:
        """Send one change, if the client takes it now: the usual case, and what each of a thousand watchers gets."""
        if is_large(item.current) or is_large(item.prev):
            return False  # it does not fit into a frame, and is not to be encoded in vain
        if not stream.send_now(self._encoded.message(item)):
            return False
        self._metrics.watch_items(0, 1)
        return True

    async def _send(self, items: list[WatchItem], stream: Stream) -> None:
        initialization = sum(item.is_initialization for item in items)
        self._metrics.watch_items(initialization, len(items) - initialization)
        for batch in joined(map(self._encoded.message, items)):
            await stream.send_batch(batch)
