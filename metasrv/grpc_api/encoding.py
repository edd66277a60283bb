"""Protobuf's encoding of fields that hold a large value: what surrounds the value, and the value as it is.

Protobuf's messages copy a value when it is given to them, when they are given to another message, and when they are
encoded, all in one step of the loop: 32 ms for a put of 15 MiB, whose reply has two values. Pure.
"""

from __future__ import annotations

from typing import Any

from metasrv.model.types import KVMeta, SeqV
from metasrv.model.varints import varint
from metasrv.protocol.proto import meta_pb2 as pb

LARGE_SIZE_BYTES_MIN = 64 * 1024
"""A value from this size on is not given to a message."""


def tag(message: Any, field_name: str) -> bytes:
    """What begins a field with a length; the numbers of all fields used here are below 16."""
    return bytes((message.DESCRIPTOR.fields_by_name[field_name].number << 3 | 2,))


def number_tag(message: Any, field_name: str) -> bytes:
    """What begins a field with a number; the same holds for its own number."""
    return bytes((message.DESCRIPTOR.fields_by_name[field_name].number << 3,))


def field(field_tag: bytes, parts: list[bytes]) -> list[bytes]:
    """A field whose content consists of these parts."""
    return [field_tag + varint(sum(map(len, parts))), *parts]


_DATA = tag(pb.SeqV, "data")


def is_large(record: SeqV | None) -> bool:
    return record is not None and len(record.data) >= LARGE_SIZE_BYTES_MIN


def record_field(field_tag: bytes, record: SeqV | None) -> list[bytes]:
    """A field with a SeqV, whose own fields may come in any order; nothing for None."""
    if record is None:
        return []
    small = pb.SeqV(seq=record.seq, meta=meta_out(record.meta)).SerializeToString()
    return field(field_tag, [small, *field(_DATA, [record.data])])


def meta_out(meta: KVMeta | None) -> pb.KVMeta | None:
    """Metadata on the wire; None leaves an optional field unset."""
    if meta is None:
        return None
    return pb.KVMeta(expire_at=meta.expire_at, proposed_at_ms=meta.proposed_at_ms)
