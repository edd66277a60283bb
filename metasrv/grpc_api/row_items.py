"""Rows of the state file as StreamItem messages, without a protobuf message for each (docs/contract/grpc.md section a.3).

A list of thousands of records is mostly the encoding of its items. What surrounds key, number, value and metadata of
an item depends on their sizes alone, so it is put together once for all items of the same sizes. A test compares the
bytes with those of protobuf's own encoder. Pure; runs in helper threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

from metasrv.grpc_api.batches import BATCH_SIZE_BYTES_MAX, Batch
from metasrv.grpc_api.encoding import number_tag, tag
from metasrv.grpc_api.http2.messages import PREFIX_SIZE_BYTES, message_prefix
from metasrv.model.varints import varint
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.raw_rows import RawRow

_KEY, _VALUE = tag(pb.StreamItem, "key"), tag(pb.StreamItem, "value")
_DATA, _META = tag(pb.SeqV, "data"), tag(pb.SeqV, "meta")
_SEQ = number_tag(pb.SeqV, "seq")
_EXPIRE_AT, _PROPOSED_AT_MS = number_tag(pb.KVMeta, "expire_at"), number_tag(pb.KVMeta, "proposed_at_ms")
_LOW_BITS = 14
_LOW_MASK = (1 << _LOW_BITS) - 1
_SHAPES_MAX = 4096


def row_batches(rows: Sequence[RawRow]) -> list[Batch]:
    """The rows of a page in order, in batches of at most `BATCH_SIZE_BYTES_MAX`; a larger item is a batch of its own."""
    batches: list[Batch] = []
    parts: list[bytes] = []
    size_bytes = messages = 0
    low, highs = _low_varints(), {0: b""}
    expire_before, proposed_before, meta = None, -1, b""
    for key, seq, expire_at, proposed_at_ms, _checksum, data in rows:
        if proposed_at_ms != proposed_before or expire_at != expire_before:
            expire_before, proposed_before = expire_at, proposed_at_ms
            meta = _meta_field(expire_at, proposed_at_ms)
        if seq > _LOW_MASK:
            high = highs.get(seq >> _LOW_BITS)
            if high is None:
                high = highs[seq >> _LOW_BITS] = varint(seq >> _LOW_BITS)
            number = low[seq & _LOW_MASK] + high
        else:
            number = varint(seq) if seq else b""
        before_key, before_seq, before_data, item_bytes = _shape(len(key), len(number), len(data), len(meta))
        if size_bytes + item_bytes > BATCH_SIZE_BYTES_MAX and messages:
            batches.append(Batch(b"".join(parts), messages))
            parts = []
            size_bytes = messages = 0
        parts += (before_key, key, before_seq, number, before_data, data, meta)
        size_bytes += item_bytes
        messages += 1
    if messages:
        batches.append(Batch(b"".join(parts), messages))
    return batches


def _meta_field(expire_at: int | str | None, proposed_at_ms: int) -> bytes:
    meta = b"" if expire_at is None else _EXPIRE_AT + varint(int(expire_at))
    meta += _PROPOSED_AT_MS + varint(proposed_at_ms)
    return _META + varint(len(meta)) + meta


@lru_cache(maxsize=_SHAPES_MAX)
def _shape(key_bytes: int, seq_bytes: int, data_bytes: int, meta_bytes: int) -> tuple[bytes, bytes, bytes, int]:
    """What stands before the key, the number and the value of an item with its prefix, and the size of all of it."""
    before_data = _DATA + varint(data_bytes) if data_bytes else b""
    before_number = _SEQ if seq_bytes else b""
    value_bytes = len(before_number) + seq_bytes + len(before_data) + data_bytes + meta_bytes
    before_value = _VALUE + varint(value_bytes)
    before_key = _KEY + varint(key_bytes) if key_bytes else b""
    message_bytes = len(before_key) + key_bytes + len(before_value) + value_bytes
    prefix = message_prefix(message_bytes)
    return prefix + before_key, before_value + before_number, before_data, PREFIX_SIZE_BYTES + message_bytes


@cache
def _low_varints() -> tuple[bytes, ...]:
    """The first two bytes of every longer number, by its lowest 14 bits; made when the first long list is read."""
    return tuple(bytes((low & 0x7F | 0x80, low >> 7 | 0x80)) for low in range(_LOW_MASK + 1))
