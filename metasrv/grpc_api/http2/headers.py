"""Field blocks of gRPC calls: read the headers of requests, write headers and trailers of responses (RFC 9113 section 8).

The library hpack decodes (RFC 7541). A client that repeats a call sends the same few bytes again, unless the table that
both sides keep has changed in between; such a block is looked up, not decoded. Responses are literals without indexing,
which need no table, so most of them are constants. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from hpack import Decoder, HPACKError, InvalidTableSizeError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from metasrv.grpc_api.http2.field_rules import (
    CONTENT_LENGTH,
    REQUEST_PSEUDO_HEADERS,
    check_name,
    check_te,
    check_values,
    content_length,
    malformed,
)
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError
from metasrv.grpc_api.http2.status import StatusCode

Metadata = tuple[tuple[str, str | bytes], ...]
"""Pairs of name and value; values of names that end in `-bin` are bytes."""

HEADER_LIST_SIZE_BYTES_MAX = 65_536
"""The headers of one request, decoded (RFC 9113 section 6.5.2). A request with more is refused."""
DECODED_SIZE_BYTES_MAX = 160 * 1024
"""A block that is more than this decoded ends the connection."""
FIELDS_MAX = 2_500
"""So does one with more references to the table: each is a byte, and costs as much as a field that was written out.
A request with fewer is refused by its size, and the connection goes on."""
TABLE_SIZES_MAX = 2
"""Changes of the table's size that one block may announce (RFC 7541 section 4.2)."""
FIELD_OVERHEAD_SIZE_BYTES = 32
"""What a field counts beside its name and value (RFC 9113 section 6.5.2)."""
REMEMBERED_BLOCKS_MAX = 256
REMEMBERED_BLOCK_SIZE_BYTES_MAX = 512
"""Blocks that repeat are short, because their fields are in the table."""
STATUS_TEXT_CHARACTERS_MAX = 2000
"""Clients refuse headers of more than a few thousand bytes, and would then show no text at all."""
ENCODINGS = ("identity", "deflate", "gzip")

_NOT_METADATA = frozenset(
    (b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", CONTENT_LENGTH)
)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS_PER_UNIT = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Request(NamedTuple):
    """What the headers of a call say."""

    path: str
    metadata: Metadata
    timeout_seconds: float | None
    encoding: str
    content_length: int | None
    """Bytes of the request that the client announces, None when it does not."""
    field_count: int
    size_bytes: int
    """All names and values together."""
    http_status: int
    """200, or the HTTP status of the response because the request is not a gRPC call, or is too large (431)."""


class RequestDecoder:
    """Decodes the field blocks of one connection, in the order in which they arrive."""

    def __init__(self) -> None:
        self._decoder = Decoder(DECODED_SIZE_BYTES_MAX)
        self._table = _CountingTable()
        self._decoder.header_table = self._table
        self._known: dict[bytes, Request] = {}
        self._known_changes = 0

    def decode(self, block: bytes) -> Request:
        """The request of a field block; raises Http2ConnectionError, Http2StreamError."""
        known = self._known
        if self._known_changes == self._table.changes:
            request = known.get(block)
            if request is not None:
                return request
        changes_before = self._table.changes
        request = _request(self.decode_any(block))
        changes = self._table.changes
        if changes != self._known_changes or len(known) >= REMEMBERED_BLOCKS_MAX:
            known.clear()
            self._known_changes = changes
        resizes = block[:1] and block[0] & 0xE0 == 0x20
        if changes == changes_before and not resizes and len(block) <= REMEMBERED_BLOCK_SIZE_BYTES_MAX:
            known[block] = request
        return request

    def decode_any(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of any block; raises Http2ConnectionError.

        Every block must be decoded, also one that nobody needs: it may change the table.
        """
        self._table.references = self._table.sizes = 0
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except (HPACKError, IndexError, ValueError) as error:
            raise Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, f"unreadable headers: {error}") from error


class _CountingTable(HeaderTable):
    """A table that counts its changes, and the references to it within a block."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.references = 0
        self.sizes = 0

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        self.references += 1
        if self.references > FIELDS_MAX:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, f"a request with more than {FIELDS_MAX} fields")
        entry: tuple[bytes, bytes] = super().get_by_index(index)
        return entry

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    def _shrink(self) -> None:
        self.changes += 1
        super()._shrink()

    @property
    def maxsize(self) -> int:
        size_bytes: int = super().maxsize
        return size_bytes

    @maxsize.setter
    def maxsize(self, size_bytes: int) -> None:
        self.sizes += 1
        if self.sizes > TABLE_SIZES_MAX:
            raise InvalidTableSizeError("a block that changes the table's size more than twice")
        HeaderTable.maxsize.fset(self, size_bytes)  # type: ignore[attr-defined]  # it is a property


def _request(headers: list[tuple[bytes, bytes]]) -> Request:
    pseudo: dict[bytes, bytes] = {}
    special: dict[bytes, bytes] = {}
    metadata: list[tuple[str, str | bytes]] = []
    size_bytes = 0
    check_values([value for _, value in headers])
    for name, value in headers:
        size_bytes += len(name) + len(value)
        if name in _NOT_METADATA:
            if name == CONTENT_LENGTH and special.get(name, value) != value:
                raise malformed()
            special[name] = value
        elif name in REQUEST_PSEUDO_HEADERS:
            if metadata or special or name in pseudo:
                raise malformed()
            pseudo[name] = value
        else:
            check_name(name)
            metadata.extend(_metadata(name.decode("latin-1"), value))
    if b":method" not in pseudo or not pseudo.get(b":path") or b":scheme" not in pseudo:
        raise malformed()
    check_te(special.get(b"te", b"trailers"))
    length = special.get(CONTENT_LENGTH)
    http_status = 200
    if pseudo[b":method"] != b"POST":
        http_status = 405
    elif not special.get(b"content-type", b"").startswith(b"application/grpc"):
        http_status = 415
    if size_bytes + FIELD_OVERHEAD_SIZE_BYTES * len(headers) > HEADER_LIST_SIZE_BYTES_MAX:
        http_status, metadata = 431, []
    return Request(
        pseudo[b":path"].decode("latin-1"),
        tuple(metadata),
        timeout_seconds(special.get(b"grpc-timeout")),
        special.get(b"grpc-encoding", b"identity").decode("latin-1"),
        None if length is None else content_length(length),
        len(headers),
        size_bytes,
        http_status,
    )


def _metadata(name: str, value: bytes) -> list[tuple[str, str | bytes]]:
    if not name.endswith("-bin"):
        return [(name, value.decode("latin-1"))]
    return [(name, _binary(part)) for part in value.split(b",")]


def _binary(value: bytes) -> bytes:
    """Decode base64 with or without padding; return anything else unchanged, for the handler to refuse."""
    value = value.strip()
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return value


def timeout_seconds(value: bytes | None) -> float | None:
    """Parse a `grpc-timeout` header; raise Http2StreamError if it is malformed."""
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise malformed()
    return int(match[1]) * _SECONDS_PER_UNIT[match[2]]


# ----------------------------------------------------------------------------- responses


def literal(name: str, value: str | bytes) -> bytes:
    """One field, not indexed; bytes become base64, as gRPC wants for names that end in `-bin`."""
    data = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode()
    key = name.encode()
    return b"\x00" + encode_integer(len(key), 7) + key + encode_integer(len(data), 7) + data


def literals(metadata: Metadata) -> bytes:
    """A call's own metadata."""
    return b"".join(literal(name, value) for name, value in metadata)


_STATUS_200 = b"\x88"  # entry 8 of the static table
RESPONSE_HEADERS = (
    _STATUS_200 + literal("content-type", "application/grpc") + literal("grpc-accept-encoding", ",".join(ENCODINGS))
)
"""The headers of every response; a call's own metadata follow."""


@lru_cache(maxsize=8)
def response_headers(metadata: Metadata) -> bytes:
    """The headers of a response with a call's own metadata; those of a follower name the leader, always the same."""
    return RESPONSE_HEADERS + literals(metadata)


OK_TRAILERS = literal("grpc-status", "0")
"""The trailers of a call that succeeded."""


def status_trailers(code: StatusCode, text: str, metadata: Metadata = ()) -> bytes:
    """The trailers of a call that ends with a status."""
    message = literal("grpc-message", percent_encoded(text[:STATUS_TEXT_CHARACTERS_MAX])) if text else b""
    return literal("grpc-status", f"{code:d}") + message + literals(metadata)


def refusal_block(request: Request, not_done: Metadata) -> bytes:
    """The response to a request that is no gRPC call, is too large, or names a path without a method; nothing follows."""
    if request.http_status == 431:
        text = f"the metadata of this call is larger than {HEADER_LIST_SIZE_BYTES_MAX} bytes"
        return RESPONSE_HEADERS + status_trailers(StatusCode.RESOURCE_EXHAUSTED, text, not_done)
    if request.http_status != 200:
        return literal(":status", str(request.http_status)) + literal("content-type", "text/plain")
    return RESPONSE_HEADERS + status_trailers(StatusCode.UNIMPLEMENTED, f"this server has no method {request.path}")


def percent_encoded(text: str) -> str:
    """Encode a status text as gRPC does: printable ASCII stays, everything else and the percent sign become %XX."""
    return quote_from_bytes(text.encode("utf-8", "replace"), safe=_PRINTABLE)


_PRINTABLE = bytes(code for code in range(0x20, 0x7F) if code != 0x25).decode()
