"""Which fields make a request malformed (RFC 9113 section 8): names, values, and fields of HTTP/1 connections. Pure.

White space around a value is allowed, although RFC 9113 section 8.2.1 forbids it: a receiver of gRPC may remove it.
"""

from __future__ import annotations

from collections.abc import Iterable

from metasrv.grpc_api.http2.frames import ErrorCode, Http2StreamError

REQUEST_PSEUDO_HEADERS = frozenset((b":method", b":scheme", b":path", b":authority"))
CONTENT_LENGTH = b"content-length"
LENGTH_DIGITS_MAX = 18

_NAME_CHARACTERS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_OF_THE_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


def malformed() -> Http2StreamError:
    """The error of a malformed request (RFC 9113 section 8.1.1)."""
    return Http2StreamError(ErrorCode.PROTOCOL_ERROR)


def check_values(values: Iterable[bytes]) -> None:
    """Raise Http2StreamError if one of a block's values would be read as more than one by another protocol."""
    joined = b"".join(values)
    if b"\n" in joined or b"\r" in joined or b"\0" in joined:
        raise malformed()


def check_name(name: bytes) -> None:
    """Raise Http2StreamError for a name that no field has, pseudo-headers included, or that only HTTP/1 has."""
    if not name or name.translate(None, _NAME_CHARACTERS) or name in _OF_THE_CONNECTION:
        raise malformed()


def check_te(value: bytes) -> None:
    """Raise Http2StreamError for a `te` that asks for anything but trailers (RFC 9113 section 8.2.2)."""
    if value != b"trailers":
        raise malformed()


def content_length(value: bytes) -> int:
    """The bytes of the request that a client announces; raises Http2StreamError."""
    if not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
        raise malformed()
    return int(value)


def check_trailers(fields: list[tuple[bytes, bytes]]) -> None:
    """Raise Http2StreamError for trailers that are malformed (RFC 9113 section 8.1)."""
    check_values([value for _, value in fields])
    for name, value in fields:
        check_name(name)
        if name == b"te":
            check_te(value)
