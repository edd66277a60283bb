"""StreamItem, the message of lists and of reads of several keys (docs/contract/grpc.md section a.3).

A long list is mostly the encoding of its records, so one message object serves a whole page: its fields are set anew
for each record. The object keeps the memory of all that it was given until it goes, so it serves one page and no more.
Pure functions; run on the event loop and in helper threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from metasrv.grpc_api.batches import Batch, joined
from metasrv.grpc_api.encoding import is_large, record_field, tag
from metasrv.grpc_api.http2.messages import length_prefixed, message_prefix
from metasrv.grpc_api.replies import record_out
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb

_VALUE = tag(pb.StreamItem, "value")


def stream_item(key: str, record: SeqV | None) -> bytes:
    """One encoded StreamItem; without a value when the key is absent."""
    if is_large(record):
        return b"".join([pb.StreamItem(key=key).SerializeToString(), *record_field(_VALUE, record)])
    return pb.StreamItem(key=key, value=record_out(record)).SerializeToString()


def item_batches(records: Iterable[tuple[str, SeqV | None]]) -> list[Batch]:
    """The records of a page as StreamItem messages, in batches."""
    return list(joined(_prefixed_items(records)))


def _prefixed_items(records: Iterable[tuple[str, SeqV | None]]) -> Iterator[bytes]:
    item = pb.StreamItem()
    value = item.value
    meta = value.meta
    meta.SetInParent()
    serialize = item.SerializeToString
    meta_set: KVMeta | None = None
    for key, record in records:
        if record is None or record.meta is None or is_large(record):
            yield length_prefixed(stream_item(key, record))
            continue
        item.key = key
        value.seq, value.data = record.seq, record.data
        if record.meta != meta_set:
            meta_set = record.meta
            _set_meta(meta, meta_set)
        message = serialize()
        yield message_prefix(len(message)) + message


def _set_meta(meta: pb.KVMeta, record_meta: KVMeta) -> None:
    """None leaves a field unset."""
    meta.Clear()
    if record_meta.expire_at is not None:
        meta.expire_at = record_meta.expire_at
    if record_meta.proposed_at_ms is not None:
        meta.proposed_at_ms = record_meta.proposed_at_ms
