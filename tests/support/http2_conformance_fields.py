"""The rows about field blocks and messages: RFC 9113 section 8 and RFC 7541 (see `http2_conformance.py`)."""

from __future__ import annotations

from metasrv.grpc_api.http2 import frames as f
from tests.support.http2_conformance import (
    COMPRESSION,
    MESSAGE,
    PROTOCOL,
    Case,
    Outcome,
    answered,
    block_of,
    call,
    connection_error,
    data,
    fields,
    headers,
    malformed,
    only,
    raw_headers,
    stream_error,
)

BLOCK = block_of(fields())
BAD = stream_error(PROTOCOL)
UNREADABLE = connection_error(COMPRESSION)
LENGTH = "content-length"
HUFFMAN_NAME = b"\x85\xf2\xb2\x4a\x84\xff"
"""`x-test`."""
HUFFMAN_VALUE = b"\x84\x9c\x48\xac\xa4"
"""`h2spec`."""
VALUE = b"\x06h2spec"
BROKEN = connection_error(PROTOCOL)
IN_PIECES = data(1, MESSAGE[:4], 0) + data(1, MESSAGE[4:])
PADDED = data(1, b"\x02" + MESSAGE + bytes(2), f.PADDED | f.END_STREAM)
BAD_LENGTHS = ("ten", "-1", "+10", "", "1" * 20)
TOO_PADDED = b"\x00\x86" + HUFFMAN_NAME[1:] + b"\xff" + HUFFMAN_VALUE
ENDS_WITHIN = b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x9c\x48\xac\xff\xff\xff\xfc"
NEW_ENTRY = b"\x40\x01A\x01b"
"""A field with an upper-case name, which is added to the table."""
USES_ENTRY = raw_headers(3, BLOCK + b"\xbe")
BOTH_BAD = Outcome("stream", (f.ErrorCode.PROTOCOL_ERROR,), (1, 3))
UNREADABLE_TRAILERS = raw_headers(1, b"\x80", ended=True)
OPEN = headers(1) + data(1, MESSAGE, 0)


def with_block(extra: bytes, before: bytes = b"") -> bytes:
    """A call whose field block has these bytes behind or before the usual ones."""
    return raw_headers(1, before + BLOCK + extra) + data()


def announced(length: str) -> bytes:
    """The headers of a call with a content-length."""
    return headers(1, (LENGTH, length))


def trailers(*listed: tuple[str, str], ended: bool = True) -> bytes:
    return OPEN + raw_headers(1, block_of(listed), ended=ended)


FIELD_CASES = [
    # Messages
    Case("8.1", "a call", call(), answered()),
    Case("8.1", "two calls", call(1) + call(3), answered(1, 3)),
    Case("8.1", "trailers that end the request", trailers(("x-test", "ok")), answered()),
    Case("8.1", "no trailers fields at all", trailers(), answered()),
    Case("8.1", "trailers that do not end it", trailers(("x-test", "ok"), ended=False), BAD),
    Case("8.1", "a pseudo-header in trailers", trailers((":method", "POST")), BAD),
    Case("8.1", "an upper-case name in trailers", trailers(("X-Test", "ok")), BAD),
    Case("8.1", "a line feed in trailers", trailers(("x-test", "a\nb")), BAD),
    Case("8.1", "connection in trailers", trailers(("connection", "close")), BAD),
    Case("8.1", "DATA after trailers", trailers(("x-test", "ok")) + data(), stream_error(f.ErrorCode.STREAM_CLOSED)),
    # Fields
    Case("8.2.1", "an upper-case name", malformed(("X-TEST", "ok")), BAD),
    Case("8.2.1", "an upper-case name that the server knows", malformed(("Grpc-Timeout", "1S")), BAD),
    Case("8.2.1", "an empty name", malformed(("", "ok")), BAD),
    Case("8.2.1", "a blank in a name", malformed(("x test", "ok")), BAD),
    Case("8.2.1", "a colon within a name", malformed(("x:test", "ok")), BAD),
    Case("8.2.1", "a control character in a name", malformed(("x\x01", "ok")), BAD),
    Case("8.2.1", "a letter outside ASCII in a name", malformed(("xé", "ok")), BAD),
    Case("8.2.1", "a line feed in a value", malformed(("x-test", "a\nb")), BAD),
    Case("8.2.1", "a carriage return in a value", malformed(("x-test", "a\rb")), BAD),
    Case("8.2.1", "NUL in a value", malformed(("x-test", "a\0b")), BAD),
    Case("8.2.1", "a line feed in a path", only(fields(path="/t.T/Echo\n")), BAD),
    Case("8.2.1", "a line feed in a field that the server knows", malformed(("grpc-encoding", "gzip\n")), BAD),
    Case("8.2.1", "an empty value, and one outside ASCII", malformed(("x-empty", ""), ("x-test", "é")), answered()),
    Case("8.2.2", "connection", malformed(("connection", "keep-alive")), BAD),
    Case("8.2.2", "proxy-connection", malformed(("proxy-connection", "keep-alive")), BAD),
    Case("8.2.2", "keep-alive", malformed(("keep-alive", "5")), BAD),
    Case("8.2.2", "transfer-encoding", malformed(("transfer-encoding", "chunked")), BAD),
    Case("8.2.2", "upgrade", malformed(("upgrade", "h2c")), BAD),
    Case("8.2.2", "te with another value", only([*fields(without="te"), ("te", "trailers, deflate")]), BAD),
    Case("8.2.2", "no te at all", only(fields(without="te")), answered()),
    # Pseudo-headers
    Case("8.3", "an unknown pseudo-header", only([(":test", "ok"), *fields()]), BAD),
    Case("8.3", "a pseudo-header of responses", only([(":status", "200"), *fields()]), BAD),
    Case("8.3", "a pseudo-header of extended CONNECT", only([(":protocol", "websocket"), *fields()]), BAD),
    Case("8.3", "a pseudo-header behind a field", only([("x-test", "ok"), *fields()]), BAD),
    Case("8.3", "a pseudo-header behind a known field", only([("te", "trailers"), *fields(without="te")]), BAD),
    Case("8.3.1", "an empty :path", only(fields(path="")), BAD),
    *(Case("8.3.1", f"no {name}", only(fields(without=name)), BAD) for name in (":method", ":scheme", ":path")),
    *(
        Case("8.3.1", f"{name} twice", only([(name, value), *fields()]), BAD)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/t.T/Echo"),
            (":authority", "a"),
        )
    ),
    Case("8.3.1", "no :authority", only(fields(without=":authority")), answered()),
    # The length that was announced
    Case("8.1.1", "a length that is right", announced("10") + data(), answered()),
    Case(
        "8.1.1",
        "right in two pieces",
        announced("10") + IN_PIECES,
        answered(),
    ),
    Case("8.1.1", "too short by a byte", announced("11") + data(), BAD),
    Case("8.1.1", "too long by a byte", announced("9") + data(), BAD),
    Case("8.1.1", "too long, and not ended", announced("9") + data(1, MESSAGE, 0), BAD),
    Case("8.1.1", "too long in two pieces", announced("9") + IN_PIECES, BAD),
    Case(
        "8.1.1",
        "too short, with trailers",
        announced("11") + data(1, MESSAGE, 0) + raw_headers(1, b"", ended=True),
        BAD,
    ),
    Case("8.1.1", "a length, and no body", headers(1, (LENGTH, "1"), ended=True), BAD),
    Case(
        "8.1.1",
        "padding does not count",
        announced("10") + PADDED,
        answered(),
    ),
    Case("8.1.1", "twice the same length", headers(1, (LENGTH, "10"), (LENGTH, "10")) + data(), answered()),
    Case("8.1.1", "two lengths", headers(1, (LENGTH, "10"), (LENGTH, "11")) + data(), BAD),
    *(Case("8.1.1", f"the length {text!r}", announced(text) + data(), BAD) for text in BAD_LENGTHS),
    Case(
        "8.4",
        "a client that pushes",
        f.frame(f.PUSH_PROMISE, f.END_HEADERS, 1, bytes(4) + BLOCK),
        BROKEN,
    ),
    # HPACK: what must be understood
    Case("7541 6.1", "an indexed field", with_block(b"\x90"), answered()),
    Case("7541 6.1", "a field of the dynamic table", with_block(b"\x40\x06x-test" + VALUE + b"\xbe"), answered()),
    *(
        Case("7541 6.2", f"a literal {what}: {name}", with_block(first + text), answered())
        for what, first in (("with indexing", b"\x40"), ("without indexing", b"\x00"), ("never indexed", b"\x10"))
        for name, text in (
            ("a new name", b"\x06x-test" + VALUE),
            ("a new name, Huffman", HUFFMAN_NAME + HUFFMAN_VALUE),
        )
    ),
    Case("7541 6.2", "an indexed name with indexing", with_block(b"\x7a" + VALUE), answered()),
    Case("7541 6.2", "an indexed name without indexing", with_block(b"\x0f\x2b" + HUFFMAN_VALUE), answered()),
    Case("7541 6.2", "an indexed name never indexed", with_block(b"\x1f\x2b" + VALUE), answered()),
    Case("7541 6.3", "a table size of 0", with_block(b"", b"\x20"), answered()),
    Case("7541 4.2", "two table sizes at the start", with_block(b"", b"\x20\x3f\xe1\x1f"), answered()),
    # HPACK: what must be refused
    Case("7541 4.2", "three table sizes at the start", with_block(b"", b"\x20\x20\x20"), UNREADABLE),
    Case("7541 4.2", "a table size at the end", with_block(b"\x20"), UNREADABLE),
    Case("7541 4.2", "a table size between fields", with_block(b"\x90\x20\x90"), UNREADABLE),
    Case("7541 6.3", "a table size of 4,097", with_block(b"", b"\x3f\xe2\x1f"), UNREADABLE),
    Case("7541 6.1", "index 0", with_block(b"\x80"), UNREADABLE),
    Case("7541 2.3.3", "an index that is not there", with_block(b"\xff\x00"), UNREADABLE),
    Case("7541 2.3.3", "the name of an index that is not there", with_block(b"\x7f\x7f" + VALUE), UNREADABLE),
    Case("7541 5.1", "a number without an end", with_block(b"\xff" + b"\xff" * 20), UNREADABLE),
    Case(
        "7541 5.2",
        "Huffman padding longer than 7 bits",
        with_block(TOO_PADDED),
        UNREADABLE,
    ),
    Case("7541 5.2", "Huffman padding of zeros", with_block(b"\x00\x85\xf2\xb2\x4a\x84\xfe" + HUFFMAN_VALUE), UNREADABLE),
    Case(
        "7541 5.2",
        "the end of a Huffman string within",
        with_block(ENDS_WITHIN),
        UNREADABLE,
    ),
    Case("7541 5.2", "a string longer than the block", with_block(b"\x00\x06x-test\x7ftoo short"), UNREADABLE),
    Case("9113 4.3", "unreadable trailers", OPEN + UNREADABLE_TRAILERS, UNREADABLE),
    Case("9113 4.3", "such trailers after an early answer", headers(1, path="/none") + UNREADABLE_TRAILERS, UNREADABLE),
    Case("9113 4.3", "a malformed call goes alone", headers(1, ("grpc-timeout", "soon")) + call(3), answered(3)),
    Case("9113 4.3", "a malformed call changes the table", raw_headers(1, NEW_ENTRY + BLOCK) + USES_ENTRY, BOTH_BAD),
]
