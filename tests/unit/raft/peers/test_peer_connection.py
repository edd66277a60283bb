"""The two ends of a peer connection over a stream in memory: handshake, requests, limits, hostile bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.model.errors import (
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    PeerUnreachableError,
    TooLargeError,
    UnknownOutcomeError,
)
from metasrv.model.limits import (
    HELLO_SIZE_BYTES_MAX,
    MIB,
    PEER_BUFFER_HIGH_BYTES,
    PEER_BUFFER_LOW_BYTES,
    PEER_FRAME_SIZE_BYTES_MAX,
    REQUESTS_IN_FLIGHT_PER_PEER_MAX,
)
from metasrv.model.types import Endpoint
from metasrv.model.wire import pack
from metasrv.raft.peers.accepted_connection import PROGRESS_SIZE_BYTES, AcceptedConnection
from metasrv.raft.peers.connection import FLUSH_SIZE_BYTES, Connection
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.frames import PAYLOAD_SIZE_BYTES_MAX, ChecksumIntegrity, FrameKind, frame_parts
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.security import PeerSecurity
from metasrv.testing.memory_stream import MemoryStream, MemoryTransport

SECRET = PeerSecurity(b"secret")
OPEN = PeerSecurity()


def identity(node_id: int | None) -> LocalIdentity:
    return LocalIdentity(node_id, f"data-{node_id}", Endpoint("host", 28100 + (node_id or 0)), "c1")


class Owner:
    """Remembers what its connection told it, and answers as the test says."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.messages: list[bytes] = []
        self.refusal: str | None = None
        self.no_room: str | None = None
        self.answers: dict[str, Any] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.sent_bytes = self.received_bytes = 0

    def begun(self, connection: AcceptedConnection) -> str | None:
        return self.no_room

    def admit(self, connection: AcceptedConnection, remote: RemoteIdentity) -> str | None:
        return self.refusal

    def established(self, connection: Connection) -> None:
        self.told.append("established")

    def flow_changed(self, connection: Connection) -> None:
        self.told.append("paused" if connection.paused else "resumed")

    def lost(self, connection: Connection) -> None:
        self.told.append("lost")

    def sent(self, connection: Connection, size_bytes: int) -> None:
        self.sent_bytes += size_bytes

    def received(self, connection: Connection, size_bytes: int) -> None:
        self.received_bytes += size_bytes

    def frames_took(self, seconds: float) -> None:
        del seconds

    def raft_message(self, connection: AcceptedConnection, payload: bytes) -> None:
        self.messages.append(payload)

    def raft_message_arrives(self, connection: AcceptedConnection) -> None:
        self.told.append("a message arrives")

    async def request(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        if method in self.gates:
            await self.gates[method].wait()
        answer = self.answers.get(method, payload)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, bytes)
        return answer

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))


class Pair:
    """A dialler and an acceptor; `stream.left` is the dialler's end."""

    def __init__(
        self,
        dialler_security: PeerSecurity = SECRET,
        acceptor_security: PeerSecurity = SECRET,
        role: Role = Role.PEER,
        expected_node_id: int | None = 2,
        refusal: str | None = None,
    ) -> None:
        self.dialler_owner, self.acceptor_owner = Owner(), Owner()
        self.acceptor_owner.refusal = refusal
        self.dialler = DialledConnection(identity(1), dialler_security, role, expected_node_id, self.dialler_owner)
        self.acceptor = AcceptedConnection(identity(2), acceptor_security, 7, self.acceptor_owner)
        self.stream = MemoryStream(self.dialler, self.acceptor)

    async def ready(self, chunk_size_bytes: int | None = None) -> str | None:
        await self.stream.pump(chunk_size_bytes)
        return await self.dialler.ready

    async def ask(self, method: str, payload: bytes = b"", timeout_ms: int = 60_000) -> bytes:
        task = asyncio.ensure_future(self.dialler.request(method, payload, timeout_ms))
        await asyncio.sleep(0)
        while not task.done():
            await self.stream.pump()
        return await task


@pytest.mark.parametrize("chunk_size_bytes", [None, 1, 7, 1000])
@pytest.mark.parametrize("security", [OPEN, SECRET])
async def test_messages_arrive_in_order_however_the_stream_is_cut(security: Any, chunk_size_bytes: Any) -> None:
    pair = Pair(security, security)
    assert await pair.ready(chunk_size_bytes) is None
    assert pair.dialler.remote == RemoteIdentity(2, "data-2", Endpoint("host", 28102), "c1")
    assert pair.acceptor.remote == RemoteIdentity(1, "data-1", Endpoint("host", 28101), "c1")
    messages = [bytes([number]) * number for number in range(50)]
    for message in messages:
        pair.dialler.send_raft(message)
    await pair.stream.pump(chunk_size_bytes)
    assert pair.acceptor_owner.messages == messages
    assert pair.dialler_owner.told == pair.acceptor_owner.told == ["established"]
    assert pair.dialler_owner.sent_bytes == pair.acceptor_owner.received_bytes > 0


async def test_small_messages_of_one_iteration_leave_together_and_large_ones_at_once() -> None:
    pair = Pair()
    await pair.ready()
    pair.dialler.send_raft(b"a")
    pair.dialler.send_raft(b"b")
    assert pair.stream.left.outgoing == b""
    assert pair.dialler.buffered_bytes > 0
    await asyncio.sleep(0)
    assert len(pair.stream.left.outgoing) == pair.dialler.buffered_bytes
    await pair.stream.pump()
    pair.dialler.send_raft(bytes(FLUSH_SIZE_BYTES))
    assert len(pair.stream.left.outgoing) > FLUSH_SIZE_BYTES
    await pair.stream.pump()
    assert pair.acceptor_owner.messages == [b"a", b"b", bytes(FLUSH_SIZE_BYTES)]


async def test_a_message_at_the_limit_arrives_and_one_past_it_leaves_the_connection_usable() -> None:
    pair = Pair(OPEN, OPEN)
    await pair.ready()
    pair.dialler.send_raft(bytes(PAYLOAD_SIZE_BYTES_MAX))
    with pytest.raises(TooLargeError, match="a message to a peer in bytes"):
        pair.dialler.send_raft(bytes(PAYLOAD_SIZE_BYTES_MAX + 1))
    pair.dialler.send_raft(b"after")
    await pair.stream.pump(MIB)
    assert [len(message) for message in pair.acceptor_owner.messages] == [PAYLOAD_SIZE_BYTES_MAX, 5]


@pytest.mark.parametrize("chunk_size_bytes", [10_000, PROGRESS_SIZE_BYTES, MIB])
async def test_a_large_message_is_told_of_while_it_arrives(chunk_size_bytes: int) -> None:
    pair = Pair()
    await pair.ready()
    pair.dialler.send_raft(bytes(8 * MIB))
    await pair.stream.pump(chunk_size_bytes)
    told = pair.acceptor_owner.told.count("a message arrives")
    assert 8 * MIB // max(2 * PROGRESS_SIZE_BYTES, chunk_size_bytes) <= told <= 8 * MIB // PROGRESS_SIZE_BYTES
    assert len(pair.acceptor_owner.messages) == 1


async def test_small_messages_trickles_and_requests_are_not_told_of_as_large_ones() -> None:
    pair = Pair()
    await pair.ready()
    for _ in range(100):
        pair.dialler.send_raft(bytes(PROGRESS_SIZE_BYTES - 100))
        await pair.stream.pump(10_000)
    asking = asyncio.ensure_future(pair.dialler.request("echo", bytes(8 * MIB), 60_000))
    await asyncio.sleep(0)
    await pair.stream.pump(MIB)
    await asking
    assert "a message arrives" not in pair.acceptor_owner.told


# ----------------------------------------------------------------------------- refusals


async def test_a_wrong_secret_is_refused_with_a_sentence() -> None:
    pair = Pair(PeerSecurity(b"another"))
    failure = await pair.ready()
    sentence = "the shared secret (raft_secret) of this node and of the caller differ"
    assert failure == f"it refused: {sentence}"
    assert pair.acceptor.failure == sentence
    assert pair.dialler_owner.told == pair.acceptor_owner.told == ["lost"]


async def test_a_node_that_is_not_admitted_is_told_why() -> None:
    pair = Pair(refusal="node 1 was removed from this cluster")
    assert await pair.ready() == "it refused: node 1 was removed from this cluster"
    assert "established" not in pair.acceptor_owner.told


async def test_another_node_than_expected_is_turned_away_before_anything_is_sent() -> None:
    pair = Pair(expected_node_id=3)
    assert await pair.ready() == "node 2 answers there, node 3 was expected"
    assert pair.dialler_owner.told == ["lost"]


async def test_no_room_closes_at_once_without_an_answer() -> None:
    owner = Owner()
    owner.no_room = "there are 256 peer connections already"
    acceptor = AcceptedConnection(identity(2), SECRET, 1, owner)
    transport = MemoryTransport(acceptor, "right")
    acceptor.connection_made(transport)
    assert transport.aborted
    acceptor.data_received(b"anything")
    assert transport.outgoing == b""


@pytest.mark.parametrize("side", ["dialler", "acceptor"])
async def test_a_handshake_that_takes_too_long_is_given_up(side: Any) -> None:
    pair = Pair()
    getattr(pair, side).handshake_expired()
    await pair.stream.pump()
    assert await pair.dialler.ready is not None
    assert getattr(pair, side).failure == "the handshake was not finished within 5000 ms"
    assert pair.dialler_owner.told == pair.acceptor_owner.told == ["lost"]


async def test_a_finished_handshake_does_not_expire() -> None:
    pair = Pair()
    await pair.ready()
    for connection in (pair.dialler, pair.acceptor):
        assert connection._handshake_timer is not None
        assert connection._handshake_timer.cancelled()


# ----------------------------------------------------------------------------- hostile bytes


def alone(security: PeerSecurity = SECRET) -> tuple[AcceptedConnection, MemoryTransport, Owner]:
    owner = Owner()
    acceptor = AcceptedConnection(identity(2), security, 1, owner)
    transport = MemoryTransport(acceptor, "stranger")
    acceptor.connection_made(transport)
    return acceptor, transport, owner


def frame(kind: FrameKind, payload: bytes, integrity: ChecksumIntegrity | None = None) -> bytes:
    return b"".join(frame_parts(kind, payload, integrity or ChecksumIntegrity()))


@given(st.lists(st.binary(max_size=600), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_bytes_reach_nobody(pieces: Any) -> None:
    async def run() -> None:
        acceptor, transport, owner = alone(OPEN)
        for piece in pieces:
            transport.receive(piece)
        assert owner.messages == []
        assert owner.tasks == []
        assert owner.told == []
        assert acceptor.remote is None
        acceptor.connection_lost(None)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a frame of 1195725856 bytes was announced"),
        (b"\x80\x00\x00\x00", "a frame of 2147483648 bytes was announced, the limit is 4096"),
        (b"\x00\x00\x10\x01", "a frame of 4097 bytes was announced, the limit is 4096"),
        (frame(FrameKind.RAFT, b"x"), "a frame of kind 6 came during the handshake"),
        (frame(FrameKind.REQUEST, pack((1, "leave", b""))), "a frame of kind 7 came during the handshake"),
        (frame(FrameKind.PROOF, b""), "a frame of kind 3 came during the handshake"),
        (frame(FrameKind.HELLO, b"\x80\x05."), "the handshake is not understood"),
        (frame(FrameKind.HELLO, pack((9, 0, 3))), "node 3 speaks peer protocol 9, this node speaks "),
        (
            b"\x00\x00\x00\x2a\x01\x97\x01\x00\x03" + bytes(40),
            "the head of a frame is damaged, or the other side runs metasrv 0.1",
        ),
    ],
)
async def test_strangers_are_told_why_and_closed(data: Any, failure: Any) -> None:
    acceptor, transport, owner = alone()
    transport.receive(data + b"more")
    assert acceptor.closed
    assert transport.is_closing()
    assert acceptor.failure is not None
    assert failure in acceptor.failure
    assert failure[:30].encode() in transport.outgoing
    assert len(transport.outgoing) < HELLO_SIZE_BYTES_MAX
    transport.receive(data)
    assert owner.messages == []


async def test_a_dialler_distrusts_what_answers_it() -> None:
    for data in (b"HTTP/1.1 400 Bad Request\r\n", frame(FrameKind.RAFT, b"x"), frame(FrameKind.WELCOME, b"x")):
        owner = Owner()
        dialler = DialledConnection(identity(1), SECRET, Role.PEER, 2, owner)
        transport = MemoryTransport(dialler, "stranger")
        dialler.connection_made(transport)
        transport.receive(data)
        assert transport.aborted
        assert await dialler.ready == dialler.failure


async def test_garbage_after_the_handshake_closes_the_connection_and_delivers_nothing_more() -> None:
    pair = Pair()
    await pair.ready()
    pair.dialler.send_raft(b"good")
    await asyncio.sleep(0)
    pair.stream.right.receive(pair.stream.left.take() + b"\x00" * 64)
    assert pair.acceptor_owner.messages == [b"good"]
    assert pair.stream.right.aborted
    assert pair.acceptor.failure == f"a frame of 0 bytes was announced, the limit is {PEER_FRAME_SIZE_BYTES_MAX}"


@pytest.mark.parametrize("security", [OPEN, SECRET])
async def test_a_replayed_or_changed_message_closes_the_connection(security: Any) -> None:
    damages: tuple[Callable[[bytes], bytes], ...] = (
        lambda data: data + data,
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    )
    for damage in damages:
        pair = Pair(security, security)
        await pair.ready()
        pair.dialler.send_raft(b"vote for me")
        await asyncio.sleep(0)
        pair.stream.right.receive(damage(pair.stream.left.take()))
        assert pair.acceptor_owner.messages in ([b"vote for me"], [])
        assert pair.acceptor.failure == "a frame was damaged, repeated, left out, or made without the session's key"


async def test_a_recorded_conversation_is_worthless_against_a_new_connection() -> None:
    recorded = bytearray()
    pair = Pair()
    for _ in range(6):
        recorded += (chunk := pair.stream.left.take())
        pair.stream.right.receive(chunk)
        pair.stream.left.receive(pair.stream.right.take())
        await asyncio.sleep(0)
    pair.dialler.send_raft(b"vote for me")
    await asyncio.sleep(0)
    recorded += pair.stream.left.take()
    assert recorded.count(b"vote for me") == 1
    acceptor, transport, owner = alone()
    transport.receive(bytes(recorded))
    assert acceptor.failure == "the shared secret (raft_secret) of this node and of the caller differ"
    assert owner.messages == []


async def test_frames_made_without_the_session_key_are_refused_after_a_keyed_handshake() -> None:
    pair = Pair()
    await pair.ready()
    pair.stream.right.receive(frame(FrameKind.RAFT, b"injected"))
    assert pair.acceptor_owner.messages == []
    assert pair.acceptor.closed


async def test_a_frame_cut_in_the_middle_is_never_delivered() -> None:
    pair = Pair()
    await pair.ready()
    pair.dialler.send_raft(b"x" * 100)
    await asyncio.sleep(0)
    pair.stream.right.receive(pair.stream.left.take(60))
    pair.stream.right.lose()
    assert pair.acceptor_owner.messages == []
    assert pair.acceptor_owner.told == ["established", "lost"]


async def test_a_client_may_not_send_raft_messages_nor_a_peer_answers() -> None:
    pair = Pair(role=Role.CLIENT, expected_node_id=None)
    await pair.ready()
    pair.dialler.send_raft(b"x")
    await pair.stream.pump()
    assert pair.acceptor.failure == "a frame of kind 6 came where it may not"
    pair = Pair()
    await pair.ready()
    pair.acceptor._send(FrameKind.RAFT, b"x")
    await pair.stream.pump()
    assert pair.dialler.failure == "a frame of kind 6 came where only answers may"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", pack(None), pack((1, "m")), pack((1, 2, b"")), pack(("1", "m", b"")), pack((1, "m", "text"))],
)
async def test_a_request_of_another_shape_closes_the_connection(payload: Any) -> None:
    pair = Pair()
    await pair.ready()
    pair.dialler._send(FrameKind.REQUEST, payload)
    await pair.stream.pump()
    assert pair.acceptor.closed
    assert pair.acceptor_owner.tasks == []


@pytest.mark.parametrize(
    "payload", [b"", pack((1, True)), pack((1, 1, b"")), pack(("1", True, b"")), pack((1, True, "t"))]
)
async def test_an_answer_of_another_shape_closes_the_connection(payload: Any) -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor._send(FrameKind.RESPONSE, payload)
    await pair.stream.pump()
    assert pair.dialler.closed


async def test_a_handler_that_can_not_take_a_message_closes_the_connection_with_its_sentence() -> None:
    pair = Pair()
    await pair.ready()

    def refuse(connection: AcceptedConnection, payload: bytes) -> None:
        raise OverloadedError("16384 messages wait for the disk already")

    pair.acceptor_owner.raft_message = refuse  # type: ignore[method-assign]
    pair.dialler.send_raft(b"one")
    pair.dialler.send_raft(b"two")
    await pair.stream.pump()
    assert pair.acceptor.failure == "16384 messages wait for the disk already"
    assert "lost" in pair.dialler_owner.told


# ----------------------------------------------------------------------------- requests


async def test_requests_are_answered_each_with_its_own_answer_in_any_order() -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    slow = asyncio.ensure_future(pair.dialler.request("slow", b"1", 60_000))
    assert await pair.ask("quick", b"2") == b"2"
    assert not slow.done()
    pair.acceptor_owner.gates["slow"].set()
    assert await pair.ask("quick", b"3") == b"3"
    assert await slow == b"1"


async def test_an_error_of_the_other_node_is_raised_here() -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.answers["propose"] = NotLeaderError(3)
    with pytest.raises(NotLeaderError) as raised:
        await pair.ask("propose")
    assert raised.value.leader_id == 3


async def test_an_error_nobody_foresaw_is_an_unknown_outcome_and_logged_there(caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.answers["propose"] = ZeroDivisionError("oops")
    with pytest.raises(UnknownOutcomeError, match="ZeroDivisionError: oops"):
        await pair.ask("propose")
    assert "failed unexpectedly" in caplog.text


async def test_a_lost_connection_leaves_the_outcome_unknown() -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    asking = asyncio.ensure_future(pair.dialler.request("slow", b"", 60_000))
    await pair.stream.pump()
    pair.acceptor.abort("the node is going away")
    await pair.stream.pump()
    with pytest.raises(UnknownOutcomeError, match="the connection ended before the peer answered"):
        await asking
    pair.acceptor_owner.gates["slow"].set()
    await asyncio.gather(*pair.acceptor_owner.tasks)


async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown_and_is_ignored_later() -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    with pytest.raises(UnknownOutcomeError, match="did not answer 'slow' within 1 ms"):
        await pair.ask("slow", timeout_ms=1)
    pair.acceptor_owner.gates["slow"].set()
    assert await pair.ask("quick", b"next") == b"next"


async def test_a_cancelled_request_is_forgotten() -> None:
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    asking = asyncio.ensure_future(pair.dialler.request("slow", b"", 60_000))
    await pair.stream.pump()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert pair.dialler._waiting == {}
    pair.acceptor_owner.gates["slow"].set()
    assert await pair.ask("quick", b"next") == b"next"


async def test_what_was_not_sent_is_certainly_not_done() -> None:
    pair = Pair()
    with pytest.raises(PeerUnreachableError, match="the handshake is not over"):
        await pair.dialler.request("propose", b"", 1000)
    await pair.ready()
    with pytest.raises(NotDoneError, match="no time was left"):
        await pair.dialler.request("propose", b"", 0)
    with pytest.raises(TooLargeError):
        await pair.dialler.request("propose", bytes(PAYLOAD_SIZE_BYTES_MAX), 1000)
    assert pair.dialler._waiting == {}
    assert pair.stream.left.outgoing == b""
    pair.dialler.abort("gone")
    with pytest.raises(PeerUnreachableError, match="there is no connection: gone"):
        await pair.dialler.request("propose", b"", 1000)


async def test_an_answer_too_large_for_a_frame_is_an_unknown_outcome() -> None:
    pair = Pair(OPEN, OPEN)
    await pair.ready()
    pair.acceptor_owner.answers["read"] = bytes(PAYLOAD_SIZE_BYTES_MAX)
    with pytest.raises(UnknownOutcomeError, match="the request was executed, but its answer cannot be sent"):
        await pair.ask("read")


async def test_requests_in_flight_at_their_limit_and_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REQUESTS_IN_FLIGHT_PER_PEER_MAX == 16_384
    monkeypatch.setattr("metasrv.raft.peers.dialled_connection.REQUESTS_IN_FLIGHT_PER_PEER_MAX", 3)
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    asking = [asyncio.ensure_future(pair.dialler.request("slow", b"", 60_000)) for _ in range(3)]
    await pair.stream.pump()
    with pytest.raises(OverloadedError, match="3 requests"):
        await pair.dialler.request("slow", b"", 60_000)
    pair.acceptor_owner.gates["slow"].set()
    await pair.stream.pump()
    assert await asyncio.gather(*asking) == [b"", b"", b""]


async def test_an_acceptor_serves_no_more_requests_of_one_peer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.raft.peers.accepted_connection.REQUESTS_IN_FLIGHT_PER_PEER_MAX", 2)
    pair = Pair()
    await pair.ready()
    pair.acceptor_owner.gates["slow"] = asyncio.Event()
    asking = [asyncio.ensure_future(pair.dialler.request("slow", b"", 60_000)) for _ in range(2)]
    with pytest.raises(OverloadedError, match="2 requests of this peer are already being served"):
        await pair.ask("slow")
    pair.acceptor_owner.gates["slow"].set()
    await pair.stream.pump()
    assert await asyncio.gather(*asking) == [b"", b""]
    assert await pair.ask("slow", b"again") == b"again"


# ----------------------------------------------------------------------------- flow


async def test_a_slow_peer_pauses_its_dialler_and_resumes_it() -> None:
    pair = Pair(OPEN, OPEN)
    await pair.ready()
    for _ in range(PEER_BUFFER_HIGH_BYTES // MIB):
        pair.dialler.send_raft(bytes(MIB))
    assert pair.dialler.paused
    assert pair.dialler.buffered_bytes > PEER_BUFFER_HIGH_BYTES
    with pytest.raises(OverloadedError, match="bytes wait for the peer"):
        await pair.dialler.request("propose", b"", 1000)
    await pair.stream.pump(MIB)
    assert not pair.dialler.paused
    assert pair.dialler_owner.told == ["established", "paused", "resumed"]


async def test_a_paused_dialler_resumes_at_the_low_mark_and_not_before() -> None:
    pair = Pair(OPEN, OPEN)
    await pair.ready()
    while not pair.dialler.paused:
        pair.dialler.send_raft(bytes(MIB))
    pair.stream.left.take(pair.dialler.buffered_bytes - PEER_BUFFER_LOW_BYTES - 1)
    assert pair.dialler.buffered_bytes == PEER_BUFFER_LOW_BYTES + 1
    assert pair.dialler.paused
    pair.stream.left.take(1)
    assert not pair.dialler.paused


async def test_a_peer_that_does_not_read_its_answers_is_not_read_from() -> None:
    pair = Pair(OPEN, OPEN)
    await pair.ready()
    pair.acceptor_owner.answers["read"] = bytes(PEER_BUFFER_HIGH_BYTES)
    asking = [asyncio.ensure_future(pair.dialler.request("read", b"", 60_000)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pair.stream.right.receive(pair.stream.left.take())
    for _ in range(4):
        await asyncio.sleep(0)
    assert pair.acceptor.paused
    assert not pair.stream.right.reading
    await pair.stream.pump(MIB)
    assert pair.stream.right.reading
    assert [len(answer) for answer in await asyncio.gather(*asking)] == [PEER_BUFFER_HIGH_BYTES] * 2


async def test_close_sends_what_waits_and_abort_drops_it() -> None:
    for finish, expected in (("close", [b"last words"]), ("abort", [])):
        pair = Pair()
        await pair.ready()
        pair.dialler.send_raft(b"last words")
        getattr(pair.dialler, finish)("stopping")
        await pair.stream.pump()
        assert pair.acceptor_owner.messages == expected
        assert pair.dialler.failure == "stopping"
        assert pair.dialler_owner.told == pair.acceptor_owner.told == ["established", "lost"]
        assert pair.dialler.gone.done()
