"""From replies and records to protobuf: the outward half of the wire (docs/contract/grpc.md sections a.2 and a.3).

Hot path: runs on the event loop once per transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metasrv.grpc_api.encoding import meta_out
from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb

RESPONSES_AT_ONCE = 128
"""Responses that are put into a message in one step of the loop: about a millisecond."""


async def transaction_reply(reply: c.TransactionReply) -> pb.TxnReply:
    message = pb.TxnReply(success=reply.success, execution_path=reply.execution_path)
    await _add_responses(message, reply.responses)
    return message


def transaction_reply_at_once(reply: c.TransactionReply) -> pb.TxnReply:
    """As `transaction_reply`, for at most `RESPONSES_AT_ONCE` responses."""
    message = pb.TxnReply(success=reply.success, execution_path=reply.execution_path)
    for response in reply.responses:
        fill_response(message.responses.add(), response)
    return message


async def branch_transaction_reply(reply: c.BranchTransactionReply) -> pb.KvTransactionReply:
    # None leaves the optional field unset.
    message = pb.KvTransactionReply(executed_branch=reply.executed_branch)
    await _add_responses(message, reply.responses)
    return message


def record_out(record: SeqV | None) -> pb.SeqV | None:
    """A record on the wire; None stays None, which leaves an optional field unset."""
    if record is None:
        return None
    return pb.SeqV(seq=record.seq, data=record.data, meta=meta_out(record.meta))


async def _add_responses(message: pb.TxnReply | pb.KvTransactionReply, responses: Sequence[c.OperationResponse]) -> None:
    """Add all of them; the loop turns after each part of a long list."""
    for start in range(0, len(responses), RESPONSES_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        for response in responses[start : start + RESPONSES_AT_ONCE]:
            fill_response(message.responses.add(), response)


def fill_response(message: pb.TxnOpResponse, response: c.OperationResponse) -> None:
    """Fill a response in place: a message that is given to another one is copied, once for each level."""
    if isinstance(response, c.PutResponse):
        put = message.put
        put.key = response.key
        _fill_record(put, "prev_value", response.prev)
        _fill_record(put, "current", response.current)
    elif isinstance(response, c.GetResponse):
        message.get.key = response.key
        _fill_record(message.get, "value", response.value)
    elif isinstance(response, c.DeleteResponse):
        delete = message.delete
        delete.key, delete.success = response.key, response.success
        _fill_record(delete, "prev_value", response.prev)
    else:
        message.MergeFrom(_small_response(response))


def _fill_record(
    message: pb.TxnPutResponse | pb.TxnGetResponse | pb.TxnDeleteResponse, field: str, record: SeqV | None
) -> None:
    """None leaves the field unset."""
    message.SetInParent()
    if record is None:
        return
    target: pb.SeqV = getattr(message, field)
    target.seq, target.data = record.seq, record.data
    target.SetInParent()
    if record.meta is not None:
        meta = target.meta
        meta.SetInParent()
        if record.meta.expire_at is not None:
            meta.expire_at = record.meta.expire_at
        if record.meta.proposed_at_ms is not None:
            meta.proposed_at_ms = record.meta.proposed_at_ms


def _small_response(response: c.DeleteByPrefixResponse | c.FetchIncreaseResponse) -> pb.TxnOpResponse:
    if isinstance(response, c.DeleteByPrefixResponse):
        return pb.TxnOpResponse(
            delete_by_prefix=pb.TxnDeleteByPrefixResponse(prefix=response.prefix, count=response.count)
        )
    return pb.TxnOpResponse(
        fetch_increase_u64=pb.FetchIncreaseU64Response(
            key=response.key,
            before_seq=response.before_seq,
            before=response.before,
            after_seq=response.after_seq,
            after=response.after,
        )
    )
