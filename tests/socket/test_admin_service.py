"""The admin listener on real sockets: addresses, faults, TLS, orderly stop, and real profiles of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvloop
from cryptography import x509

from metasrv.admin import connection, cut_offs
from metasrv.admin import service as service_module
from metasrv.admin.actions import ACTION_PATHS
from metasrv.admin.service import AdminService, HealthService
from metasrv.cli.certificates import generate
from metasrv.cli.ctl_admin import AdminClient, AdminError
from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.model.errors import BindError, ConfigError
from metasrv.model.limits import (
    ADMIN_ADDRESSES_MIN,
    ADMIN_BODY_SIZE_BYTES_MAX,
    ADMIN_HEAD_SIZE_BYTES_MAX,
    ADMIN_PIPELINED_MAX,
    HEALTH_CONNECTIONS_MAX,
)
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.certificates import expiry_of
from metasrv.profiling import cpu, memory
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from metasrv.testing.network import why_unavailable
from tests.support.authority import Authority
from tests.support.deaf_tls import ends, speak_without_listening, trusting_anybody

MakeContext = Callable[..., NodeContext]


@pytest.fixture
def make_context(tmp_path: Path) -> Iterator[MakeContext]:
    machine = StateMachine.open(str(tmp_path / "state.db"))

    def make(address: str = "127.0.0.1:0", certificate: str = "", key: str = "") -> NodeContext:
        config = Config(
            admin_api_address=address,
            admin_tls_server_cert=certificate,
            admin_tls_server_key=key,
            raft_config=RaftConfig(raft_dir=str(tmp_path)),
        )
        return fake_context(machine, config, leader_status())[0]

    yield make
    machine.close()


@pytest.fixture
async def endpoint(make_context: MakeContext) -> AsyncIterator[Endpoint]:
    service = AdminService(make_context())
    yield await service.start()
    await service.stop(500)


def spin(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total += number * number
    return total


async def spin_forever(kept: list[bytearray]) -> None:
    while True:
        spin(20_000)
        kept.append(bytearray(1000))
        await asyncio.sleep(0.001)


@pytest.fixture
async def busy() -> AsyncIterator[None]:
    task = asyncio.create_task(spin_forever([]))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ----------------------------------------------------------------------------- listening


async def test_port_zero_is_resolved_and_serves(endpoint: Endpoint) -> None:
    assert endpoint.addr == "127.0.0.1"
    assert endpoint.port > 0
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{endpoint}/v1/health")
        assert answer.json() == {"status": "pass"}
        assert "server" not in answer.headers
        assert (await client.head(f"http://{endpoint}/livez")).status_code == 200


async def test_signal_handlers_stay_those_of_the_node(make_context: MakeContext) -> None:
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in signals]
    service = AdminService(make_context())
    await service.start()
    assert [signal.getsignal(number) for number in signals] == before
    await service.stop(200)
    assert [signal.getsignal(number) for number in signals] == before


async def test_an_address_in_use_is_one_clear_sentence(make_context: MakeContext) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError) as caught:
            await AdminService(make_context(address)).start()
    assert str(caught.value) == f"the admin API cannot listen at {address}: it is already in use"


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1:28101", "it is not an address of this machine"), ("no.such.host.invalid:1", "the host is unknown")],
)
async def test_an_impossible_address_is_one_clear_sentence(make_context: MakeContext, address: str, reason: str) -> None:
    with pytest.raises(BindError, match=f"the admin API cannot listen at {address}: {reason}"):
        await AdminService(make_context(address)).start()


async def test_two_services_live_in_one_loop(make_context: MakeContext) -> None:
    one, other = AdminService(make_context()), AdminService(make_context())
    first, second = await one.start(), await other.start()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{first}/v1/health")).status_code == 200
        await one.stop(200)
        assert (await client.get(f"http://{second}/v1/health")).status_code == 200
    await other.stop(200)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*first)


async def test_stopping_closes_idle_connections_in_time(make_context: MakeContext) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(b"GET /v1/health HTTP/1.1\r\nHost: n\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    begun = time.monotonic()
    await service.stop(1000)
    assert time.monotonic() - begun < 1.5
    await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await service.stop(1000)


async def test_stopping_cancels_what_does_not_end(make_context: MakeContext) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    async with httpx.AsyncClient() as client:
        profile = asyncio.create_task(client.get(f"http://{endpoint}/debug/mem/pprof/profile?seconds=60"))
        await asyncio.sleep(1.0)
        begun = time.monotonic()
        await service.stop(300)
        assert time.monotonic() - begun < 5
        with pytest.raises(httpx.HTTPError):
            (await profile).raise_for_status()


@pytest.mark.parametrize("turns", [1, 200])
async def test_the_reader_of_a_heap_capture_does_not_outlive_its_caller(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def start(_arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(("sleep", "60"), stderr=subprocess.PIPE))
        return children[0]

    monkeypatch.setattr(memory, "_start_report", start)
    report = asyncio.create_task(memory._report("capture"))
    for _ in range(turns):
        await asyncio.sleep(0.001)
    report.cancel()
    with pytest.raises(asyncio.CancelledError):
        await report
    assert children[0].returncode is not None


def test_the_reader_of_a_heap_capture_gets_the_processor_last(tmp_path: Path) -> None:
    arguments = (str(tmp_path / "missing"), "report", "folded", "1", "0", "0", "kept")
    code = "import os, sys; from metasrv.profiling.heap_report import main\ntry: main(sys.argv[1:])\nexcept OSError: pass"
    command = (sys.executable, "-c", f"{code}\nprint(os.nice(0))", *arguments)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.strip() == "19"


@pytest.fixture
def certificate_and_key(tmp_path: Path) -> tuple[str, str]:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, "-days", "1", *subject], check=True, capture_output=True)
    return certificate, key


async def test_tls(make_context: MakeContext, certificate_and_key: tuple[str, str]) -> None:
    certificate, key = certificate_and_key
    service = AdminService(make_context(certificate=certificate, key=key))
    endpoint = await service.start()
    trusting = ssl.create_default_context(cafile=certificate)
    async with httpx.AsyncClient(verify=trusting) as client:
        assert (await client.get(f"https://{endpoint}/v1/health")).json() == {"status": "pass"}
        with pytest.raises(httpx.HTTPError):
            await client.get(f"http://{endpoint}/v1/health")
    await service.stop(200)


async def test_metactl_takes_authorities_that_do_not_say_what_they_are_for(
    make_context: MakeContext, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority", says_what_for=False)
    authority.certify("node")
    files = authority.files("node")
    service = AdminService(make_context(certificate=files["raft_tls_cert"], key=files["raft_tls_key"]))
    endpoint = await service.start()
    metactl = AdminClient(str(endpoint), tls_ca_file=files["raft_tls_ca"])
    assert await asyncio.to_thread(metactl.text, "/livez") == "ok\n"
    await service.stop(200)


async def test_client_certificates_have_the_scope_of_their_common_name(make_context: MakeContext, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "authority"), Authority(tmp_path / "stranger")
    for name in ("node", "reader", "operator", "unknown"):
        authority.certify(name)
    stranger.certify("operator")
    files, folder = authority.files("node"), authority.directory
    clients = {
        "admin_tls_client_ca_file": files["raft_tls_ca"],
        "admin_tls_client_names": ("reader:read", "operator:operate"),
        "admin_open_routes": ("probes",),
    }
    context = make_context(certificate=files["raft_tls_cert"], key=files["raft_tls_key"])
    context.config = context.config.model_copy(update=clients)
    service = AdminService(context)
    endpoint = await service.start()
    found = {}
    for name in ("", "reader", "operator", "unknown"):
        trusting = ssl.create_default_context(cafile=files["raft_tls_ca"])
        if name:
            trusting.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        async with httpx.AsyncClient(verify=trusting, base_url=f"https://{endpoint}") as client:
            paths = ("/livez", "/v1/cluster/status", "/v1/ctrl/trigger_snapshot")
            found[name] = [(await client.get(path)).status_code for path in paths]
    pair = str(folder / "operator.pem"), str(folder / "operator.key")
    metactl = AdminClient(str(endpoint), tls_ca_file=files["raft_tls_ca"], certificate=pair)
    assert await asyncio.to_thread(metactl.text, "/v1/ctrl/trigger_snapshot") == "null"
    pair = str(folder / "reader.pem"), str(folder / "reader.key")
    metactl = AdminClient(str(endpoint), tls_ca_file=files["raft_tls_ca"], certificate=pair)
    with pytest.raises(AdminError, match="the certificate of reader has the scope read"):
        await asyncio.to_thread(metactl.text, "/v1/ctrl/trigger_snapshot")
    forged = ssl.create_default_context(cafile=files["raft_tls_ca"])
    forged.load_cert_chain(stranger.directory / "operator.pem", stranger.directory / "operator.key")
    async with httpx.AsyncClient(verify=forged, base_url=f"https://{endpoint}") as client:
        with pytest.raises(httpx.HTTPError):
            await client.get("/livez")
    await service.stop(200)
    assert found == {
        "": [200, 401, 401],
        "reader": [200, 200, 403],
        "operator": [200, 200, 200],
        "unknown": [200, 401, 401],
    }


def serial_of(path: str) -> int:
    return x509.load_pem_x509_certificate(Path(path).read_bytes()).serial_number


async def serial_shown(endpoint: Endpoint) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(*endpoint, ssl=context)
    encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(encoded).serial_number


async def test_a_new_certificate_and_a_new_token_take_effect_and_open_connections_stay(
    make_context: MakeContext, certificate_and_key: tuple[str, str], tmp_path: Path
) -> None:
    certificate, key = certificate_and_key
    context = make_context(certificate=certificate, key=key)
    service = AdminService(context)
    endpoint = await service.start()
    before = serial_of(certificate)
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=certificate)) as client:
        assert (await client.get(f"https://{endpoint}/livez")).status_code == 200
        made = generate(tmp_path / "new", {"node": ["127.0.0.1"]}, [], 1)
        shutil.copy(tmp_path / "new/node.pem", certificate)
        await context.reloader.look(everything=True)
        assert await serial_shown(endpoint) == before, "the key does not belong to it"
        assert context.metrics.security.reload_failed == {"admin": True, "admin tokens": False}
        shutil.copy(tmp_path / "new/node-key.pem", key)
        await context.reloader.look(everything=True)
        assert await serial_shown(endpoint) == serial_of(str(made[-1])) != before
        assert context.metrics.security.reload_failed == {"admin": False, "admin tokens": False}
        assert context.metrics.security.expires_at["admin"] == expiry_of(str(made[-1]))

        context.config = context.config.model_copy(update={"admin_token": SecretText("new")})
        await context.reloader.look(everything=True)
        mark = {"X-Metasrv-Action": "test"}
        path = f"https://{endpoint}/v1/ctrl/trigger_snapshot"
        assert (await client.post(path, headers=mark)).status_code == 401
        assert (await client.post(path, headers={**mark, "Authorization": "Bearer new"})).status_code == 200
    await service.stop(200)


async def test_another_authority_of_clients_and_other_tokens_take_effect(
    make_context: MakeContext, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path / "authority"), Authority(tmp_path / "other")
    for one, name in ((authority, "node"), (authority, "reader"), (other, "reader")):
        one.certify(name)
    files, clients, tokens = authority.files("node"), tmp_path / "clients.pem", tmp_path / "tokens"
    shutil.copy(authority.directory / "ca.pem", clients)
    tokens.write_text("ops:operate:old-0123456789abcdef\n")
    keys = {
        "admin_tls_client_ca_file": str(clients),
        "admin_tls_client_names": ("reader:read",),
        "admin_tokens_file": str(tokens),
        "admin_open_routes": ("probes",),
    }
    context = make_context(certificate=files["raft_tls_cert"], key=files["raft_tls_key"])
    context.config = context.config.model_copy(update=keys)
    service = AdminService(context)
    endpoint = await service.start()

    async def status(issuer: Authority | None, token: str = "") -> int | None:
        trusting = ssl.create_default_context(cafile=files["raft_tls_ca"])
        if issuer is not None:
            trusting.load_cert_chain(issuer.directory / "reader.pem", issuer.directory / "reader.key")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(verify=trusting, base_url=f"https://{endpoint}") as client:
            try:
                return (await client.get("/v1/cluster/status", headers=headers)).status_code
            except httpx.HTTPError:
                return None

    asked = (authority, ""), (other, ""), (None, "old-0123456789abcdef"), (None, "new-0123456789abcdef")
    assert [await status(*one) for one in asked] == [200, None, 200, 401]
    shutil.copy(other.directory / "ca.pem", clients)
    tokens.write_text("ops:operate:new-0123456789abcdef\n")
    for _ in range(2):  # a change has to stay the same for two looks
        await context.reloader.look()
    assert [await status(*one) for one in asked] == [None, 200, 401, 200]
    clients.write_text("nothing")
    tokens.write_text("nothing")
    await context.reloader.look(everything=True)
    assert context.metrics.security.reload_failed == {"admin": True, "admin tokens": True}
    assert [await status(*one) for one in asked] == [None, 200, 401, 200]
    context.config = context.config.model_copy(update={"admin_tls_client_names": (), "admin_tokens_file": ""})
    await context.reloader.look(everything=True)
    assert await status(other) == 200, "nothing asks for a token or a certificate any more"
    await service.stop(200)


async def test_silent_callers_of_tls_are_counted_and_time_out(
    make_context: MakeContext, certificate_and_key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metasrv.process.accepting.TLS_HANDSHAKE_SECONDS_MAX", 0.5)
    context = make_context("127.0.0.1:0", *certificate_and_key)
    service = AdminService(context)
    endpoint = await service.start()
    reader, writer = await asyncio.open_connection(*endpoint)
    security = context.metrics.security
    async with asyncio.timeout(10):
        while security.handshakes.get("admin") != 1:  # noqa: ASYNC110 - nothing tells when a caller was accepted
            await asyncio.sleep(0.01)
        assert await reader.read() == b""
        while security.handshakes["admin"]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert security.handshakes_failed.values == {("admin", "timeout"): 1}
    writer.close()
    await service.stop(200)


async def test_a_bad_certificate_is_one_clear_sentence(make_context: MakeContext, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(ConfigError, match=r"admin_tls_server_cert .*bad\.pem .* cannot be used"):
        await AdminService(make_context(certificate=str(bad), key=str(bad))).start()


async def test_garbage_does_not_harm_the_listener(endpoint: Endpoint) -> None:
    for garbage in (
        b"\x00\xff" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(garbage)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{endpoint}/v1/health")).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v1/hea", b"GET /v1/health HTTP/1.1\r\nHost: n\r\n"])
@pytest.mark.parametrize("after_a_request", [False, True])
async def test_a_request_that_does_not_come_loses_its_connection(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, sent: bytes, after_a_request: bool
) -> None:
    monkeypatch.setattr(connection, "ADMIN_REQUEST_SECONDS_MAX", 0.3)
    monkeypatch.setattr(service_module, "ADMIN_KEEP_ALIVE_SECONDS_MAX", 1)
    service = AdminService(make_context())
    endpoint = await service.start()
    reader, writer = await asyncio.open_connection(*endpoint)
    if after_a_request:
        writer.write(b"GET /v1/health HTTP/1.1\r\nHost: n\r\n\r\n")
        assert (await reader.readuntil(b'{"status":"pass"}')).startswith(b"HTTP/1.1 200")
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await service.stop(200)


async def test_a_new_connection_takes_the_place_of_the_longest_idle(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 3)
    monkeypatch.setattr(cut_offs, "REPORT_SECONDS", 0.0)
    service = AdminService(make_context())
    endpoint = await service.start()
    held = [await asyncio.open_connection(*endpoint) for _ in range(6)]
    for reader, _ in held[:3]:
        assert await asyncio.wait_for(reader.read(), 5) == b""
    held[5][1].write(b"GET /v1/health HTTP/1.1\r\nHost: n\r\n\r\n")
    assert (await asyncio.wait_for(held[5][0].readline(), 5)).startswith(b"HTTP/1.1 200")
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{endpoint}/livez")).status_code == 200
    for _, writer in held:
        writer.close()
    await service.stop(200)
    assert "idle for longest, to make room" in caplog.text


async def test_probes_are_answered_while_everything_else_is_refused(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 2)
    monkeypatch.setattr(connection, "ADMIN_CONNECTIONS_BUSY_MAX", 2)
    service = AdminService(make_context())
    endpoint = await service.start()
    once = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=once) as client:
        busy = asyncio.create_task(client.get(f"http://{endpoint}/debug/pprof/profile?seconds=2"))
        listener = service._listener
        assert listener is not None
        while not listener.server.server_state.tasks:  # noqa: ASYNC110 - nothing tells when a request is being answered
            await asyncio.sleep(0.01)
        refused = await client.get(f"http://{endpoint}/v1/cluster/status")
        probe = await client.get(f"http://{endpoint}/livez")
        profile = await busy
    await service.stop(200)
    assert (refused.status_code, probe.status_code, profile.status_code) == (503, 200, 200)


async def test_a_head_that_never_ends_is_refused_by_its_size(endpoint: Endpoint) -> None:
    pieces = ADMIN_HEAD_SIZE_BYTES_MAX // 1000 + 30
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: n\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(pieces):
            writer.write(b"x%d: %s\r\n" % (number, b"v" * 1000))
            await writer.drain()
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_requests_that_wait_for_earlier_answers_are_few(endpoint: Endpoint) -> None:
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n" * ADMIN_PIPELINED_MAX)
    for _ in range(ADMIN_PIPELINED_MAX):
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"# EOF\n")
    writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n" * 1000)
    with contextlib.suppress(ConnectionError):
        assert len(await asyncio.wait_for(reader.read(), 5)) < 2_000_000
    writer.close()


async def test_a_client_that_takes_no_answer_is_cut_off(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "ADMIN_UNREAD_SECONDS_MAX", 0.2)
    monkeypatch.setattr(connection, "ADMIN_PIPELINED_MAX", 10_000)  # however slowly pages are made, it is not that
    monkeypatch.setattr(cut_offs, "REPORT_SECONDS", 0.0)
    service = AdminService(make_context())
    endpoint = await service.start()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, endpoint)
        deadline = time.monotonic() + 20
        while "nothing of an answer was taken" not in caplog.text and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n")
            await asyncio.sleep(0.02)
    assert "nothing of an answer was taken" in caplog.text
    await service.stop(200)


async def test_a_slow_answer_is_not_cut_off(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ADMIN_REQUEST_SECONDS_MAX", 0.3)
    service = AdminService(make_context())
    endpoint = await service.start()
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1")
        assert answer.status_code == 200
        assert (await client.get(f"http://{endpoint}/v1/health")).status_code == 200
    await service.stop(200)


# ----------------------------------------------------------------------------- bodies, clients that leave, shares


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse; a traceback is an error."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def send_body(endpoint: Endpoint, size_bytes: int) -> bytes:
    """The status line of the answer to a body of this size, whose length is not said beforehand."""
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(b"POST /v1/cluster/status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n" % size_bytes)
    line = b""
    with contextlib.suppress(ConnectionError):
        for begin in range(0, size_bytes, 50_000):
            writer.write(b"x" * min(50_000, size_bytes - begin))
            await writer.drain()
        writer.write(b"\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 10)
        await asyncio.wait_for(reader.readuntil(b"method not allowed"), 10)
        line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return line


async def test_a_body_without_a_length_may_be_as_large_as_the_limit(
    make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    assert await send_body(endpoint, ADMIN_BODY_SIZE_BYTES_MAX) == b"HTTP/1.1 200 OK\r\n"
    assert warnings_in(caplog) == []
    assert await send_body(endpoint, ADMIN_BODY_SIZE_BYTES_MAX + 1) != b"HTTP/1.1 200 OK\r\n"
    await service.stop(200)
    assert warnings_in(caplog) == [
        "the admin API, 1 times within 10 s: a connection was cut off, the body of a request is too large"
    ]


async def test_a_body_that_comes_before_its_answer_is_refused_with_413(make_context: MakeContext) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(
        b"GET /debug/mem/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(b"%x\r\n" % (ADMIN_BODY_SIZE_BYTES_MAX + 1) + b"x" * (ADMIN_BODY_SIZE_BYTES_MAX + 1))
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 413")
    writer.close()
    await service.stop(200)


async def test_a_head_that_never_ends_is_cut_off_while_an_answer_is_awaited(
    make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(b"GET /debug/mem/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.sleep(0.2)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: n\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(ADMIN_HEAD_SIZE_BYTES_MAX // 1000 + 300):
            writer.write(b"x%d: %s\r\n" % (number, b"v" * 1000))
            await writer.drain()
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await service.stop(200)
    assert warnings_in(caplog) == [
        "the admin API, 1 times within 10 s: a connection was cut off, the head of a request is too large"
    ]


def test_clients_that_leave_in_the_middle_of_answers_cost_one_line(
    make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        service = AdminService(make_context())
        endpoint = await service.start()
        for turn in range(40):
            _, writer = await asyncio.open_connection(*endpoint)
            writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n" * ADMIN_PIPELINED_MAX)
            await asyncio.sleep(0.001 * (turn % 20))
            writer.transport.abort()
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n" * (ADMIN_PIPELINED_MAX + 1))
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await asyncio.sleep(1.5)  # longer than the profile, if nobody told it that its caller is gone
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{endpoint}/livez")).status_code == 200
        await service.stop(500)

    uvloop.run(leave())  # a node's loop; its transports refuse what is written after their end
    kinds = {line.partition(" s: ")[2] for line in warnings_in(caplog)}
    assert kinds == {
        "a client left before it had its answer",
        "a connection was cut off, too many requests wait for the answers to earlier ones",
    }
    assert len(warnings_in(caplog)) == 2


async def test_what_is_not_http_is_one_line_with_a_count(
    make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    service = AdminService(make_context())
    endpoint = await service.start()
    for sent in (
        *[b"\x16\x03\x01\r\n\r\n"] * 20,
        b"GET / HTTP/1.1\r\nHost: n\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(sent)
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 4")
        writer.close()
    await service.stop(200)
    assert warnings_in(caplog) == [
        "the admin API, 20 times within 10 s: what was sent is not HTTP",
        "the admin API, 1 times within 10 s: a request asked for another protocol",
    ]


async def connect_from(address: str, endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*endpoint, local_addr=(address, 0))


async def status_line(target: str, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    """The status line of the answer to a GET; empty when the connection is closed instead."""
    reader, writer = connection
    with contextlib.suppress(ConnectionError):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await asyncio.wait_for(reader.readline(), 10)
    return b""


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
@pytest.mark.parametrize("past", [0, 1])
async def test_an_address_has_a_share_of_all_connections(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, past: int
) -> None:
    share = 5
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: share * ADMIN_ADDRESSES_MIN)
    monkeypatch.setattr(connection, "SETTLED_SECONDS", 0.0)
    service = AdminService(make_context())
    endpoint = await service.start()
    other = await connect_from("127.0.0.2", endpoint)
    held = [await connect_from("127.0.0.1", endpoint) for _ in range(share + past)]
    assert (await status_line("/livez", held[-1])).startswith(b"HTTP/1.1 200")
    first = await status_line("/livez", held[0])
    assert first == b"" if past else first.startswith(b"HTTP/1.1 200")
    assert (await status_line("/livez", other)).startswith(b"HTTP/1.1 200")
    for _, writer in [*held, other]:
        writer.close()
    await service.stop(200)


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
async def test_an_address_whose_share_is_busy_gets_probes_and_others_get_everything(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 8 * ADMIN_ADDRESSES_MIN)
    monkeypatch.setattr(connection.BoundedProtocol, "waits_for_client", lambda _connection: None)
    service = AdminService(make_context())
    endpoint = await service.start()
    held = [await connect_from("127.0.0.1", endpoint) for _ in range(13)]
    other = await connect_from("127.0.0.2", endpoint)
    assert (await status_line("/v1/cluster/nodes", held[7])).startswith(b"HTTP/1.1 200")
    assert (await status_line("/livez", held[8])).startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(held[12][0].read(), 10) == b""
    assert (await status_line("/v1/cluster/nodes", other)).startswith(b"HTTP/1.1 200")
    await held[8][0].readuntil(b"\r\n\r\nok\n")
    assert (await status_line("/v1/cluster/nodes", held[8])).startswith(b"HTTP/1.1 503")
    for _, writer in [*held, other]:
        writer.close()
    await service.stop(200)
    assert "all connections that an address may have are busy" in caplog.text
    assert "a request was refused, all connections are busy" in caplog.text


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
async def test_places_for_probes_stay_for_probes_when_they_change_hands(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 8 * ADMIN_ADDRESSES_MIN)
    really_waits = connection.BoundedProtocol.waits_for_client
    monkeypatch.setattr(  # the first eight are at work for ever, later ones only wait for their client
        connection.BoundedProtocol,
        "waits_for_client",
        lambda self: really_waits(self) if self._only_probes else None,
    )
    service = AdminService(make_context())
    endpoint = await service.start()
    held = [await connect_from("127.0.0.1", endpoint) for _ in range(8)]
    probe = await connect_from("127.0.0.1", endpoint)
    others = [await connect_from("127.0.0.1", endpoint) for _ in range(3)]
    assert (await status_line("/livez", probe)).startswith(b"HTTP/1.1 200")  # three later ones had places of their own
    others += [await connect_from("127.0.0.1", endpoint) for _ in range(8)]
    assert (await status_line("/v1/cluster/nodes", others[-1])).startswith(b"HTTP/1.1 503")
    for _, writer in [*held, *others, probe]:
        writer.close()
    await service.stop(200)


@pytest.fixture
def make_tls_context(make_context: MakeContext, certificate_and_key: tuple[str, str]) -> MakeContext:
    certificate, key = certificate_and_key
    return lambda: make_context(certificate=certificate, key=key)


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
async def test_refused_connections_that_tls_does_not_end_leave_places_for_probes(
    make_tls_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 8 * ADMIN_ADDRESSES_MIN)
    really_waits = connection.BoundedProtocol.waits_for_client
    monkeypatch.setattr(  # the first eight are at work for ever
        connection.BoundedProtocol,
        "waits_for_client",
        lambda self: really_waits(self) if self._only_probes else None,
    )
    service = AdminService(make_tls_context())
    endpoint, tls = await service.start(), trusting_anybody()
    held = [await asyncio.open_connection(*endpoint, ssl=tls) for _ in range(8)]
    request = b"GET /v1/cluster/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n"
    refused = [await speak_without_listening(endpoint, request) for _ in range(6)]
    for target in ("/livez", "/readyz"):
        probe = await asyncio.open_connection(*endpoint, ssl=tls)
        assert (await status_line(target, probe)).startswith(b"HTTP/1.1 200")
        probe[1].close()
    for _, writer in held:
        writer.close()
    for stream in refused:
        stream.close()
    await service.stop(200)


async def test_connections_that_are_being_closed_count_and_lose_their_place_first(
    make_tls_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "admin_connections_max", lambda _open_files: 4 * ADMIN_ADDRESSES_MIN)
    service = AdminService(make_tls_context())
    endpoint, tls = await service.start(), trusting_anybody()
    idle = await asyncio.open_connection(*endpoint, ssl=tls)
    assert (await status_line("/livez", idle)).startswith(b"HTTP/1.1 200")
    await idle[0].readuntil(b"\r\n\r\nok\n")
    endless = b"GET /livez HTTP/1.1\r\nx: " + b"v" * (ADMIN_HEAD_SIZE_BYTES_MAX + 1)
    refused = [await speak_without_listening(endpoint, endless) for _ in range(8)]
    assert await ends(refused[0])
    assert (await status_line("/livez", idle)).startswith(b"HTTP/1.1 200")
    idle[1].close()
    for stream in refused:
        stream.close()
    await service.stop(200)


@pytest.mark.parametrize("path", ["/livez", "/no-such-path"])
async def test_a_client_that_does_not_take_the_end_is_cut_off(
    make_tls_context: MakeContext, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(connection, "ADMIN_UNREAD_SECONDS_MAX", 0.3)
    service = AdminService(make_tls_context())
    endpoint = await service.start()
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    stream = await speak_without_listening(endpoint, request)
    assert await ends(stream)
    stream.close()
    await service.stop(200)


# ----------------------------------------------------------------------------- the listener of probes


async def test_the_listener_of_probes_answers_nothing_else(make_context: MakeContext) -> None:
    context = make_context(certificate="node.pem", key="node-key.pem")  # it needs neither
    config = {"health_api_address": "127.0.0.1:0", "admin_open_routes": (), "admin_token": SecretText("secret")}
    context.config = context.config.model_copy(update=config)
    service = HealthService(context)
    endpoint = await service.start()
    async with httpx.AsyncClient(base_url=f"http://{endpoint}", headers={"Host": "any.example"}) as client:
        for path in ("/livez", "/readyz", "/readyz/leader", "/v1/health"):
            assert (await client.get(path)).status_code == 200
            assert (await client.head(path)).status_code == 200
        bearer = {"Authorization": "Bearer secret", "X-Metasrv-Action": "1"}
        for path in ("/v1/cluster/status", "/v1/metrics", "/v1/config", "/openapi.json", *ACTION_PATHS):
            assert (await client.get(path, headers=bearer)).status_code == 404
            assert (await client.post(path, headers=bearer)).status_code == 404
    await service.stop(200)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*endpoint)


async def test_the_listener_of_probes_holds_so_many_connections(make_context: MakeContext) -> None:
    context = make_context()
    context.config = context.config.model_copy(update={"health_api_address": "127.0.0.1:0"})
    service = HealthService(context)
    endpoint = await service.start()
    assert service._listener is not None
    server = service._listener.server
    held = [await asyncio.open_connection(*endpoint) for _ in range(HEALTH_CONNECTIONS_MAX + 1)]
    assert (await status_line("/livez", held[-1])).startswith(b"HTTP/1.1 200")
    assert server.config.limit_concurrency == HEALTH_CONNECTIONS_MAX
    assert len(server.server_state.connections) <= HEALTH_CONNECTIONS_MAX
    for _, writer in held:
        writer.close()
    await service.stop(200)


# ----------------------------------------------------------------------------- real profiles


@pytest.fixture
def waiting_thread() -> Iterator[None]:
    waits: queue.Queue[None] = queue.Queue()
    thread = threading.Thread(target=waits.get, name="waits")
    thread.start()
    yield
    waits.put(None)
    thread.join()


@pytest.mark.parametrize("sampler", ["any", "in-process"])
async def test_a_cpu_profile_finds_the_busy_function(
    endpoint: Endpoint, busy: None, waiting_thread: None, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler == "in-process":
        monkeypatch.setattr(cpu, "find_py_spy", lambda: None)
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=folded")
        assert answer.status_code == 200
        assert answer.headers["x-profile-sampler"] in (("py-spy", "in-process") if sampler == "any" else ("in-process",))
        assert "spin_forever" in answer.text
        assert re.search(r";spin \([\w.]*test_admin_service:\d+\)", answer.text)
        assert "Queue.get (queue:" not in answer.text, "a thread that waits for work is left out"
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=folded&idle=true")
        assert "Queue.get (queue:" in answer.text
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1")
        assert b"spin_forever" in answer.content
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=svg")
        assert re.search(r">CPU of node \d+, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 1 s</text>", answer.text)
        assert os.getcwd() not in answer.text
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=speedscope")
        assert json.loads(answer.content)["profiles"]


async def test_what_it_was_doing_is_known_afterwards(endpoint: Endpoint, busy: None) -> None:
    """The continuous profile runs by itself from the start on."""
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(100):  # about a look a second, and the process does other things as well
            answer = await client.get(f"http://{endpoint}/v1/profile/history?format=folded")
            if "spin_forever" in answer.text:
                break
            await asyncio.sleep(0.3)
        assert "spin_forever" in answer.text
        minutes = (await client.get(f"http://{endpoint}/v1/profile/minutes")).json()["minutes"]
    assert sum(minute["busy_looks"] for minute in minutes) >= 1
    names = {thread.name for thread in threading.enumerate()}
    roots = {line.partition(";")[0] for line in answer.text.splitlines()}
    assert roots <= names | {"unknown"}, "the root of each stack is the name of its thread, if Python knows one"
    assert all(line.startswith("MainThread;") for line in answer.text.splitlines() if "spin_forever" in line)


async def test_the_growth_between_two_memory_profiles(endpoint: Endpoint, busy: None) -> None:
    address = f"http://{endpoint}/debug/mem/pprof/profile?seconds=1&format=folded"
    async with httpx.AsyncClient(timeout=60) as client:
        first = await client.get(address)
        answer = await client.get(f"{address}&base={first.headers['x-profile-capture']}")
    assert answer.status_code == 200
    lines = [line.rsplit(" ", 2) for line in answer.text.splitlines() if "spin_forever" in line]
    assert lines
    assert all(int(before) >= 0 and int(after) >= 0 for _, before, after in lines)


async def test_a_broken_py_spy_falls_back(
    endpoint: Endpoint, busy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "py-spy"
    broken.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(cpu, "find_py_spy", lambda: str(broken))
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=folded")
    assert (answer.status_code, answer.headers["x-profile-sampler"]) == (200, "in-process")
    assert "spin" in answer.text


async def test_the_node_answers_while_it_is_profiled(endpoint: Endpoint, busy: None) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        profile = asyncio.create_task(client.get(f"http://{endpoint}/debug/mem/pprof/profile?seconds=2"))
        for _ in range(20):
            begun = time.monotonic()
            assert (await client.get(f"http://{endpoint}/v1/cluster/status")).status_code == 200
            assert time.monotonic() - begun < 1.0
            await asyncio.sleep(0.05)
        answer = await profile
    assert answer.status_code == 200
    assert b"inuse_space" in answer.content
    assert b"spin_forever" in answer.content


@pytest.mark.parametrize(("form", "start"), [("folded", b""), ("svg", b"<?xml"), ("memray", b"memray")])
async def test_heap_profiles_in_every_form(endpoint: Endpoint, busy: None, form: str, start: bytes) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"http://{endpoint}/debug/mem/pprof/profile?seconds=1&format={form}")
    assert answer.status_code == 200
    assert answer.content.startswith(start)
    assert b"spin_forever" in answer.content
