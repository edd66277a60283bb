"""The rows about frames, streams and windows: RFC 9113 sections 3 to 7 (see `http2_conformance.py`)."""

from __future__ import annotations

from metasrv.grpc_api.http2 import frames as f
from tests.support.http2_conformance import (
    CLOSED,
    FLOW,
    GOES_ON,
    MESSAGE,
    PROTOCOL,
    SIZE,
    Case,
    answered,
    block_of,
    call,
    connection_error,
    data,
    fields,
    headers,
    ping,
    priority,
    raw_headers,
    request_in_pieces,
    rst,
    running,
    setting,
    stream_error,
    updates,
)

C, H = f.CONTINUATION, f.HEADERS
END = f.END_HEADERS
MOST = f.WINDOW_SIZE_BYTES_MAX
PADDED, PRIORITIZED = f.PADDED, f.HAS_PRIORITY
ENDS = f.END_STREAM
BLOCK = block_of(fields())
DEPENDS = (0).to_bytes(4, "big") + b"\x0f"
ON_ITSELF = (1).to_bytes(4, "big") + b"\x0f"
SKIPPING = call(5) + call(3)
UNKNOWN = f.frame(0x16, 0, 0, b"x")
REFUSED = f.ErrorCode.REFUSED_STREAM
BROKEN, IS_CLOSED = connection_error(PROTOCOL), connection_error(CLOSED)
WRONG_SIZE, OVERFLOW = connection_error(SIZE), connection_error(FLOW)
EIGHT_RUN = b"".join(running(2 * n + 1) for n in range(8))
"""As many calls as the server of the tests takes."""

FRAME_CASES = [
    Case("3.4", "the preface and nothing more", b"", GOES_ON),
    Case("4.1", "a frame of an unknown type", f.frame(0x16, 0, 0, bytes(8)), GOES_ON),
    Case("4.1", "flags that mean nothing", ping(flags=0x16), GOES_ON),
    Case("4.1", "a reserved bit that is set", f.frame(f.PING, 0, 2**31, bytes(8)), GOES_ON),
    Case("4.2", "DATA of 2^14 bytes", headers(path="/t.T/Idle") + data(1, bytes(2**14), 0), GOES_ON),
    Case("4.2", "DATA of more than 2^14 bytes", headers() + data(1, bytes(2**14 + 1)), WRONG_SIZE),
    Case("4.2", "HEADERS of more than 2^14 bytes", raw_headers(1, bytes(2**14 + 1)), WRONG_SIZE),
    Case("4.3", "PRIORITY within a field block", f.frame(H, 0, 1, BLOCK) + priority(1, 0), BROKEN),
    Case("4.3", "HEADERS of another stream within a block", f.frame(H, 0, 1, BLOCK) + call(3), BROKEN),
    # Stream states
    Case("5.1", "idle: DATA", data(1), BROKEN),
    Case("5.1", "idle: RST_STREAM", rst(1), BROKEN),
    Case("5.1", "idle: WINDOW_UPDATE", updates(1, 100), BROKEN),
    Case("5.1", "idle: CONTINUATION", f.frame(C, END, 1, BLOCK), BROKEN),
    Case("5.1", "idle: PRIORITY, then a call", priority(1, 0) + call(), answered()),
    Case("5.1", "half-closed: DATA", running() + data(), stream_error(CLOSED)),
    Case("5.1", "half-closed: HEADERS", running() + headers(), stream_error(CLOSED)),
    Case("5.1", "half-closed: HEADERS that end", running() + headers(ended=True), stream_error(CLOSED)),
    Case("5.1", "half-closed: CONTINUATION", running() + f.frame(C, END, 1, BLOCK), BROKEN),
    Case("5.1", "half-closed: WINDOW_UPDATE", running() + updates(1, 100), GOES_ON),
    Case("5.1", "half-closed: PRIORITY", running() + priority(1, 0), GOES_ON),
    Case("5.1", "half-closed: RST_STREAM", running() + rst(1), GOES_ON),
    Case("5.1", "after RST_STREAM: DATA", headers() + rst(1) + data(), IS_CLOSED),
    Case("5.1", "after RST_STREAM: HEADERS", headers() + rst(1) + headers(), IS_CLOSED),
    Case("5.1", "after RST_STREAM: CONTINUATION", headers() + rst(1) + f.frame(C, END, 1), BROKEN),
    Case("5.1", "after RST_STREAM: PRIORITY", headers() + rst(1) + priority(1, 0), GOES_ON),
    Case("5.1", "after RST_STREAM: RST_STREAM", headers() + rst(1) + rst(1), GOES_ON),
    Case("5.1", "after RST_STREAM: WINDOW_UPDATE", headers() + rst(1) + updates(1, 1), GOES_ON),
    Case("5.1", "closed: DATA", headers(1, path="/none", ended=True) + data(), IS_CLOSED),
    Case("5.1", "closed: HEADERS", headers(1, path="/none", ended=True) + headers(1), IS_CLOSED),
    Case(
        "5.1",
        "closed: CONTINUATION",
        headers(1, path="/none", ended=True) + f.frame(C, END, 1),
        BROKEN,
    ),
    Case("5.1", "answered early: DATA is ignored", headers(1, path="/none") + data(), GOES_ON),
    Case("5.1", "answered early: trailers are ignored", headers(1, path="/none") + headers(1, ended=True), GOES_ON),
    Case("5.1", "answered early and ended: DATA", headers(1, path="/none") + data() + data(), IS_CLOSED),
    Case("5.1", "answered early and reset: DATA", headers(1, path="/none") + rst(1) + data(), IS_CLOSED),
    # Stream identifiers, concurrency, dependencies
    Case("5.1.1", "an even stream", call(2), BROKEN),
    Case("5.1.1", "a lower stream that was never used", SKIPPING, BROKEN),
    Case("5.1.1", "DATA on a stream that was skipped", call(5) + data(3), IS_CLOSED),
    Case(
        "5.1.2",
        "more streams than announced",
        b"".join(running(2 * n + 1) for n in range(9)),
        stream_error(f.ErrorCode.REFUSED_STREAM, stream=17),
    ),
    Case(
        "5.1.2",
        "DATA for a stream that was refused",
        b"".join(running(2 * n + 1) for n in range(8)) + headers(17) + data(17),
        GOES_ON,
    ),
    Case(
        "5.3.1",
        "HEADERS that depend on themselves",
        raw_headers(1, ON_ITSELF + BLOCK, PRIORITIZED),
        BROKEN,
    ),
    Case("5.3.1", "PRIORITY on itself", running() + priority(1, 1), BROKEN),
    Case("5.3.1", "PRIORITY on itself, exclusively", running() + priority(1, 1 | 2**31), BROKEN),
    Case("5.4.1", "an error, then a PING", f.frame(f.PING, 0, 1, bytes(8)), BROKEN),
    Case(
        "5.5",
        "an unknown frame within a field block",
        request_in_pieces((H, 0), (C, END), between=UNKNOWN),
        BROKEN,
    ),
    Case("5.5", "an unknown setting", setting(0xFF, 1), GOES_ON),
    # DATA
    Case("6.1", "DATA on no stream", data(0), BROKEN),
    Case("6.1", "DATA in pieces", headers() + data(1, MESSAGE[:3], 0) + data(1, MESSAGE[3:]), answered()),
    Case("6.1", "DATA with padding", headers() + data(1, b"\x02" + MESSAGE + bytes(2), PADDED | ENDS), answered()),
    Case("6.1", "DATA with nothing but padding", headers() + data(1, b"\x02" + bytes(2), PADDED) + data(), answered()),
    Case("6.1", "more padding than payload", headers() + data(1, b"\x06" + bytes(5), PADDED), BROKEN),
    Case("6.1", "as much padding as payload", headers() + data(1, b"\x06" + bytes(6), PADDED), GOES_ON),
    Case("6.1", "padded, and no length of it", headers() + data(1, b"", PADDED), WRONG_SIZE),
    # HEADERS
    Case("6.2", "HEADERS with padding", raw_headers(1, b"\x02" + BLOCK + bytes(2), PADDED) + data(), answered()),
    Case("6.2", "HEADERS with priority", raw_headers(1, DEPENDS + BLOCK, PRIORITIZED) + data(), answered()),
    Case("6.2", "HEADERS without END_HEADERS, then PING", f.frame(H, 0, 1, BLOCK) + ping(), BROKEN),
    Case("6.2", "HEADERS on no stream", raw_headers(0, BLOCK), BROKEN),
    Case(
        "6.2",
        "more padding than payload",
        raw_headers(1, bytes([len(BLOCK) + 1]) + BLOCK, PADDED),
        BROKEN,
    ),
    Case(
        "6.2",
        "padding that reaches into the priority",
        raw_headers(1, b"\x02" + DEPENDS, PADDED | PRIORITIZED),
        BROKEN,
    ),
    Case("6.2", "priority, and too short for it", raw_headers(1, bytes(4), PRIORITIZED), WRONG_SIZE),
    Case("6.2", "padded, and no length of it", raw_headers(1, b"", PADDED), WRONG_SIZE),
    # PRIORITY, RST_STREAM
    Case("6.3", "PRIORITY on no stream", priority(0, 1), BROKEN),
    Case("6.3", "PRIORITY of 4 bytes", running() + f.frame(f.PRIORITY, 0, 1, bytes(4)), WRONG_SIZE),
    Case("6.3", "PRIORITY of 6 bytes", running() + f.frame(f.PRIORITY, 0, 1, bytes(6)), WRONG_SIZE),
    Case("6.3", "weights of 1 and 256", priority(1, 0, 0) + priority(3, 0, 255) + call(5), answered(5)),
    Case("6.3", "an exclusive dependency", priority(1, 3 | 2**31) + call(), answered()),
    Case("6.4", "RST_STREAM on no stream", rst(0), BROKEN),
    Case("6.4", "RST_STREAM of 3 bytes", running() + rst(1, 3), WRONG_SIZE),
    Case("6.4", "RST_STREAM of 5 bytes", running() + rst(1, 5), WRONG_SIZE),
    # SETTINGS
    Case("6.5", "an acknowledgement", f.frame(f.SETTINGS, f.ACK, 0), GOES_ON),
    Case("6.5", "an acknowledgement with values", f.frame(f.SETTINGS, f.ACK, 0, bytes(6)), WRONG_SIZE),
    Case("6.5", "SETTINGS on a stream", f.frame(f.SETTINGS, 0, 1), BROKEN),
    Case("6.5", "SETTINGS of 3 bytes", f.frame(f.SETTINGS, 0, 0, bytes(3)), WRONG_SIZE),
    Case("6.5.2", "ENABLE_PUSH of 2", setting(2, 2), BROKEN),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31 - 1", setting(4, MOST), GOES_ON),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", setting(4, MOST + 1), OVERFLOW),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", setting(5, 2**14 - 1), BROKEN),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^14 and 2^24 - 1", setting(5, 2**14) + setting(5, 2**24 - 1), GOES_ON),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^24", setting(5, 2**24), BROKEN),
    # PUSH_PROMISE, PING, GOAWAY
    Case("6.6", "PUSH_PROMISE", running() + f.frame(f.PUSH_PROMISE, END, 1, bytes(4) + BLOCK), BROKEN),
    Case("6.7", "an acknowledgement of no PING", ping(flags=f.ACK), GOES_ON),
    Case("6.7", "PING on a stream", ping(stream_id=1), BROKEN),
    Case("6.7", "PING of 6 bytes", ping(6), WRONG_SIZE),
    Case("6.7", "an acknowledgement of 9 bytes", ping(9, f.ACK), WRONG_SIZE),
    Case("6.8", "GOAWAY, and a call that goes on", headers() + f.frame(f.GOAWAY, 0, 0, bytes(8)) + data(), answered()),
    Case("6.8", "GOAWAY with a text", f.goaway(0, f.ErrorCode.NO_ERROR, "bye"), GOES_ON),
    Case("6.8", "GOAWAY on a stream", f.frame(f.GOAWAY, 0, 1, bytes(8)), BROKEN),
    Case("6.8", "GOAWAY of 7 bytes", f.frame(f.GOAWAY, 0, 0, bytes(7)), WRONG_SIZE),
    # WINDOW_UPDATE
    Case("6.9", "an increment of 0 for the connection", updates(0, 0), BROKEN),
    Case("6.9", "an increment of 0 for a stream", running() + updates(1, 0), stream_error(PROTOCOL)),
    Case("6.9", "WINDOW_UPDATE of 3 bytes", f.frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), WRONG_SIZE),
    Case("6.9", "WINDOW_UPDATE of 5 bytes", running() + f.frame(f.WINDOW_UPDATE, 0, 1, bytes(5)), WRONG_SIZE),
    Case("6.9", "a reserved bit that is set", updates(0, 2**31 | 1), GOES_ON),
    Case("6.9.1", "a window of 2^31 - 1 for a stream", running() + updates(1, MOST - 65_535), GOES_ON),
    Case("6.9.1", "a larger window for a stream", running() + updates(1, MOST - 65_535, 1), stream_error(FLOW)),
    Case("6.9.1", "a window of 2^31 - 1 for the connection", updates(0, MOST - 65_535), GOES_ON),
    Case("6.9.1", "a larger window for the connection", updates(0, MOST - 65_535, 1), OVERFLOW),
    Case(
        "6.9.2",
        "an initial window that makes a stream's too large",
        running() + updates(1, 65_535) + setting(4, MOST),
        OVERFLOW,
    ),
    # CONTINUATION
    Case("6.10", "one CONTINUATION", request_in_pieces((H, 0), (C, END)) + data(), answered()),
    Case("6.10", "several CONTINUATIONs", request_in_pieces((H, 0), (C, 0), (C, 0), (C, END)) + data(), answered()),
    Case("6.10", "CONTINUATION, then another frame", request_in_pieces((H, 0), (C, 0)) + data(), BROKEN),
    Case("6.10", "CONTINUATION on no stream", f.frame(H, 0, 1, BLOCK) + f.frame(C, END, 0), BROKEN),
    Case("6.10", "CONTINUATION of another stream", f.frame(H, 0, 1, BLOCK) + f.frame(C, END, 3), BROKEN),
    Case("6.10", "CONTINUATION after END_HEADERS", headers() + f.frame(C, END, 1), BROKEN),
    Case(
        "6.10",
        "CONTINUATION after the last one",
        request_in_pieces((H, 0), (C, END)) + f.frame(C, END, 1),
        BROKEN,
    ),
    Case("6.10", "CONTINUATION after DATA", headers() + data() + f.frame(C, END, 1), BROKEN),
    Case("7", "RST_STREAM with an unknown code", running() + f.frame(f.RST_STREAM, 0, 1, b"\0\0\0\xff"), GOES_ON),
    Case("7", "GOAWAY with an unknown code", f.frame(f.GOAWAY, 0, 0, bytes(7) + b"\xff"), GOES_ON),
]
