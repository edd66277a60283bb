"""The leaves of every encoding: msgpack in and out, and checks of what came in.

Never pickle (invariant 7). Decoders build their own types from the trees that `unpack` returns, leaf by leaf. A leaf of
the wrong kind raises `TypeError`, which decoders turn into `CodecError`. Runs anywhere.
"""

from __future__ import annotations

from typing import Any

import msgpack

from metasrv.model.errors import CodecError


def pack(value: Any) -> bytes:
    """msgpack bytes of a tree of tuples, lists, maps, strings, bytes, integers, booleans and None."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes | memoryview) -> Any:
    """The tree in `data`, sequences as tuples; raises CodecError for anything that is not exactly one value."""
    try:
        return msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises ValueError, its own classes, UnicodeDecodeError, RecursionError
        raise CodecError(f"not a msgpack value: {error}") from error


def string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("a string was expected")
    return value


def byte_string(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError("bytes were expected")
    return value


def mapping(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise TypeError("a map was expected")
    return value


def integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("an integer was expected")
    return value


def unsigned(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("an unsigned integer was expected")
    return value


def unsigned_or_none(value: Any) -> int | None:
    return None if value is None else unsigned(value)


def tag_index(tag: Any) -> int:
    if type(tag) is not int or tag < 0:
        raise TypeError("a tag was expected")
    return tag
