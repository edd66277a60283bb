"""Defects of the connections between nodes: of frames, handshakes, requests and flow control.

Only histories that run the product's own connections over byte streams can show them.
"""

from __future__ import annotations

from metasrv.model.errors import PeerUnreachableError
from metasrv.model.wire import pack
from metasrv.raft.peers.connection import Connection, triple
from metasrv.raft.peers.dialled_connection import DialledConnection
from metasrv.raft.peers.frames import ChecksumIntegrity, Frame, FrameReader, KeyedIntegrity
from metasrv.raft.peers.listener import PeerListener
from metasrv.raft.peers.security import PeerSecurity
from verification.mutants.patching import Mutant, Replacement


def _answer_of_another_request() -> list[Replacement]:
    real = DialledConnection._answer_received

    def received(self: DialledConnection, payload: bytes) -> None:
        number, succeeded, body = triple(payload)
        oldest = next(iter(self._waiting), number)
        real(self, pack((oldest, succeeded, body)))

    return [(DialledConnection, "_answer_received", received)]


def _broken_request_said_not_sent() -> list[Replacement]:
    real = DialledConnection._end

    def end(self: DialledConnection, reason: str) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(PeerUnreachableError(f"the connection ended: {reason}"))
                answer.exception()
        real(self, reason)

    return [(DialledConnection, "_end", end)]


def _frame_position_not_checked() -> list[Replacement]:
    """The tag of every frame is as that of the first one, so that repeated and lost frames pass."""
    replacements: list[Replacement] = []
    for integrity in (ChecksumIntegrity, KeyedIntegrity):
        real = integrity.tag

        def tag(self: ChecksumIntegrity | KeyedIntegrity, head: bytes, payload: bytes, real: object = real) -> bytes:
            self._sequence = 0
            return real(self, head, payload)  # type: ignore[no-any-return, operator]

        replacements.append((integrity, "tag", tag))
    return replacements


def _length_not_checked() -> list[Replacement]:
    real = FrameReader.next_frame

    def next_frame(self: FrameReader) -> Frame | None:
        self._head_is_sound = True
        return real(self)

    return [(FrameReader, "next_frame", next_frame)]


def _older_connection_lives_on() -> list[Replacement]:
    real = PeerListener.established

    def established(self: PeerListener, connection: Connection) -> None:
        current, self._current = self._current, {}
        real(self, connection)
        self._current = {**current, **self._current}

    return [(PeerListener, "established", established)]


def _any_proof_will_do() -> list[Replacement]:
    real = PeerSecurity.secret_behind

    def secret_behind(self: PeerSecurity, proof: bytes, transcript: bytes) -> bytes | None:
        return real(self, proof, transcript) or self.secret

    return [(PeerSecurity, "secret_behind", secret_behind)]


def _pause_never_ends() -> list[Replacement]:
    def resume(_self: Connection) -> None: ...

    return [(Connection, "resume_writing", resume)]


WIRE_MUTANTS = (
    Mutant(
        "answer of another request",
        "an answer from a peer is given to whoever has waited longest",
        _answer_of_another_request,
    ),
    Mutant(
        "broken request said not sent",
        "a request whose connection broke before its answer is said not to be done (D15)",
        _broken_request_said_not_sent,
        ("break connections", "breaks within frames"),
    ),
    Mutant(
        "frame position not checked",
        "the tag of a frame does not cover its position, so that a repeated or lost one goes unnoticed",
        _frame_position_not_checked,
        ("damaged bytes",),
    ),
    Mutant(
        "frame length not checked",
        "the receiver waits for as many bytes as a damaged length announces (N1)",
        _length_not_checked,
        ("damaged bytes",),
    ),
    Mutant(
        "older connection lives on",
        "a newer connection of a node does not replace the older one, whose messages go on arriving (D9)",
        _older_connection_lives_on,
        ("restart behind a cut",),
    ),
    Mutant(
        "any proof will do",
        "a caller that proves another secret is let in",
        _any_proof_will_do,
        ("strangers",),
    ),
    Mutant(
        "pause never ends",
        "a connection that was paused because its peer did not keep up stays paused",
        _pause_never_ends,
        ("slow paths", "lagging follower", "pause one"),
    ),
)
