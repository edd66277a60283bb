"""The key-value methods: Transaction, KvTransaction, KvApi, KvReadV1, KvList, KvGetMany.

docs/contract/grpc.md sections a to e have the rules. Writes go through consensus and read nothing here; reads wait for a
read barrier and are then answered from local state, as it was at one instant for each call. Knows no rule of the state
machine. Runs on the event loop; Transaction and KvReadV1 are the hot path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from metasrv.grpc_api import kv_json, kv_json_slices
from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.calls import Call, Stream, timeout_ms_of, wants_stale_read
from metasrv.grpc_api.context import GrpcContext, WholeView
from metasrv.grpc_api.failures import StatusError, unexpected_reply
from metasrv.grpc_api.get_many import answer_at_one_instant
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.items import item_batches, stream_item
from metasrv.grpc_api.kept_lists import KeptLists
from metasrv.grpc_api.large_replies import has_large_value, reply_in_pieces
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.long_lists import send_list
from metasrv.grpc_api.readers import Readers
from metasrv.grpc_api.replies import branch_transaction_reply, transaction_reply
from metasrv.grpc_api.requests import branch_transaction_from, transaction_from
from metasrv.model.commands import (
    BranchTransactionReply,
    Command,
    TransactionReply,
    UpsertReply,
)
from metasrv.model.errors import InvalidRequestError, WriteRefusedError
from metasrv.model.types import U64_MAX, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.command_rules import validate_command
from metasrv.state.validate import validate_key
from metasrv.state.write_limits import refusal_while_read_only

INLINE_RECORDS_MAX = 128
"""Reads of more records than this run in a helper thread, others on the event loop."""
INLINE_SIZE_BYTES_MAX = 1024 * 1024
"""The same limit for the values of a read of several keys, roughly kept."""
INLINE_PROBE_RECORDS = 8
"""Records of a list that are read first, to decide where to read the rest."""
PAGE_RECORDS = 512


class KvMethods:
    """Bodies of the methods that read and write keys."""

    def __init__(self, context: GrpcContext, hint: LeaderHint, readers: Readers) -> None:
        self._context = context
        self._consensus = context.consensus
        self._machine = context.machine
        self._metrics = context.metrics
        self._clock = context.clock
        self._hint = hint
        self._readers = readers
        self._kept_lists = KeptLists(context.machine.touched)

    # ------------------------------------------------------------------------- writes

    async def transaction(self, request: pb.TxnRequest, call: Call) -> pb.TxnReply | list[bytes]:
        """Transaction: from any node; a follower forwards and names the leader in its initial metadata."""
        command = transaction_from(request)
        await self._check(command, call)
        reply = await self._consensus.propose(command, timeout_ms_of(call))
        metadata = self._hint.metadata()
        if metadata:
            await call.send_initial_metadata(metadata)
        if type(reply) is TransactionReply:
            if has_large_value(reply.responses):
                head = pb.TxnReply(success=reply.success, execution_path=reply.execution_path)
                return await reply_in_pieces(head, reply.responses)
            return await transaction_reply(reply)
        raise unexpected_reply(reply)

    async def kv_transaction(self, request: pb.KvTransactionRequest, call: Call) -> pb.KvTransactionReply | list[bytes]:
        """KvTransaction: on the leader only."""
        command = branch_transaction_from(request)
        await self._check(command, call)
        reply = await self._consensus.propose_local(command, timeout_ms_of(call))
        if type(reply) is BranchTransactionReply:
            if has_large_value(reply.responses):
                return await reply_in_pieces(
                    pb.KvTransactionReply(executed_branch=reply.executed_branch), reply.responses
                )
            return await branch_transaction_reply(reply)
        raise unexpected_reply(reply)

    async def kv_api(self, request: pb.RaftRequest, call: Call) -> pb.RaftReply | list[bytes]:
        """KvApi: UpsertKV in JSON; a follower forwards without naming the leader. A large reply comes in pieces."""
        try:
            command = await kv_json_slices.parse_write(request.data)
        except InvalidRequestError as error:  # as docs/contract/grpc.md section c has it for this method
            raise StatusError(StatusCode.INTERNAL, str(error)) from error
        await self._check(command, call)
        reply = await self._consensus.propose(command, timeout_ms_of(call))
        if type(reply) is UpsertReply:
            return await kv_json_slices.upsert_reply(reply)
        raise unexpected_reply(reply)

    async def _check(self, command: Command, call: Call) -> None:
        """Refuse what must not be proposed, and, to save the way through the log, what would be refused at its end.

        A node that is behind may not know yet that writes are taken again, so it asks how far it must be first.
        """
        validate_command(command)
        if refusal_while_read_only(self._machine.limits, command) is None:
            return
        await self._consensus.read_barrier(timeout_ms_of(call))
        refusal = refusal_while_read_only(self._machine.limits, command)
        if refusal is not None:
            raise WriteRefusedError(refusal)

    # ------------------------------------------------------------------------- reads

    async def kv_read_v1(self, request: pb.RaftRequest, stream: Stream) -> bytes | None:
        """KvReadV1: get, mget and list in JSON, answered as items. The only item of a get leaves with the status."""
        query = kv_json.parse_read(request.data)
        stale = wants_stale_read(stream.call)
        if not stale:
            await self._consensus.read_barrier(timeout_ms_of(stream.call))
        else:
            await self._context.until_readable()
        metadata = self._hint.metadata()
        if metadata:
            await stream.start(metadata)
        if isinstance(query, kv_json.ListPrefix):
            await self._send_list(query.prefix, None, stream)
            return None
        if not query.many:
            [key] = query.keys
            validate_key(key)
            record = self._machine.get(key, self._clock.wall_ms() if stale else 0)
            self._metrics.stream_items("get", 1)
            return stream_item(key, record)
        self._metrics.stream_items("mget", await self._send_keys(query.keys, stream))
        return None

    async def kv_list(self, request: pb.KvListRequest, stream: Stream) -> None:
        """KvList: on the leader only, unless a stale read is asked for."""
        if not wants_stale_read(stream.call):
            await self._consensus.read_barrier_local(timeout_ms_of(stream.call))
        else:
            await self._context.until_readable()
        await self._send_list(request.prefix, request.limit if request.HasField("limit") else None, stream)

    async def kv_get_many(self, requests: AsyncIterator[pb.KvGetManyRequest], stream: Stream) -> None:
        """KvGetMany: on the leader only; every key is answered while the input is still open, all from one instant."""
        if not wants_stale_read(stream.call):
            # Before the first key: a client that asks the wrong node learns so at once.
            await self._consensus.read_barrier_local(timeout_ms_of(stream.call))
        else:
            await self._context.until_readable()
        count = 0

        async def send(key: str, record: SeqV | None) -> None:
            nonlocal count
            await stream.send(stream_item(key, record))
            count += 1

        keys = (request.key async for request in requests)
        try:
            await answer_at_one_instant(self._machine, keys, self._expired_before_ms(stream), send)
        finally:
            self._metrics.stream_items("mget", count)

    def _expired_before_ms(self, stream: Stream) -> int:
        """The time by which a read hides what has expired.

        A linearizable read hides nothing: the log has deleted what had expired by the leader's time. Only a stale read
        asks this node's clock, because nobody may have deleted anything for long.
        """
        return self._clock.wall_ms() if wants_stale_read(stream.call) else 0

    async def _send_keys(self, keys: list[str], stream: Stream) -> int:
        """One item per requested key, in order; all from one snapshot."""
        for key in keys:
            validate_key(key)
        now_ms = self._expired_before_ms(stream)
        records = self._inline_keys(keys, now_ms)
        if records is not None:
            for batch in item_batches(zip(keys, records, strict=True)):
                await stream.send_batch(batch)
            return len(keys)
        async with self._readers.open(stream.call) as reader:
            async for page in reader.iterate(_key_pages(reader.view, keys, now_ms)):
                await reader.deliver(stream, page)
        return len(keys)

    def _inline_keys(self, keys: list[str], now_ms: int) -> list[SeqV | None] | None:
        """The records, or None when they are too many or too large for the event loop."""
        if len(keys) > INLINE_RECORDS_MAX:
            return None
        if len(keys) == 1:
            return self._machine.get_many(keys, now_ms)
        records: list[SeqV | None] = []
        size_bytes = 0
        for key in keys:
            record = self._machine.get(key, now_ms)
            size_bytes += 0 if record is None else len(record.data)
            if size_bytes > INLINE_SIZE_BYTES_MAX:
                return None
            records.append(record)
        return records

    async def _send_list(self, prefix: str, limit: int | None, stream: Stream) -> None:
        """Every record under `prefix` in key order, at most `limit`; all from one snapshot."""
        validate_key(prefix, "the prefix")
        now_ms = self._expired_before_ms(stream)
        sent = 0
        try:
            records = self._inline_list(prefix, limit, now_ms)
            if records is not None:
                for batch in item_batches(records):
                    await stream.send_batch(batch)
                    sent += batch.messages
                return
            sending = send_list(self._readers, self._kept_lists, stream, prefix, limit, now_ms)
            async with aclosing(sending) as pages:
                async for messages in pages:
                    sent += messages
        finally:
            self._metrics.stream_items("list", sent)

    def _inline_list(self, prefix: str, limit: int | None, now_ms: int) -> list[tuple[str, SeqV]] | None:
        """All records of the list, or None when they are too many or too large for the event loop, or kept as a list."""
        most = U64_MAX if limit is None else limit
        records = self._machine.list_prefix(prefix, min(most, INLINE_PROBE_RECORDS), now_ms)
        if len(records) < INLINE_PROBE_RECORDS or len(records) == most:
            return records
        if limit is None and not now_ms and self._kept_lists.has_now(prefix):
            return None
        # The first few records tell whether the rest may be large. Nothing is applied between the two reads.
        if sum(len(record.data) for _, record in records) > INLINE_SIZE_BYTES_MAX // INLINE_PROBE_RECORDS:
            return None
        records = self._machine.list_prefix(prefix, min(most, INLINE_RECORDS_MAX + 1), now_ms)
        return records if len(records) <= INLINE_RECORDS_MAX else None


def _key_pages(view: WholeView, keys: list[str], now_ms: int) -> Iterator[list[Batch]]:
    """Encoded items of the keys, in order, in pages bounded in count and in bytes."""
    page: list[tuple[str, SeqV | None]] = []
    size_bytes = 0
    for key in keys:
        record = view.get(key, now_ms)
        page.append((key, record))
        size_bytes += 0 if record is None else len(record.data)
        if len(page) >= PAGE_RECORDS or size_bytes > INLINE_SIZE_BYTES_MAX:
            yield item_batches(page)
            page, size_bytes = [], 0
    if page:
        yield item_batches(page)
