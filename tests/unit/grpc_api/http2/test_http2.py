"""The server's side of HTTP/2 without a socket: what a client may send, and what it is told when it may not."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import grpc
import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from metasrv.grpc_api.http2 import connection as connection_module
from metasrv.grpc_api.http2 import control_frames, turns
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError, Http2StreamError
from metasrv.grpc_api.http2.headers import RequestDecoder, percent_encoded, timeout_seconds
from metasrv.grpc_api.http2.messages import Compressed, MessageError, MessageReader, inflated, length_prefixed
from metasrv.grpc_api.http2.status import StatusCode
from tests.support.http2_bench import HEADERS, Bench, Peer, compressed, settle


def test_status_codes_have_the_numbers_of_grpc() -> None:
    assert {code.name: code.value for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


# ----------------------------------------------------------------------------- messages


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 30), min_size=1))
def test_messages_are_the_same_in_whatever_pieces_they_come(messages: list[bytes], sizes: list[int]) -> None:
    reader = MessageReader("identity", 100)
    data = b"".join(length_prefixed(message) for message in messages)
    start = number = 0
    while start < len(data):
        size = sizes[number % len(sizes)]
        reader.feed(data[start : start + size])
        start, number = start + size, number + 1
    assert list(reader.messages) == messages
    assert not reader.incomplete


def test_a_message_past_the_limit_is_refused_by_its_prefix() -> None:
    reader = MessageReader("identity", 10)
    reader.feed(length_prefixed(bytes(10)))
    with pytest.raises(MessageError, match=r"larger than max \(11 vs\. 10\)") as caught:
        reader.feed(length_prefixed(bytes(11))[:5])
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


def test_compressed_messages_and_a_bomb() -> None:
    reader = MessageReader("gzip", 1000)

    def plain(data: bytes) -> bytes:
        reader.feed(compressed(data))
        message = reader.take()
        assert isinstance(message, Compressed)
        return inflated(message, 1000)

    assert plain(gzip.compress(b"x" * 1000)) == b"x" * 1000
    with pytest.raises(MessageError, match="larger than max"):
        plain(gzip.compress(bytes(1_000_000)))
    for data in (b"no gzip", gzip.compress(b"cut off")[:-9]):
        with pytest.raises(MessageError):
            plain(data)
    with pytest.raises(MessageError, match="compression flag 1"):
        MessageReader("identity", 1000).feed(compressed(gzip.compress(b"x")))


# ----------------------------------------------------------------------------- headers


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["1", "2", "x" * 3000])), min_size=1, max_size=30))
def test_remembered_headers_are_those_that_decoding_gives(extras: list[tuple[str, str]]) -> None:
    """Long values push each other out of the table, so that the same bytes come to mean something else."""
    encoder, decoder = Encoder(), RequestDecoder()
    for name, value in extras:
        block = encoder.encode([*HEADERS, (name, value)])
        request = decoder.decode(block)
        assert request.path == "/t.T/Echo"
        assert request.metadata == ((name, value),)


def test_binary_metadata_and_what_is_no_call() -> None:
    encoder, decoder = Encoder(), RequestDecoder()
    headers = [*HEADERS, ("auth-token-bin", "YWI"), ("other-bin", "YWI=,Yw"), ("odd-bin", "!")]
    assert decoder.decode(encoder.encode(headers)).metadata == (
        ("auth-token-bin", b"ab"),
        ("other-bin", b"ab"),
        ("other-bin", b"c"),
        ("odd-bin", b"!"),
    )
    get = [(":method", "GET"), *HEADERS[1:]]
    assert decoder.decode(encoder.encode(get)).http_status == 405
    assert decoder.decode(encoder.encode([*HEADERS[:4], ("content-type", "text/html")])).http_status == 415
    for bad in (HEADERS[1:], [*HEADERS, ("Upper", "x")], [("a", "b"), *HEADERS], [*HEADERS, ("grpc-timeout", "soon")]):
        with pytest.raises(Http2StreamError):
            decoder.decode(encoder.encode(bad))
    with pytest.raises(Http2ConnectionError):
        decoder.decode(b"\xff\xff\xff\xff\xff")


def test_timeouts_and_status_texts() -> None:
    assert timeout_seconds(None) is None
    assert timeout_seconds(b"1500m") == 1.5
    assert timeout_seconds(b"2H") == 7200
    assert percent_encoded("a b%é\n") == "a b%25%C3%A9%0A"


# ----------------------------------------------------------------------------- a connection


async def test_a_call_and_its_answer() -> None:
    peer = Peer(Bench().server)
    peer.request(1, length_prefixed(b"hello"))
    await settle()
    (first, data, last) = peer.frames()
    assert (data[0], data[3]) == (f.DATA, length_prefixed(b"hello"))
    assert peer.decoded(first[3])[":status"] == "200"
    assert peer.decoded(last[3]) == {"grpc-status": "0"}
    assert last[1] & f.END_STREAM
    assert not peer.connection.calls


async def test_headers_in_pieces_and_with_padding_and_priority() -> None:
    peer = Peer(Bench().server)
    block = peer.encoder.encode(HEADERS)
    padded = b"\x03" + bytes(5) + block[:7] + bytes(3)
    peer.send(f.frame(f.HEADERS, f.PADDED | f.HAS_PRIORITY, 1, padded))
    peer.send(f.frame(f.CONTINUATION, 0, 1, block[7:9]))
    for byte in f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[9:]):
        peer.send(bytes([byte]))
    peer.send(f.frame(f.DATA, f.END_STREAM | f.PADDED, 1, b"\x02" + length_prefixed(b"x") + bytes(2)))
    await settle()
    assert peer.headers()["grpc-status"] == "0"


async def test_a_large_answer_waits_for_the_windows() -> None:
    peer = Peer(Bench().server)
    peer.request(1, length_prefixed(bytes(90)), path="/t.T/Large")
    await settle()
    sent = sum(len(payload) for kind, _, _, payload in peer.frames() if kind == f.DATA)
    assert sent == f.WINDOW_SIZE_BYTES_DEFAULT
    peer.send(f.window_update(1, 50_000))
    assert not peer.frames(), "the connection's window is still closed"
    peer.send(f.window_update(0, 50_000))
    frames = peer.frames()
    assert sent + sum(len(payload) for kind, _, _, payload in frames if kind == f.DATA) == 90_005
    assert frames[-1][1] & f.END_STREAM


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    peer = Peer(Bench().server)
    peer.request(1, length_prefixed(bytes(90)), path="/t.T/Large")
    await settle()
    peer.frames()
    for _ in range(connection_module.STALLED_TICKS_MAX):
        peer.connection.tick()
        peer.send(f.frame(f.PING, f.ACK, 0, bytes(8)))
    assert peer.connection.calls
    peer.connection.tick()
    # It was answered, so it may be a write that was done.
    assert peer.headers()["grpc-status"] == str(StatusCode.ABORTED.value)
    assert not peer.connection.calls


async def test_what_is_held_for_all_clients_together_is_bounded() -> None:
    bench = Bench()
    budget = bench.server.budget
    peers = [Peer(bench.server) for _ in range(3)]
    for peer in peers[:2]:
        # The answer waits: the client takes less of it at once.
        peer.request(1, length_prefixed(bytes(90)), path="/t.T/Large")
        await settle()
    assert budget.used_bytes == 2 * (90_005 - f.WINDOW_SIZE_BYTES_DEFAULT)
    part = compressed(gzip.compress(bytes(99_000)))[:-1]
    for number in range(7):
        peers[2].request(2 * number + 1, None, ("grpc-encoding", "gzip"), path="/t.T/Each")
        peers[2].send(f.frame(f.DATA, 0, 2 * number + 1, part))
    assert budget.used_bytes == 2 * (90_005 - f.WINDOW_SIZE_BYTES_DEFAULT) + 7 * len(part)
    peers[2].request(101, None, path="/t.T/Echo")
    for _ in range(7):
        peers[2].send(f.frame(f.DATA, 0, 101, length_prefixed(bytes(99_999))[:14_000]))
    assert not budget.exceeded
    peers[1].request(3, length_prefixed(bytes(90)), path="/t.T/Large")
    await settle()
    assert budget.exceeded is False, "the answer that was too much is given up"
    headers = peers[1].headers()
    assert headers["grpc-status"] == str(StatusCode.ABORTED.value)
    assert headers["grpc-message"].startswith("this node already holds 150000 bytes")

    for peer in peers:
        peer.connection.connection_lost(None)
    await settle()
    assert budget.used_bytes == 0


async def test_a_request_that_no_longer_fits_is_refused_before_it_is_whole() -> None:
    bench = Bench()
    budget = bench.server.budget
    peer = Peer(bench.server)
    for stream_id, pieces in ((1, 6), (3, 5)):
        peer.request(stream_id, None, path="/t.T/Echo")
        for _ in range(pieces):
            peer.send(f.frame(f.DATA, 0, stream_id, length_prefixed(bytes(99_999))[:14_000]))
    headers = peer.headers()
    assert headers["grpc-status"] == str(StatusCode.RESOURCE_EXHAUSTED.value)
    assert headers["x-refused"] == "nothing was done"
    assert budget.used_bytes == 84_000
    peer.send(f.frame(f.DATA, f.END_STREAM, 1, bytes(100_004 - 84_000)))
    await settle()
    assert budget.used_bytes == 100_004 - f.WINDOW_SIZE_BYTES_DEFAULT, "the answer's part that waits"
    peer.send(f.window_update(0, 50_000) + f.window_update(1, 50_000))
    assert peer.headers()["grpc-status"] == "0"
    assert budget.used_bytes == 0


async def test_a_stream_of_requests_is_answered_while_it_is_open() -> None:
    peer = Peer(Bench().server)
    peer.request(1, None, path="/t.T/Each")
    for text in (b"a", b"b"):
        peer.send(f.frame(f.DATA, 0, 1, length_prefixed(text)))
        await settle()
        assert length_prefixed(text) in [payload for kind, _, _, payload in peer.frames() if kind == f.DATA]
    peer.send(f.frame(f.DATA, f.END_STREAM, 1, b""))
    await settle()
    assert peer.headers()["grpc-status"] == "0"


async def test_a_client_that_leaves_cancels_the_handler() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.request(1, length_prefixed(b""), path="/t.T/Stuck")
    peer.request(3, length_prefixed(b""), path="/t.T/Stuck")
    await settle()
    peer.send(f.rst_stream(1, ErrorCode.CANCEL))
    await settle()
    assert bench.cancelled == 1
    peer.connection.connection_lost(None)
    await settle()
    assert bench.cancelled == 2
    assert not bench.server.connections


async def test_a_deadline_ends_the_call() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.request(1, length_prefixed(b""), ("grpc-timeout", "1n"), path="/t.T/Stuck")
    await settle()
    bench.server.deadlines.check()
    assert peer.headers()["grpc-status"] == str(StatusCode.DEADLINE_EXCEEDED.value)
    await settle()
    assert bench.cancelled == 1


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (length_prefixed(b"1") + length_prefixed(b"2"), 3, "exactly one message"),
        (b"", 3, "exactly one message"),
        (length_prefixed(b"12345")[:-1], 3, "exactly one message"),
        (b"\x00\x7f\xff\xff\xff", 8, "larger than max (2147483647 vs. 100000)"),
    ],
)
async def test_requests_that_are_not_one_message(data: bytes, status: int, text: str) -> None:
    peer = Peer(Bench().server)
    peer.request(1, data)
    await settle()
    headers = peer.headers()
    assert headers["grpc-status"] == str(status)
    assert text in headers["grpc-message"]
    peer.request(3, length_prefixed(b"next"))
    await settle()
    assert peer.headers()["grpc-status"] == "0", "the connection goes on"


async def test_methods_and_encodings_that_are_not_there() -> None:
    peer = Peer(Bench().server)
    peer.request(1, length_prefixed(b""), path="/" + "n" * 10_000)
    headers = peer.headers()
    assert headers["grpc-status"] == "12"
    assert len(headers["grpc-message"]) == 2000, "clients refuse longer headers"
    peer.request(3, length_prefixed(b""), ("grpc-encoding", "snappy"))
    headers = peer.headers()
    assert (headers["grpc-status"], headers["grpc-accept-encoding"]) == ("12", "identity,deflate,gzip")


async def test_more_streams_than_announced_are_refused_one_by_one() -> None:
    peer = Peer(Bench().server)
    for number in range(9):
        peer.request(2 * number + 1, length_prefixed(b""), path="/t.T/Stuck")
    resets = [(stream, payload) for kind, _, stream, payload in peer.frames() if kind == f.RST_STREAM]
    assert resets[0] == (17, ErrorCode.REFUSED_STREAM.to_bytes(4, "big"))
    assert not peer.transport.closed
    peer.connection.connection_lost(None)


PREAMBLE = f.PREFACE + f.settings({})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (f.PREFACE + f.frame(f.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.pack_frame_header(20_000 << 8, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
        (PREAMBLE + f.frame(f.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.frame(f.HEADERS, f.END_HEADERS, 2, Encoder().encode(HEADERS)), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (PREAMBLE + f.frame(f.CONTINUATION, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.frame(f.HEADERS, 0, 1) + f.frame(f.PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.frame(f.HEADERS, 0, 1) + f.frame(f.CONTINUATION, 0, 1) * 20, ErrorCode.ENHANCE_YOUR_CALM),
        (PREAMBLE + f.frame(f.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (PREAMBLE + f.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.window_update(0, f.WINDOW_SIZE_BYTES_MAX), ErrorCode.FLOW_CONTROL_ERROR),
        (PREAMBLE + f.settings({f.SETTING_INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (PREAMBLE + f.settings({f.SETTING_MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.settings({f.SETTING_ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
        (PREAMBLE + f.frame(f.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (PREAMBLE + f.frame(f.PUSH_PROMISE, 0, 1), ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_told_so_and_cut_off(data: bytes, code: ErrorCode) -> None:
    peer = Peer(Bench().server, greeted=False)
    peer.send(data)
    found, text = peer.goaway()
    assert found == code
    assert text
    peer.send(b"more")  # what is still on its way means nothing


async def test_floods_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_frames, "CONTROL_FRAMES_MAX", 50)
    floods: list[Callable[[int], bytes]] = [
        lambda number: f.frame(f.PING, 0, 0, bytes(8)),
        lambda number: f.settings({}),
        lambda number: f.frame(f.PRIORITY, 0, 1, bytes(5)),
        lambda number: f.frame(0x77, 0, 1),
    ]
    for flood in floods:
        peer = Peer(Bench().server)
        peer.send(b"".join(flood(number) for number in range(60)))
        assert peer.goaway()[0] == ErrorCode.ENHANCE_YOUR_CALM
    peer = Peer(Bench().server)
    for number in range(60):
        if not peer.transport.closed:
            peer.request(2 * number + 1, None, path="/t.T/Stuck")
            peer.send(f.rst_stream(2 * number + 1, ErrorCode.CANCEL))
    assert peer.goaway()[0] == ErrorCode.ENHANCE_YOUR_CALM


async def test_a_client_may_measure_the_connection_with_each_piece_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ping for every piece of data that arrives, thousands a second on a fast network."""
    monkeypatch.setattr(control_frames, "CONTROL_FRAMES_MAX", 50)
    peer = Peer(Bench().server)
    for number in range(200):
        peer.request(2 * number + 1, length_prefixed(b"small"))
        await settle()
        assert [kind for kind, *_ in peer.frames()].count(f.DATA) == 1
        peer.send(f.frame(f.PING, 0, 0, bytes(8)))
    assert not peer.transport.closed
    peer.send(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: 1}))
    peer.request(1001, length_prefixed(bytes(95)))
    await settle()
    for _ in range(99):
        peer.send(f.window_update(1001, 1) + f.frame(f.PING, 0, 0, bytes(8)))
    assert peer.headers()["grpc-status"] == "0"
    peer.connection.tick()
    peer.send(f.frame(f.PING, 0, 0, bytes(8)) * 51)
    assert peer.goaway()[0] == ErrorCode.ENHANCE_YOUR_CALM, "what was answered long ago excuses nothing"


async def test_more_connections_than_there_is_room_for_are_closed_at_once() -> None:
    bench = Bench()
    peers = [Peer(bench.server) for _ in range(3)]
    for peer in peers:
        peer.connection.prove()
    refused = Peer(bench.server, greeted=False)
    assert refused.transport.closed
    assert refused.frames() == []
    refused.connection.connection_lost(None)
    assert not any(peer.transport.closed for peer in peers)
    assert (bench.metrics.client.connections, bench.metrics.client.connections_refused) == (3, 1)
    peers[0].connection.connection_lost(None)
    assert not Peer(bench.server).transport.closed
    assert (bench.metrics.client.connections, bench.metrics.client.connections_refused) == (3, 1)


async def test_other_protocols_are_told_what_this_port_is() -> None:
    peer = Peer(Bench().server, greeted=False)
    peer.send(b"GET /v1/health HTTP/1.1\r\n\r\n")
    assert peer.transport.written.startswith(b"HTTP/1.1 505"), "what comes first is what its client reads"
    assert b"admin API" in peer.transport.written
    assert peer.transport.closed


async def test_many_frames_in_one_piece_let_the_loop_run_in_between() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    bench.step_seconds = turns.SLICE_SECONDS / 100
    peer.send(f.frame(f.PING, 0, 0, bytes(8)) * 300)
    answered = len(peer.frames())
    assert 90 <= answered <= 100
    assert peer.transport.held, "a peer cannot pile up more than was read at once"
    await settle()
    assert len(peer.frames()) == 300 - answered
    assert not peer.transport.held


async def test_a_client_with_little_to_do_goes_before_those_that_flood() -> None:
    bench = Bench()
    floods = [Peer(bench.server), Peer(bench.server)]
    peer = Peer(bench.server)
    bench.step_seconds = turns.SLICE_SECONDS / 100
    for flood in floods:
        flood.send(f.frame(f.PING, 0, 0, bytes(8)) * 9_000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert all(flood.connection.share.used_seconds > turns.LIGHT_SECONDS for flood in floods)
    peer.request(1, length_prefixed(b"small"))
    for _ in range(4):
        await asyncio.sleep(0)
    assert peer.headers()["grpc-status"] == "0"
    assert all(flood.transport.held for flood in floods), "both still have frames to handle"


@pytest.mark.virtual_time
async def test_a_stop_waits_until_the_last_call_has_its_answer() -> None:
    bench = Bench()
    one, other = Peer(bench.server), Peer(bench.server)
    for peer in (one, other):
        peer.request(1, None, path="/t.T/Each")
    await settle()
    stopping = asyncio.create_task(bench.server.stop(60))
    for peer in (one, other):
        await settle()
        assert not stopping.done()
        peer.send(f.frame(f.DATA, f.END_STREAM, 1, length_prefixed(b"last")))
        await settle()
        assert peer.headers()["grpc-status"] == "0"
        peer.connection.connection_lost(None)
    await stopping


@pytest.mark.virtual_time
async def test_a_stop_waits_for_calls_and_cuts_the_rest() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.request(1, length_prefixed(b""), path="/t.T/Stuck")
    await settle()
    stopping = asyncio.create_task(bench.server.stop(0))
    await settle()
    peer.connection.connection_lost(None)
    await stopping
    frames = peer.frames()
    assert (frames[0][0], int.from_bytes(frames[0][3][:4], "big")) == (f.GOAWAY, 1)
    assert peer.decoded(frames[1][3])["grpc-status"] == str(StatusCode.ABORTED.value)
    assert bench.cancelled == 1


async def test_a_silent_peer_is_asked_and_then_cut_off() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    for _ in range(connection_module.TICKS_UNTIL_PING):
        assert not peer.frames()
        peer.connection.tick()
    assert [kind for kind, *_ in peer.frames()] == [f.PING]
    peer.send(f.frame(f.PING, f.ACK, 0, b"metasrv?"))
    for _ in range(connection_module.TICKS_UNTIL_DEAD):
        assert not peer.transport.closed
        peer.connection.tick()
    assert peer.transport.closed


async def test_a_peer_that_never_said_what_it_speaks_is_cut_off_without_a_word() -> None:
    bench = Bench()
    peer = Peer(bench.server, greeted=False)
    for _ in range(connection_module.TICKS_UNTIL_DEAD):
        assert not peer.transport.closed
        peer.connection.tick()
    assert peer.transport.closed
    assert peer.frames() == []


@given(st.binary(max_size=200))
async def test_random_bytes_end_the_connection_or_are_waited_on(data: bytes) -> None:
    server = Bench().server
    peer = Peer(server, greeted=False)
    peer.send(f.PREFACE + f.settings({}) + data)
    await settle()
    assert peer.transport.closed or len(server.connections) == 1
    peer.connection.connection_lost(None)
    await settle()
    assert not server.connections
    assert not peer.connection.calls
