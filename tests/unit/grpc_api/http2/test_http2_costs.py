"""What a client can make the server keep or do: everything counts, and who keeps the most gives way."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from metasrv.grpc_api.http2 import connection as connection_module
from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.control_frames import CONTROL_FRAMES_MAX, FIELDS_PER_CONTROL_FRAME
from metasrv.grpc_api.http2.frames import ErrorCode
from metasrv.grpc_api.http2.headers import FIELD_OVERHEAD_SIZE_BYTES, FIELDS_MAX, HEADER_LIST_SIZE_BYTES_MAX
from metasrv.grpc_api.http2.messages import MESSAGE_OVERHEAD_SIZE_BYTES, length_prefixed
from metasrv.grpc_api.http2.sending import header_frames
from metasrv.grpc_api.http2.status import StatusCode
from tests.support.http2_bench import HEADERS, Bench, Peer, compressed, settle

REFUSED = str(StatusCode.RESOURCE_EXHAUSTED.value)


async def inflated_by(bench: Bench) -> None:
    """Return once everything that waits to be decompressed is."""
    await settle()
    await asyncio.wrap_future(bench.server.inflater.submit(int))
    await settle()


# ----------------------------------------------------------------------------- what is kept


async def test_messages_are_counted_as_large_as_they_are_decompressed() -> None:
    """A few hundred bytes each that become 99,000: past the limit of 150,000 the next ones are refused."""
    bench = Bench()
    peer = Peer(bench.server)
    bomb = compressed(gzip.compress(bytes(99_000)))
    for stream_id in (1, 3, 5):
        peer.request(stream_id, bomb, ("grpc-encoding", "gzip"), path="/t.T/Stuck")
    await inflated_by(bench)
    assert len(peer.connection.calls) == 1, "there is room for one"
    assert bench.server.budget.used_bytes == 99_000
    frames = [(kind, stream_id) for kind, _, stream_id, _ in peer.frames() if kind == f.HEADERS]
    assert frames == [(f.HEADERS, 3), (f.HEADERS, 5)]
    peer.send(f.rst_stream(1, ErrorCode.CANCEL))
    assert bench.server.budget.used_bytes == 0


async def test_messages_of_a_stream_wait_as_small_as_they_arrived() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.request(1, None, ("grpc-encoding", "gzip"), path="/t.T/Idle")
    bomb = compressed(gzip.compress(bytes(99_000)))
    await settle()
    for _ in range(100):
        peer.send(f.frame(f.DATA, 0, 1, bomb))
    size_bytes = len(bomb) - 5 + MESSAGE_OVERHEAD_SIZE_BYTES
    assert bench.server.budget.used_bytes == 100 * size_bytes
    for _ in range(600):
        peer.send(f.frame(f.DATA, 0, 1, length_prefixed(b"")))
    assert bench.server.budget.used_bytes == 100 * size_bytes + 600 * MESSAGE_OVERHEAD_SIZE_BYTES, "empty ones count too"


async def test_a_message_that_does_not_decompress_ends_its_call_alone() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    for stream_id, path in ((1, "/t.T/Echo"), (3, "/t.T/Each")):
        peer.request(stream_id, compressed(b"no gzip"), ("grpc-encoding", "gzip"), path=path)
        await settle()
        await inflated_by(bench)
        headers = peer.headers()
        assert headers["grpc-status"] == str(StatusCode.INTERNAL.value)
        assert "does not decompress" in headers["grpc-message"]
    assert not peer.transport.closed


async def test_large_metadata_counts_while_its_call_is_open() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    for number in range(8):
        peer.request(2 * number + 1, None, ("x", f"{number}" * 20_000), path="/t.T/Stuck")
    assert len(peer.connection.calls) == 7
    assert 140_000 < bench.server.budget.used_bytes < 150_000
    assert peer.headers()["grpc-status"] == REFUSED
    peer.connection.connection_lost(None)
    assert bench.server.budget.used_bytes == 0


async def test_who_keeps_the_most_gives_way_to_who_keeps_less() -> None:
    bench = Bench()
    greedy, modest = Peer(bench.server), Peer(bench.server)
    for stream_id in (1, 3):
        greedy.request(stream_id, None, path="/t.T/Echo")
        for _ in range(5):
            greedy.send(f.frame(f.DATA, 0, stream_id, length_prefixed(bytes(99_999))[:14_000]))
    assert bench.server.budget.used_bytes == 140_000
    modest.request(1, None, path="/t.T/Echo")
    data = length_prefixed(bytes(20_000))
    modest.send(f.frame(f.DATA, 0, 1, data[:14_000]) + f.frame(f.DATA, f.END_STREAM, 1, data[14_000:]))
    await settle()
    assert modest.headers()["grpc-status"] == "0"
    headers = greedy.headers()
    assert (headers["grpc-status"], headers["x-refused"]) == (REFUSED, "nothing was done")
    assert len(greedy.connection.calls) == 1, "no more than is needed"


async def test_answers_that_nobody_reads_are_counted_and_cut_off() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.connection.pause_writing()
    peer.transport.written += bytes(140_000)
    peer.send(f.frame(f.PING, 0, 0, bytes(8)))
    assert not peer.transport.closed
    assert bench.server.budget.used_bytes == 140_000
    peer.transport.written += bytes(20_000)
    peer.send(f.frame(f.PING, 0, 0, bytes(8)))
    assert peer.transport.closed
    peer.connection.connection_lost(None)
    assert bench.server.budget.used_bytes == 0


async def test_a_request_that_never_arrives_is_given_up() -> None:
    bench = Bench()
    peer = Peer(bench.server)
    peer.request(1, None, path="/t.T/Echo")
    peer.request(3, None, path="/t.T/Each")
    for _ in range(connection_module.REQUEST_TICKS_MAX):
        peer.connection.tick()
        peer.send(f.frame(f.PING, f.ACK, 0, bytes(8)))
    assert len(peer.connection.calls) == 2
    peer.connection.tick()
    assert peer.headers()["grpc-status"] == str(StatusCode.DEADLINE_EXCEEDED.value)
    assert list(peer.connection.calls) == [3], "a stream of requests may be silent"


# ----------------------------------------------------------------------------- what frames cost


async def test_settings_that_name_a_window_many_times_cost_their_sender_many_frames() -> None:
    peer = Peer(Bench().server)
    payload = b"".join(f.settings({f.SETTING_INITIAL_WINDOW_SIZE: number})[9:] for number in range(2_700))
    frame = f.frame(f.SETTINGS, 0, 0, payload)
    peer.send(frame)
    assert peer.connection.windows.initial_bytes == 2_699, "only the last one counts"
    for _ in range(40):
        if not peer.transport.closed:
            peer.send(frame)
    assert peer.goaway()[0] == ErrorCode.ENHANCE_YOUR_CALM


async def test_a_block_of_references_ends_the_connection() -> None:
    peer = Peer(Bench().server)
    block = peer.encoder.encode([*HEADERS, ("a", "b")]) + b"\xbe" * FIELDS_MAX
    peer.send(f.frame(f.HEADERS, f.END_HEADERS, 1, block))
    code, text = peer.goaway()
    assert code == ErrorCode.ENHANCE_YOUR_CALM
    assert f"more than {FIELDS_MAX} fields" in text


async def test_requests_of_many_fields_cost_their_sender_many_frames() -> None:
    peer = Peer(Bench().server)
    head = peer.encoder.encode([*HEADERS, ("a", "b")])
    for number in range(250):
        if not peer.transport.closed:
            block = (head if not number else peer.encoder.encode([*HEADERS, ("a", "b")])) + b"\xbe" * 900
            peer.send(f.frame(f.HEADERS, f.END_HEADERS, 2 * number + 1, block))
    taken = CONTROL_FRAMES_MAX // (900 // FIELDS_PER_CONTROL_FRAME)
    assert peer.connection._history.last_id // 2 <= taken, "some milliseconds of work each"
    assert peer.goaway()[0] == ErrorCode.ENHANCE_YOUR_CALM


SEVENTY_KB = 70_000
COUNTED_BYTES = FIELD_OVERHEAD_SIZE_BYTES + 6


@pytest.mark.parametrize(
    "metadata",
    [
        [("x", "~" * SEVENTY_KB)],
        [("x", "~" * 3_500)] * 20,
        [(f"x{number:04}", "~") for number in range(SEVENTY_KB // COUNTED_BYTES)],
        [("x", "~~~~~")] * (SEVENTY_KB // COUNTED_BYTES),
    ],
    ids=["one field", "twenty fields", "small fields", "references"],
)
async def test_seventy_kilobytes_of_metadata_end_one_call_in_whatever_fields(metadata: list[tuple[str, str]]) -> None:
    peer = Peer(Bench().server)
    block = peer.encoder.encode([*HEADERS, *metadata], huffman=False)
    peer.send(header_frames(1, block, f.END_STREAM, f.PAYLOAD_SIZE_BYTES_MAX))
    headers = peer.headers()
    assert (headers["grpc-status"], headers["x-refused"]) == (REFUSED, "nothing was done")
    peer.request(3, length_prefixed(b"next"))
    await settle()
    assert peer.headers()["grpc-status"] == "0", "the connection goes on"


@pytest.mark.parametrize("size_bytes", [HEADER_LIST_SIZE_BYTES_MAX, HEADER_LIST_SIZE_BYTES_MAX + 5_000])
async def test_metadata_past_the_limit_ends_one_call(size_bytes: int) -> None:
    peer = Peer(Bench().server)
    block = peer.encoder.encode([*HEADERS, ("x", "~" * size_bytes)], huffman=False)
    pieces = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
    peer.send(f.frame(f.HEADERS, f.END_STREAM, 1, pieces[0]))
    for number, piece in enumerate(pieces[1:], 2):
        peer.send(f.frame(f.CONTINUATION, f.END_HEADERS if number == len(pieces) else 0, 1, piece))
    headers = peer.headers()
    assert (headers["grpc-status"], headers["x-refused"]) == (REFUSED, "nothing was done")
    peer.request(3, length_prefixed(b"next"))
    await settle()
    assert peer.headers()["grpc-status"] == "0", "the connection goes on"
