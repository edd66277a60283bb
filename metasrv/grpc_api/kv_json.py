"""The JSON inside RaftRequest and RaftReply (docs/contract/grpc.md section c): serde's externally tagged shapes.

Unknown object keys are ignored, an absent optional equals null, byte strings are arrays of numbers. Anything else
raises InvalidRequestError with a sentence that names the part. Pure; runs on the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import U64_MAX, SeqV


class GetKeys(NamedTuple):
    """GetKV and MGetKV: one item per key, in order."""

    keys: list[str]
    many: bool


class ListPrefix(NamedTuple):
    """ListKV."""

    prefix: str


ReadRequest = GetKeys | ListPrefix


# ----------------------------------------------------------------------------- requests


def parse_write(text: str, byte_strings: Mapping[str, bytes] = MappingProxyType({})) -> c.Upsert:
    """The command of a KvApi request; raises InvalidRequestError.

    `byte_strings`: what certain fractions in the text stand for (`kv_json_slices.py`).
    """
    name, body = _variant(_parse(text, byte_strings), "request")
    if name != "UpsertKV":
        raise InvalidRequestError(f"KvApi knows UpsertKV only, not {name!r}")
    fields = _object(body, "UpsertKV")
    operation, value = _operation(fields.get("value"))
    expire_at, ttl_ms = _meta_spec(fields.get("value_meta"))
    return c.Upsert(_string(fields.get("key"), "key"), _match_seq(fields.get("seq")), operation, value, expire_at, ttl_ms)


def parse_read(text: str) -> ReadRequest:
    """A KvReadV1 request; raises InvalidRequestError."""
    name, body = _variant(_parse(text), "request")
    if name == "MGetKV":
        keys = _object(body, name).get("keys")
        if type(keys) is not list:
            raise InvalidRequestError("'keys' is not an array")
        return GetKeys([_string(key, "keys") for key in keys], True)
    if name == "GetKV":
        return GetKeys([_string(_object(body, name).get("key"), "key")], False)
    if name == "ListKV":
        return ListPrefix(_string(_object(body, name).get("prefix"), "prefix"))
    raise InvalidRequestError(f"KvReadV1 knows GetKV, MGetKV and ListKV only, not {name!r}")


def _parse(text: str, byte_strings: Mapping[str, bytes] = MappingProxyType({})) -> Any:
    try:
        if byte_strings:
            return json.loads(text, parse_float=lambda number: byte_strings.get(number, 0.0))
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request is not JSON: {error}") from error


def _variant(value: Any, what: str) -> tuple[str, Any]:
    if type(value) is str:
        return value, None
    if type(value) is dict and len(value) == 1:
        return next(iter(value.items()))
    raise InvalidRequestError(f"'{what}' is neither a name nor an object with one key")


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidRequestError(f"'{what}' is not an object")
    return value


def _string(value: Any, what: str) -> str:
    if type(value) is not str:
        raise InvalidRequestError(f"'{what}' is not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, UTF-8 cannot
            raise InvalidRequestError(f"'{what}' is not valid Unicode") from error
    return value


def _unsigned(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= U64_MAX:
        raise InvalidRequestError(f"'{what}' is not an unsigned 64-bit number")
    return value


def _unsigned_or_none(value: Any, what: str) -> int | None:
    return None if value is None else _unsigned(value, what)


def byte_string(value: Any, what: str) -> bytes:
    """The bytes of a parsed array of numbers; raises InvalidRequestError."""
    if type(value) is bytes:  # cut out of the text before
        return value
    if type(value) is not list:
        raise InvalidRequestError(f"'{what}' is not an array of bytes")
    if any(type(item) is not int for item in value):
        raise InvalidRequestError(f"'{what}' is not an array of bytes")
    try:
        return bytes(value)
    except ValueError as error:
        raise InvalidRequestError(f"'{what}' holds a number that is not a byte") from error


def _match_seq(value: Any) -> c.MatchSeq:
    name, body = _variant(value, "seq")
    if name == "Any" and body is None:
        return c.MatchSeq(c.MatchKind.ANY)
    if name == "Exact":
        return c.MatchSeq(c.MatchKind.EXACT, _unsigned(body, "Exact"))
    if name == "GE":
        return c.MatchSeq(c.MatchKind.GREATER_EQUAL, _unsigned(body, "GE"))
    raise InvalidRequestError("'seq' is none of Any, Exact and GE")


def _operation(value: Any) -> tuple[c.Operation, bytes]:
    name, body = _variant(value, "value")
    if name == "Update":
        return c.Operation.UPDATE, byte_string(body, "Update")
    if name == "Delete" and body is None:
        return c.Operation.DELETE, b""
    if name == "AsIs" and body is None:
        return c.Operation.AS_IS, b""
    raise InvalidRequestError("'value' is none of Update, Delete and AsIs")


def _meta_spec(value: Any) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    fields = _object(value, "value_meta")
    ttl = fields.get("ttl")
    ttl_ms = None if ttl is None else _unsigned(_object(ttl, "ttl").get("millis"), "millis")
    return _unsigned_or_none(fields.get("expire_at"), "expire_at"), ttl_ms


# ----------------------------------------------------------------------------- replies


def upsert_reply_text(reply: c.UpsertReply) -> str:
    """UpsertKVReply, the data of a RaftReply."""
    change = {"ident": None, "prev": record_tree(reply.prev), "result": record_tree(reply.result)}
    return json.dumps(change, separators=(",", ":"))


def record_tree(record: SeqV | None) -> dict[str, Any] | None:
    """SeqV as JSON: data as an array of numbers, unset members of the metadata left out."""
    if record is None:
        return None
    meta: dict[str, int] | None = None
    if record.meta is not None:
        meta = {name: value for name, value in record.meta._asdict().items() if value is not None}
    return {"seq": record.seq, "meta": meta, "data": list(record.data)}
