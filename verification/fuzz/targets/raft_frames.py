"""The port of peers: frames as anybody may send them, before and after a handshake.

The first byte says how the rest is read: as raw bytes, or as frames that are sound (kind, two bytes of length, payload),
since an engine would not find a checksum by trying.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from metasrv.model.types import Endpoint
from metasrv.model.wire import pack
from metasrv.raft.peers.accepted_connection import AcceptedConnection
from metasrv.raft.peers.connection import Connection
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.frames import ChecksumIntegrity, FrameKind, frame_parts
from metasrv.raft.peers.handshake import LocalIdentity, RemoteIdentity, Role
from metasrv.raft.peers.security import PeerSecurity
from metasrv.testing.memory_stream import MemoryStream
from verification.fuzz.target import Target, fuzz_loop, no_logged_errors, run_callbacks

_RAW, _FRAMED, _AFTER_HANDSHAKE, _DIALLER = range(4)
_PIECE_SIZE_BYTES = 97
_NODE, _OTHER = (LocalIdentity(number, f"data-{number}", Endpoint("host", 28100 + number), "c1") for number in (1, 2))


class _Owner:
    """Takes whatever its connection gives it."""

    def begun(self, connection: AcceptedConnection) -> str | None:
        return None

    def admit(self, connection: AcceptedConnection, remote: RemoteIdentity) -> str | None:
        return None

    def established(self, connection: Connection) -> None:
        """Nothing to do."""

    flow_changed = lost = established

    def sent(self, connection: Connection, size_bytes: int) -> None:
        """Nothing to do."""

    received = sent

    def frames_took(self, seconds: float) -> None:
        """Nothing to do."""

    def raft_message(self, connection: AcceptedConnection, payload: bytes) -> None:
        """Nothing to do: `raft_messages` has the content."""

    def raft_message_arrives(self, connection: AcceptedConnection) -> None:
        """Nothing to do."""

    async def request(self, remote: RemoteIdentity, method: str, payload: bytes) -> bytes:
        return payload

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        fuzz_loop().create_task(work)


def _run(data: bytes) -> None:
    with no_logged_errors():
        fuzz_loop().run_until_complete(_connected(data))
        run_callbacks(3)


async def _connected(data: bytes) -> None:
    mode, content = (data[0] % 4, data[1:]) if data else (_RAW, b"")
    acceptor = AcceptedConnection(_NODE, PeerSecurity(), 1, _Owner())
    dialler = DialledConnection(_OTHER, PeerSecurity(), Role.PEER, _NODE.node_id, _Owner())
    stream = MemoryStream(dialler, acceptor)
    integrity = ChecksumIntegrity()
    if mode in (_AFTER_HANDSHAKE, _DIALLER):
        await stream.pump()
    victim = dialler if mode == _DIALLER else acceptor
    for piece in [content] if mode == _RAW else _frames(content, integrity):
        for start in range(0, len(piece), _PIECE_SIZE_BYTES):
            victim.data_received(piece[start : start + _PIECE_SIZE_BYTES])
    for connection in (acceptor, dialler):
        connection.abort("the input ends")


def _frames(content: bytes, integrity: ChecksumIntegrity) -> Iterator[bytes]:
    while len(content) >= 3:
        size_bytes = int.from_bytes(content[1:3], "big") % 2048
        kind: Any = content[0] % 16
        yield b"".join(frame_parts(kind, content[3 : 3 + size_bytes], integrity))
        content = content[3 + size_bytes :]


def _frame(kind: FrameKind, payload: bytes) -> bytes:
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


_REQUEST = _frame(FrameKind.REQUEST, pack((1, "method", b"body")))
_HELLO = _frame(FrameKind.HELLO, pack((4, 1, (1, "data-1", "host", 28101, "c1"), b"n" * 32, False)))
TARGET = Target(
    "raft_frames",
    _run,
    (
        bytes([_RAW]) + b"\0\0\0\x20\x01",
        bytes([_FRAMED]) + _HELLO,
        bytes([_AFTER_HANDSHAKE]) + _REQUEST + _frame(FrameKind.RAFT, b"message"),
        bytes([_DIALLER]) + _frame(FrameKind.RESPONSE, pack((1, True, b"body"))) + _frame(FrameKind.REFUSAL, b"no"),
    ),
)
