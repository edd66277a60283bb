"""Certificates of clients on the gRPC port: the common name is the user, and the list of revoked ones is kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop

from metasrv.client import AsyncClient
from metasrv.config.model import SecretText
from metasrv.grpc_api.http2.connection import Connection
from metasrv.model.commands import ReplaceSecret
from metasrv.model.errors import BindError, InvalidRequestError, NotDoneError
from metasrv.model.users import Grant, Right, User, secret_name, user_out
from tests.support.authority import Authority
from tests.support.grpc_node import RunningNode, StartNode

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


@pytest.fixture
def servers(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "servers")
    authority.certify("node")
    return authority


@pytest.fixture
def clients(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "clients")
    authority.certify("app")
    return authority


def settings_of(servers: Authority, clients: Authority, **more: Any) -> dict[str, Any]:
    return {
        "grpc_password": SecretText("sesame"),
        "grpc_tls_server_cert": str(servers.directory / "node.pem"),
        "grpc_tls_server_key": str(servers.directory / "node.key"),
        "grpc_tls_client_ca_file": str(clients.directory / "ca.pem"),
        **more,
    }


def client_of(
    node: RunningNode, servers: Authority, shown: Authority | None, name: str = "app", password: str = "", **more: Any
) -> AsyncClient:
    files: dict[str, Any] = {}
    if shown is not None:
        files = {f"tls_{kind}_file": str(shown.directory / f"app.{end}") for kind, end in ENDS}
    authority = str(servers.directory / "ca.pem")
    return AsyncClient([node.address], username=name, password=password, tls_ca_file=authority, **files, **more)


ENDS = (("cert", "pem"), ("key", "key"))


async def add_app(node: RunningNode) -> None:
    user = User("app", None, "1", (Grant(Right.WRITE, "app/"),))
    await node.consensus.propose(ReplaceSecret(secret_name("app"), None, user_out(user)), 1000)


@BOTH_LOOPS
async def test_the_common_name_is_the_user(start_node: StartNode, servers: Authority, clients: Authority) -> None:
    node = await start_node(**settings_of(servers, clients))
    await add_app(node)
    async with client_of(node, servers, clients) as client:
        await client.upsert("app/k", b"1")
        with pytest.raises(InvalidRequestError, match="user app has no right to read the key 'other'"):
            await client.get("other")
    async with client_of(node, servers, clients, "root") as client:
        with pytest.raises(InvalidRequestError, match="Wrong password of user: root"):
            await client.get("other")
    for shown in (clients, None):
        async with client_of(node, servers, shown, "root", "sesame") as client:
            assert await client.get("app/k") is not None, "a certificate is not demanded, and a password does as well"


async def test_a_certificate_of_somebody_else_ends_the_connection(
    start_node: StartNode, servers: Authority, clients: Authority, tmp_path: Path
) -> None:
    node = await start_node(**settings_of(servers, clients))
    await add_app(node)
    stranger = Authority(tmp_path / "stranger")
    stranger.certify("app")
    async with client_of(node, servers, stranger, timeout_ms=1000) as client:
        with pytest.raises(NotDoneError):
            await client.get("app/k")


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_revoked_certificate_ends_the_connection(
    start_node: StartNode, servers: Authority, clients: Authority, revoked: bool
) -> None:
    clients.certify("other")
    crl = await asyncio.to_thread(clients.revoke, *(["app"] if revoked else ["other"]))
    node = await start_node(**settings_of(servers, clients, grpc_tls_crl_file=crl))
    await add_app(node)
    async with client_of(node, servers, clients, timeout_ms=1000 if revoked else 10_000) as client:
        if revoked:
            with pytest.raises(NotDoneError):
                await client.get("app/k")
        else:
            assert await client.get("app/k") is None


async def lets_in(node: RunningNode, servers: Authority, clients: Authority, good: bool) -> bool:
    """Whether the certificate of these clients logs in; `good` is what is expected, and says how long to try."""
    async with client_of(node, servers, clients, timeout_ms=10_000 if good else 1000) as client:
        try:
            await client.get("app/k")
        except NotDoneError:
            return False
    return True


@BOTH_LOOPS
async def test_another_authority_and_a_new_list_take_effect(
    start_node: StartNode, servers: Authority, clients: Authority, tmp_path: Path
) -> None:
    clients.certify("other")
    crl = await asyncio.to_thread(clients.revoke, "other")
    node = await start_node(**settings_of(servers, clients, grpc_tls_crl_file=crl))
    await add_app(node)
    assert await lets_in(node, servers, clients, good=True)
    await asyncio.to_thread(clients.revoke, "app")
    for _ in range(2):
        await node.context.reloader.look()
    assert not await lets_in(node, servers, clients, good=False)
    later = Authority(tmp_path / "later")
    await asyncio.to_thread(later.certify, "app")
    await asyncio.to_thread(later.certify, "other")
    named = {"grpc_tls_client_ca_file": str(later.directory / "ca.pem")}
    named["grpc_tls_crl_file"] = await asyncio.to_thread(later.revoke, "other")
    node.context.config = node.context.config.model_copy(update=named)
    await node.context.reloader.look(everything=True)
    assert not await lets_in(node, servers, clients, good=False)
    assert await lets_in(node, servers, later, good=True)


async def test_asking_for_certificates_and_a_list_begin_and_end_without_a_restart(
    start_node: StartNode, servers: Authority, clients: Authority
) -> None:
    crl = await asyncio.to_thread(clients.revoke, "app")
    node = await start_node(**settings_of(servers, clients, grpc_tls_client_ca_file=""))
    await add_app(node)

    async def use(**named: str) -> None:
        node.context.config = node.context.config.model_copy(update=named)
        await node.context.reloader.look(everything=True)
        assert node.context.metrics.security.reload_failed == {"grpc": False}

    await use(grpc_tls_client_ca_file=str(clients.directory / "ca.pem"))
    assert await lets_in(node, servers, clients, good=True)
    await use(grpc_tls_crl_file=crl)
    assert not await lets_in(node, servers, clients, good=False)
    await use(grpc_tls_crl_file="", grpc_tls_client_ca_file="")
    async with client_of(node, servers, clients) as client:
        with pytest.raises(InvalidRequestError, match="Wrong password of user: app"):
            await client.get("app/k")


@pytest.mark.parametrize("key", ["grpc_tls_server_cert", "grpc_tls_server_key"])
async def test_turning_tls_off_takes_a_restart(
    start_node: StartNode, servers: Authority, clients: Authority, key: str
) -> None:
    node = await start_node(**settings_of(servers, clients))
    node.context.config = node.context.config.model_copy(update={key: ""})
    await node.context.reloader.look(everything=True)
    assert node.context.metrics.security.reload_failed == {"grpc": True}


@BOTH_LOOPS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_taken_up_again_brings_no_certificate(
    start_node: StartNode,
    servers: Authority,
    clients: Authority,
    version: ssl.TLSVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[bool] = []
    made = Connection.connection_made

    def connection_made(connection: Connection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        shown.append(bool(connection.peer_certificate))

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    node = await start_node(**settings_of(servers, clients))
    context = ssl.create_default_context(cafile=str(servers.directory / "ca.pem"))
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(clients.directory / "app.pem", clients.directory / "app.key")

    def shake(session: ssl.SSLSession | None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", int(node.address.rpartition(":")[2])), timeout=10)
        secure = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
        secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        secure.recv(1)  # tickets would have come before
        return secure

    with await asyncio.to_thread(shake, None) as first, await asyncio.to_thread(shake, first.session) as second:
        assert second.session_reused is (version is ssl.TLSVersion.TLSv1_2)
        assert shown == [True, not second.session_reused]


async def test_without_an_authority_of_clients_their_certificates_mean_nothing(
    start_node: StartNode, servers: Authority, clients: Authority
) -> None:
    node = await start_node(**settings_of(servers, clients, grpc_tls_client_ca_file=""))
    await add_app(node)
    async with client_of(node, servers, clients) as client:
        with pytest.raises(InvalidRequestError, match="Wrong password of user: app"):
            await client.get("app/k")


async def test_files_that_are_no_certificates_stop_the_start(
    servers: Authority, clients: Authority, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("odd")
    for name in ("grpc_tls_client_ca_file", "grpc_tls_crl_file"):
        node = RunningNode(tmp_path, **settings_of(servers, clients, **{name: str(odd)}))
        with pytest.raises(BindError, match="or the authority of clients or its list of revoked certificates"):
            await node.start()
        await node.stop()
        node.context.machine.close()


def test_a_client_needs_the_key_and_the_authority_with_its_certificate(clients: Authority) -> None:
    files = {f"tls_{kind}_file": str(clients.directory / f"app.{end}") for kind, end in ENDS}

    async def ask(**given: Any) -> None:
        async with AsyncClient(["127.0.0.1:1"], **given) as client:
            await client.get("k")

    for given in (files, {"tls_cert_file": files["tls_cert_file"]}, {"tls_key_file": files["tls_key_file"]}):
        with pytest.raises(InvalidRequestError, match="a client certificate needs"):
            uvloop.run(ask(**given))
