"""The encoding of replies to transactions that hold large values, in pieces of which each large value is one.

What surrounds the values is encoded by protobuf (`encoding.py` says why they are not). Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from metasrv.grpc_api.encoding import LARGE_SIZE_BYTES_MIN, field, is_large, record_field, tag
from metasrv.grpc_api.replies import RESPONSES_AT_ONCE, fill_response
from metasrv.model import commands as c
from metasrv.protocol.proto import meta_pb2 as pb

_PUT, _GET, _DELETE = (tag(pb.TxnOpResponse, name) for name in ("put", "get", "delete"))
_PUT_PREV, _PUT_CURRENT = tag(pb.TxnPutResponse, "prev_value"), tag(pb.TxnPutResponse, "current")
_GET_VALUE = tag(pb.TxnGetResponse, "value")
_DELETE_PREV = tag(pb.TxnDeleteResponse, "prev_value")


def has_large_value(responses: Sequence[c.OperationResponse]) -> bool:
    """Whether the reply is worth being encoded in pieces. Asked of every transaction."""
    for response in responses:
        if isinstance(response, c.PutResponse):
            current, prev = response.current, response.prev
            if current is not None and len(current.data) >= LARGE_SIZE_BYTES_MIN:
                return True
            if prev is not None and len(prev.data) >= LARGE_SIZE_BYTES_MIN:
                return True
        elif isinstance(response, c.GetResponse):
            if is_large(response.value):
                return True
        elif isinstance(response, c.DeleteResponse) and is_large(response.prev):
            return True
    return False


async def reply_in_pieces(
    head: pb.TxnReply | pb.KvTransactionReply, responses: Sequence[c.OperationResponse]
) -> list[bytes]:
    """The encoding of `head`, which has no responses yet, with these; the loop turns after each part of a long list."""
    responses_tag = tag(type(head), "responses")
    parts = [head.SerializeToString()]
    for number, response in enumerate(responses, start=1):
        parts += field(responses_tag, _response_parts(response))
        if number % RESPONSES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return list(_joined(parts))


def _response_parts(response: c.OperationResponse) -> list[bytes]:
    """A TxnOpResponse."""
    if has_large_value((response,)):
        if isinstance(response, c.PutResponse):
            put = pb.TxnPutResponse(key=response.key).SerializeToString()
            prev, current = record_field(_PUT_PREV, response.prev), record_field(_PUT_CURRENT, response.current)
            return field(_PUT, [put, *prev, *current])
        if isinstance(response, c.GetResponse):
            get = pb.TxnGetResponse(key=response.key).SerializeToString()
            return field(_GET, [get, *record_field(_GET_VALUE, response.value)])
        if isinstance(response, c.DeleteResponse):
            delete = pb.TxnDeleteResponse(key=response.key, success=response.success).SerializeToString()
            return field(_DELETE, [delete, *record_field(_DELETE_PREV, response.prev)])
    message = pb.TxnOpResponse()
    fill_response(message, response)
    return [message.SerializeToString()]


def _joined(parts: Sequence[bytes]) -> Iterator[bytes]:
    """The same bytes, small parts put together."""
    small = bytearray()
    for part in parts:
        if len(part) < LARGE_SIZE_BYTES_MIN:
            small += part
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield part
    if small:
        yield bytes(small)
