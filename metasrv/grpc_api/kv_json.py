"""The JSON inside RaftRequest and RaftReply (docs/contract/grpc.md section c): serde's externally tagged shapes.

Unknown object keys are ignored, an absent optional equals null, byte strings are arrays of numbers. A struct may be an
array of all its members in order. Anything else raises InvalidRequestError with a sentence that names the part. Pure;
runs on the event loop.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

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
    key, seq, value, value_meta = _struct(body, name, "key", "seq", "value", "value_meta")
    operation, data = _operation(value)
    expire_at, ttl_ms = _meta_spec(value_meta)
    return c.Upsert(_string(key, "key"), _match_seq(seq), operation, data, expire_at, ttl_ms)


def parse_read(text: str) -> ReadRequest:
    """A KvReadV1 request; raises InvalidRequestError."""
    plain = _PLAIN_GET.fullmatch(text)
    if plain is not None:
        return GetKeys([plain[1]], False)
    name, body = _variant(_parse(text), "request")
    if name == "MGetKV":
        [keys] = _struct(body, name, "keys")
        if type(keys) is not list:
            raise InvalidRequestError("'keys' is not an array")
        return GetKeys([_string(key, "keys") for key in keys], True)
    if name == "GetKV":
        [key] = _struct(body, name, "key")
        return GetKeys([_string(key, "key")], False)
    if name == "ListKV":
        [prefix] = _struct(body, name, "prefix")
        return ListPrefix(_string(prefix, "prefix"))
    raise InvalidRequestError(f"KvReadV1 knows GetKV, MGetKV and ListKV only, not {name!r}")


_PLAIN_GET = re.compile(r'\{"GetKV": ?\{"key": ?"([^"\\\x00-\x1f]*)"\}\}')
"""The most frequent request as clients write it, when nothing in the key is escaped; costs a tenth of parsing JSON."""


_USUAL_GET = re.compile(rb"\x0a([\x00-\x7f])" + _PLAIN_GET.pattern.encode())
"""The same as the only field of an encoded RaftRequest, its size in one byte."""


def key_of_usual_get(data: bytes) -> str | None:
    """The key of an encoded RaftRequest with the same text of fewer than 128 bytes; None for every other one."""
    plain = _USUAL_GET.fullmatch(data)
    if plain is None or plain[1][0] != len(data) - 2:
        return None
    try:
        return plain[2].decode()
    except UnicodeDecodeError:
        return None


class _Members(dict[str, Any]):
    """An object as it was written; a name given twice is a mistake only where a struct has a member of that name."""

    repeated: frozenset[str] = frozenset()

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            self.repeated = frozenset(name for name, count in counts.items() if count > 1)


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequestError(f"the request is not JSON: {name} is not a number")


def _number(text: str) -> int | float:
    """serde reads `-0`, and what has no place in 64 bits, as a floating point number, which no member is."""
    return float(text) if text == "-0" or len(text) > _INTEGER_CHARACTERS_MAX else int(text)


_MINUS_ZERO = re.compile(r"-0(?![0-9.eE])")
_INTEGER_CHARACTERS_MAX = len(str(U64_MAX))


def _decoders(parse_float: Callable[[str], Any]) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """The second takes a call for each number, so it reads only texts that may hold one that needs it."""
    plain = json.JSONDecoder(object_pairs_hook=_Members, parse_constant=_refuse_constant, parse_float=parse_float)
    numbers = json.JSONDecoder(
        object_pairs_hook=_Members, parse_constant=_refuse_constant, parse_float=parse_float, parse_int=_number
    )
    return plain.decode, numbers.decode


_DECODERS = _decoders(float)


def _parse(text: str, byte_strings: Mapping[str, bytes] = MappingProxyType({})) -> Any:
    decode, decode_numbers = _DECODERS
    if byte_strings:
        decode, decode_numbers = _decoders(lambda number: byte_strings.get(number, 0.0))
    try:
        if _MINUS_ZERO.search(text):
            return decode_numbers(text)
        try:
            return decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python reads no integer of thousands of digits
            return decode_numbers(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request is not JSON: {error}") from error


def _variant(value: Any, what: str) -> tuple[str, Any]:
    if type(value) is str:
        return value, None
    if type(value) is _Members and len(value) == 1 and not value.repeated:
        return next(iter(value.items()))
    raise InvalidRequestError(f"'{what}' is neither a name nor an object with one key")


def _struct(value: Any, what: str, *names: str) -> list[Any]:
    """The members of a struct in the order of `names`, None for an absent one; an array has to hold all of them."""
    if type(value) is list:
        if len(value) != len(names):
            raise InvalidRequestError(f"'{what}' is an array of {len(value)} members, not of {len(names)}")
        return value
    if type(value) is not _Members:
        raise InvalidRequestError(f"'{what}' is not an object")
    for name in value:
        _string(name, f"a name in {what}")
    for name in names:
        if name in value.repeated:
            raise InvalidRequestError(f"'{what}' has '{name}' twice")
    return [value.get(name) for name in names]


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
    if not {int}.issuperset(map(type, value)):
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
    expire_at, ttl = _struct(value, "value_meta", "expire_at", "ttl")
    ttl_ms = None
    if ttl is not None:
        [millis] = _struct(ttl, "ttl", "millis")
        ttl_ms = _unsigned(millis, "millis")
    return _unsigned_or_none(expire_at, "expire_at"), ttl_ms


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
