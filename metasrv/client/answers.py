"""From protobuf replies to the package's value types: the client's half of the wire. Pure; runs anywhere."""

from __future__ import annotations

from typing import NamedTuple

from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb


class WatchEvent(NamedTuple):
    """One message of a watch.

    An existing record has `is_initialization` set; the end of the existing records has `is_marker` set and nothing
    else; a change without `current` is a delete.
    """

    key: str
    prev: SeqV | None
    current: SeqV | None
    is_initialization: bool
    is_marker: bool = False


class ClientInfo(NamedTuple):
    """How the server sees this client."""

    client_addr: str
    server_time_ms: int | None


def record_of(message: pb.SeqV) -> SeqV:
    meta: KVMeta | None = None
    if message.HasField("meta"):
        wire = message.meta
        meta = KVMeta(
            wire.expire_at if wire.HasField("expire_at") else None,
            wire.proposed_at_ms if wire.HasField("proposed_at_ms") else None,
        )
    return SeqV(message.seq, message.data, meta)


def item_of(item: pb.StreamItem) -> tuple[str, SeqV | None]:
    return item.key, record_of(item.value) if item.HasField("value") else None


def transaction_reply_of(reply: pb.TxnReply) -> c.TransactionReply:
    return c.TransactionReply(reply.success, tuple(map(response_of, reply.responses)), reply.execution_path)


def branch_transaction_reply_of(reply: pb.KvTransactionReply) -> c.BranchTransactionReply:
    executed = reply.executed_branch if reply.HasField("executed_branch") else None
    return c.BranchTransactionReply(executed, tuple(map(response_of, reply.responses)))


def response_of(response: pb.TxnOpResponse) -> c.OperationResponse:
    """One operation's response; raises ValueError for a kind this client does not know."""
    kind = response.WhichOneof("response")
    if kind == "put":
        put = response.put
        return c.PutResponse(
            put.key,
            record_of(put.prev_value) if put.HasField("prev_value") else None,
            record_of(put.current) if put.HasField("current") else None,
        )
    if kind == "get":
        get = response.get
        return c.GetResponse(get.key, record_of(get.value) if get.HasField("value") else None)
    if kind == "delete":
        delete = response.delete
        prev = record_of(delete.prev_value) if delete.HasField("prev_value") else None
        return c.DeleteResponse(delete.key, delete.success, prev)
    if kind == "delete_by_prefix":
        return c.DeleteByPrefixResponse(response.delete_by_prefix.prefix, response.delete_by_prefix.count)
    if kind == "fetch_increase_u64":
        increase = response.fetch_increase_u64
        return c.FetchIncreaseResponse(
            increase.key, increase.before_seq, increase.before, increase.after_seq, increase.after
        )
    raise ValueError("the server answered an operation in a way this client does not know")


def upsert_reply_of(reply: pb.TxnReply) -> c.UpsertReply:
    """The record before and after, from the first response (docs/contract/grpc.md section c.1)."""
    if not reply.responses:
        raise ValueError("the server answered an upsert without a response")
    first = response_of(reply.responses[0])
    if isinstance(first, c.PutResponse):
        return c.UpsertReply(first.prev, first.current)
    if isinstance(first, c.DeleteResponse):
        return c.UpsertReply(first.prev, None if first.success else first.prev)
    if isinstance(first, c.GetResponse):
        return c.UpsertReply(first.value, first.value)
    raise ValueError("the server answered an upsert with another operation's response")


def watch_event_of(response: pb.WatchResponse) -> WatchEvent:
    if not response.HasField("event"):
        return WatchEvent("", None, None, response.is_initialization, not response.is_initialization)
    event = response.event
    return WatchEvent(
        event.key,
        record_of(event.prev) if event.HasField("prev") else None,
        record_of(event.current) if event.HasField("current") else None,
        response.is_initialization,
    )
