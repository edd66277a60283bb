"""The methods that read keys, for a gateway on another machine: their records come from its node, with the barrier.

What is answered, and in which order, is as in `grpc_api/kv.py`; what only a leader does there is forwarded here, and no
leader is named, so that clients stay with the gateway. Runs on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from metasrv.gateway.messages import Confirm
from metasrv.gateway.remote_context import RemoteContext
from metasrv.gateway.remote_reads import RemoteView
from metasrv.grpc_api import kv_json
from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.calls import Stream, timeout_ms_of, wants_stale_read
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.export import ExportMethods
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.items import item_batches, stream_item
from metasrv.grpc_api.kv import INLINE_RECORDS_MAX, KvMethods
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.long_lists import encoded_pages
from metasrv.grpc_api.readers import Readers
from metasrv.grpc_api.service import GrpcService
from metasrv.model.errors import ViewLostError
from metasrv.model.limits import GRPC_GET_MANY_SECONDS_MAX
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.validate import validate_key

NO_LAYOUT_TEXT = (
    "SnapshotKeysLayout reads the newest snapshot file of a node, which a gateway on another machine does not have; "
    "ask a node"
)
BEGAN_WITH: ContextVar[int | None] = ContextVar("began_with", default=None)
"""The count of links when a read began: what one node has confirmed is not read from another."""


class RemoteKvMethods(KvMethods):
    """Writes are as in the base."""

    def __init__(self, context: RemoteContext, hint: LeaderHint, readers: Readers) -> None:
        super().__init__(context, hint, readers)
        self._reads = context.reads

    async def kv_read_v1(self, request: pb.RaftRequest, stream: Stream) -> bytes | None:
        """As in the base."""
        query = kv_json.parse_read(request.data)
        confirm = Confirm.NOTHING if wants_stale_read(stream.call) else Confirm.ANYWHERE
        if isinstance(query, kv_json.ListPrefix):
            await self._list(query.prefix, None, stream, confirm)
            return None
        for key in query.keys:
            validate_key(key)
        if not query.many:
            records = await self._reads.keys(tuple(query.keys), confirm, timeout_ms_of(stream.call))
            self._metrics.stream_items("get", 1)
            return stream_item(query.keys[0], None if records is None else records[0])
        self._metrics.stream_items("mget", await self._send_keys_with(query.keys, stream, confirm))
        return None

    async def kv_list(self, request: pb.KvListRequest, stream: Stream) -> None:
        """As in the base."""
        confirm = Confirm.NOTHING if wants_stale_read(stream.call) else Confirm.ANYWHERE
        limit = request.limit if request.HasField("limit") else None
        await self._list(request.prefix, limit, stream, confirm)

    async def kv_get_many(self, requests: AsyncIterator[pb.KvGetManyRequest], stream: Stream) -> None:
        """As in the base; the node keeps the instant."""
        confirm = Confirm.NOTHING if wants_stale_read(stream.call) else Confirm.ANYWHERE
        view = await self._reads.open(confirm, timeout_ms_of(stream.call), few=True)
        count = 0
        try:
            async with asyncio.timeout(GRPC_GET_MANY_SECONDS_MAX) as end:
                async for request in requests:
                    validate_key(request.key)
                    [record] = await self._reads.keys_of_view(view, (request.key,))
                    await stream.send(stream_item(request.key, record))
                    count += 1
        except TimeoutError as error:
            if not end.expired():
                raise
            text = f"this read was open for {GRPC_GET_MANY_SECONDS_MAX} seconds, the limit; read again, more quickly"
            raise ViewLostError(text) from error
        finally:
            self._reads.end_view(view)
            self._metrics.stream_items("mget", count)

    async def _send_keys_with(self, keys: list[str], stream: Stream, confirm: Confirm) -> int:
        timeout_ms = timeout_ms_of(stream.call)
        if len(keys) <= INLINE_RECORDS_MAX:
            records = await self._reads.keys(tuple(keys), confirm, timeout_ms)
            if records is not None:
                for batch in item_batches(zip(keys, records, strict=True)):
                    await stream.send_batch(batch)
                return len(keys)
        now_ms = self._expired_before_ms(stream)
        view = self._reads.open_view(confirm, timeout_ms)
        async with self._readers.open_view(view, stream.call) as reader:
            pages = reader.iterate(_key_pages(view, keys, now_ms))
            async for page in pages:
                await reader.deliver(stream, page)
        return len(keys)

    async def _list(self, prefix: str, limit: int | None, stream: Stream, confirm: Confirm) -> None:
        validate_key(prefix, "the prefix")
        found = await self._reads.list(prefix, limit, confirm, timeout_ms_of(stream.call))
        sent = 0
        try:
            if not isinstance(found, RemoteView):
                for batch in item_batches(found):
                    await stream.send_batch(batch)
                    sent += batch.messages
                return
            try:
                reader = self._readers.open_view(found, stream.call)
            except BaseException:
                found.close()
                raise
            async with reader:
                async for page in reader.iterate(encoded_pages(found, prefix, limit, self._expired_before_ms(stream))):
                    await reader.deliver(stream, page)
                    sent += sum(batch.messages for batch in page)
        finally:
            self._metrics.stream_items("list", sent)


class RemoteExportMethods(ExportMethods):
    """Exports of a view that the node pins."""

    def __init__(self, context: RemoteContext, readers: Readers, authenticator: Authenticator) -> None:
        super().__init__(context, readers, authenticator)
        self._links = context.link

    async def export_v1(self, request: pb.ExportRequest, stream: Stream) -> None:
        """As in the base; the barrier of an archive and its view are of one node."""
        BEGAN_WITH.set(self._links.count)
        await super().export_v1(request, stream)

    async def snapshot_keys_layout(self, request: pb.KeysLayoutRequest, stream: Stream) -> None:
        """Refused: the file is the node's."""
        raise StatusError(StatusCode.UNIMPLEMENTED, NO_LAYOUT_TEXT)


class NoHint(LeaderHint):
    """Names no leader: clients of a gateway are to stay with it."""

    def metadata(self) -> Metadata:
        """None at all."""
        return ()

    def address(self) -> str | None:
        """None at all."""
        return None


class RemoteGrpcService(GrpcService):
    """The client port of a gateway on another machine."""

    def __init__(self, context: RemoteContext) -> None:
        super().__init__(context)
        self._remote = context

    def _make_hint(self, context: GrpcContext) -> LeaderHint:
        return NoHint(context)

    def _bodies(self) -> dict[m.Method, Any]:
        kv = RemoteKvMethods(self._remote, self._hint, self._readers)
        export = RemoteExportMethods(self._remote, self._readers, self._authenticator)
        return {
            **super()._bodies(),
            m.KV_API: kv.kv_api,
            m.KV_READ_V1: kv.kv_read_v1,
            m.KV_LIST: kv.kv_list,
            m.KV_GET_MANY: kv.kv_get_many,
            m.TRANSACTION: kv.transaction,
            m.KV_TRANSACTION: kv.kv_transaction,
            m.EXPORT: export.export,
            m.EXPORT_V1: export.export_v1,
            m.SNAPSHOT_KEYS_LAYOUT: export.snapshot_keys_layout,
        }

    def _serves(self) -> bool:
        return self._remote.link.is_up and super()._serves()


def _key_pages(view: RemoteView, keys: list[str], now_ms: int) -> Iterator[list[Batch]]:
    """Encoded items of the keys, in order; a page for as many as one message asks for."""
    for start in range(0, len(keys), INLINE_RECORDS_MAX):
        part = keys[start : start + INLINE_RECORDS_MAX]
        yield item_batches(zip(part, view.get_all(part, now_ms), strict=True))
