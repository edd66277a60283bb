"""TLS of the gRPC port: callers that do not finish their handshake; ciphers and versions, after a reload as well."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from metasrv.grpc_api.http2.frames import PREFACE, settings
from metasrv.model.limits import GRPC_TLS_HANDSHAKES_MAX
from metasrv.model.types import Endpoint
from tests.support.authority import Authority
from tests.support.deaf_tls import ends, speak_without_listening, trusting_anybody
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

AES_256, CHACHA = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "servers")
    made.certify("node")
    return made


@pytest.fixture
async def node(start_node: StartNode, authority: Authority) -> RunningNode:
    certificate, key = (str(authority.directory / f"node.{end}") for end in ("pem", "key"))
    return await start_node(grpc_tls_server_cert=certificate, grpc_tls_server_key=key)


def endpoint_of(node: RunningNode) -> tuple[str, int]:
    host, _, port = node.address.rpartition(":")
    return host, int(port)


async def answers(node: RunningNode, authority: Authority) -> bool:
    async with AsyncClient([node.address], tls_ca_file=str(authority.directory / "ca.pem")) as client:
        return await client.get("k") is None


# ----------------------------------------------------------------------------- the end of a connection


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + bytes(4) + b"\xff" * 9], ids=["HTTP/1", "bad frame"]
)
async def test_a_client_that_does_not_take_the_end_is_cut_off(
    node: RunningNode, authority: Authority, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr("metasrv.grpc_api.http2.output.CLOSING_SECONDS_MAX", 0.3)
    stream = await speak_without_listening(Endpoint(*endpoint_of(node)), words, over_http2())
    assert await ends(stream)
    stream.close()
    assert await answers(node, authority)


async def test_a_client_that_gave_its_place_and_does_not_take_the_end_is_cut_off(
    start_node: StartNode, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.grpc_api.http2.output.CLOSING_SECONDS_MAX", 0.3)
    monkeypatch.setattr("metasrv.grpc_api.service.client_connections_max", lambda _open_files: 8)
    certificate, key = (str(authority.directory / f"node.{end}") for end in ("pem", "key"))
    node = await start_node(grpc_tls_server_cert=certificate, grpc_tls_server_key=key)
    endpoint = Endpoint(*endpoint_of(node))
    streams = [await speak_without_listening(endpoint, PREFACE + settings({}), over_http2()) for _ in range(12)]
    assert await ends(streams[0])
    for stream in streams:
        stream.close()
    assert await answers(node, authority)


def over_http2() -> ssl.SSLContext:
    tls = trusting_anybody()
    tls.set_alpn_protocols(["h2"])
    return tls


# ----------------------------------------------------------------------------- silent callers


async def test_silent_callers_are_counted_and_time_out(
    node: RunningNode, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.process.accepting.TLS_HANDSHAKE_SECONDS_MAX", 0.5)
    security = node.context.metrics.security
    reader, writer = await asyncio.open_connection(*endpoint_of(node))
    await until(lambda: security.handshakes == {"grpc": 1})
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(lambda: security.handshakes == {"grpc": 0})
    assert security.handshakes_failed.values == {("grpc", "timeout"): 1}
    writer.close()
    assert await answers(node, authority)


async def test_as_many_silent_callers_as_there_may_be_and_one_more(
    start_node: StartNode, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GRPC_TLS_HANDSHAKES_MAX >= 1_000, "all clients come at once after a restart"
    monkeypatch.setattr("metasrv.grpc_api.service.GRPC_TLS_HANDSHAKES_MAX", 8)
    certificate, key = (str(authority.directory / f"node.{end}") for end in ("pem", "key"))
    node = await start_node(grpc_tls_server_cert=certificate, grpc_tls_server_key=key)
    security = node.context.metrics.security
    silent = [await asyncio.open_connection(*endpoint_of(node)) for _ in range(8)]
    await until(lambda: security.handshakes == {"grpc": 8})
    assert security.handshakes_failed.values == {}
    assert await answers(node, authority), "the oldest makes room"
    assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
    assert security.handshakes_failed.values == {("grpc", "made room"): 1}
    for _, writer in silent:
        writer.close()


async def test_a_stop_waits_for_no_silent_caller(node: RunningNode) -> None:
    reader, writer = await asyncio.open_connection(*endpoint_of(node))
    await until(lambda: node.context.metrics.security.handshakes == {"grpc": 1})
    await asyncio.wait_for(node.stop(), 3)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


# ----------------------------------------------------------------------------- ciphers and versions


async def agreed(node: RunningNode, authority: Authority, version: ssl.TLSVersion, ciphers: str = "") -> str | None:
    """The cipher that a client and the port agree on; None when they agree on none."""
    context = ssl.create_default_context(cafile=str(authority.directory / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    if version < ssl.TLSVersion.TLSv1_2:
        ciphers = "ALL:@SECLEVEL=0"  # OpenSSL would not offer so old a version otherwise
    context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)

    def shake() -> str | None:
        try:
            with (
                socket.create_connection(endpoint_of(node), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                assert secure.selected_alpn_protocol() == "h2"
                cipher = secure.cipher()
                return None if cipher is None else cipher[0]
        except (ssl.SSLError, ConnectionError):
            return None

    return await asyncio.to_thread(shake)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_ciphers_and_the_oldest_version_hold_after_a_reload(node: RunningNode, authority: Authority) -> None:
    old, newer = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2

    async def offered() -> tuple[bool, bool, bool]:
        found = [await agreed(node, authority, newer, cipher) for cipher in (AES_256, CHACHA)]
        assert found[0] in (AES_256, None)
        assert found[1] in (CHACHA, None)
        return found[0] is not None, found[1] is not None, await agreed(node, authority, old) is not None

    async def use(ciphers: str) -> None:
        node.context.config = node.context.config.model_copy(update={"grpc_tls_ciphers": ciphers})
        await node.context.reloader.look(everything=True)

    assert await offered() == (True, True, False)
    await use(CHACHA)
    assert await offered() == (False, True, False)
    await use(AES_256)
    assert await offered() == (True, False, False)
    assert (await agreed(node, authority, ssl.TLSVersion.TLSv1_3) or "").startswith("TLS_")
    await use("AES256-SHA")  # no forward secrecy: refused, and what was there stays in force
    assert node.context.metrics.security.reload_failed == {"grpc": True}
    assert await offered() == (True, False, False)
    await use("")
    assert await offered() == (True, True, False)
