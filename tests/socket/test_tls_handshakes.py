"""TLS handshakes that a caller begins and does not finish, over real sockets: how many go on, and who gets through."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from pathlib import Path

import pytest

from metasrv.model.limits import TLS_HANDSHAKES_AT_ONCE_MAX
from metasrv.process.accepting import AcceptingSocket
from metasrv.process.listening_socket import listening_socket
from metasrv.process.tls import TlsSettings, server_context
from metasrv.raft.observer import SilentObserver
from tests.support.authority import Authority
from tests.support.waiting import until
from verification.attack.target import NO_CREDENTIALS, trusting_tls
from verification.attack.tls_attacks import client_hello

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more loopback addresses than one"),
]
MORE = 20


class Counts(SilentObserver):
    """How many handshakes are unfinished, and which came to nothing."""

    def __init__(self) -> None:
        self.unfinished = 0
        self.failed: list[str] = []

    def tls_handshakes(self, port: str, change: int) -> None:
        self.unfinished += change

    def tls_handshake_failed(self, port: str, reason: str) -> None:
        self.failed.append(reason)


async def test_half_handshakes_of_one_address_keep_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.process.handshake_pace.PATIENCE_SECONDS", 60.0)
    authority = Authority(tmp_path / "tls")
    authority.certify("node")
    context = server_context(TlsSettings(str(authority.directory / "node.pem"), str(authority.directory / "node.key")))
    trusting = ssl.create_default_context(cafile=str(authority.directory / "ca.pem"))
    counts, listening = Counts(), listening_socket(socket.AF_INET, ("127.0.0.1", 0), 256)
    accepting = AcceptingSocket("grpc", listening, asyncio.Protocol, lambda: context, counts)
    address = listening.getsockname()
    hello = client_hello(trusting_tls(NO_CREDENTIALS))
    halves = []
    for _ in range(TLS_HANDSHAKES_AT_ONCE_MAX + MORE):
        halves.append(await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0)))
        halves[-1][1].write(hello)
    pace = accepting._pace
    await until(lambda: counts.unfinished == len(halves) and pace.begun_count == TLS_HANDSHAKES_AT_ONCE_MAX)
    answered = [reader for reader, _ in halves if await has_answer(reader)]
    assert len(answered) <= TLS_HANDSHAKES_AT_ONCE_MAX, "the others have cost nothing"

    _, whole = await asyncio.wait_for(asyncio.open_connection(*address, ssl=trusting), 2)
    assert "made room" in counts.failed
    assert pace.begun_count <= TLS_HANDSHAKES_AT_ONCE_MAX
    accepting.close()
    await asyncio.wait_for(accepting.wait_closed(), 5)
    assert (counts.unfinished, pace.begun_count, accepting._waiting) == (0, 0, {})
    for writer in (whole, *(writer for _, writer in halves)):
        writer.transport.abort()


async def has_answer(reader: asyncio.StreamReader) -> bool:
    try:
        return bool(await asyncio.wait_for(reader.read(1), 0.001))
    except TimeoutError:
        return False
