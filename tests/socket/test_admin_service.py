"""The admin listener on real sockets: addresses, faults, TLS, orderly stop, and real profiles of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from metasrv.admin import connection
from metasrv.admin import service as service_module
from metasrv.admin.service import AdminService
from metasrv.cli.certificates import generate
from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.model.errors import BindError, ConfigError
from metasrv.model.limits import ADMIN_HEAD_SIZE_BYTES_MAX, ADMIN_PIPELINED_MAX
from metasrv.model.types import Endpoint
from metasrv.node.context import NodeContext
from metasrv.process.certificates import expiry_of
from metasrv.profiling import cpu, memory
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

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
    arguments = (str(tmp_path / "missing"), "report", "folded", "0", "0")
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
        assert context.metrics.security.reload_failed == {"admin": True}
        shutil.copy(tmp_path / "new/node-key.pem", key)
        await context.reloader.look(everything=True)
        assert await serial_shown(endpoint) == serial_of(str(made[-1])) != before
        assert context.metrics.security.reload_failed == {"admin": False}
        assert context.metrics.security.expires_at["admin"] == expiry_of(str(made[-1]))

        context.config = context.config.model_copy(update={"admin_token": SecretText("new")})
        mark = {"X-Metasrv-Action": "test"}
        path = f"https://{endpoint}/v1/ctrl/trigger_snapshot"
        assert (await client.post(path, headers=mark)).status_code == 401
        assert (await client.post(path, headers={**mark, "Authorization": "Bearer new"})).status_code == 200
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
    monkeypatch.setattr(connection, "REPORT_SECONDS", 0.0)
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
        server = service._server
        assert server is not None
        while not server.server_state.tasks:  # noqa: ASYNC110 - nothing tells when a request is being answered
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
    monkeypatch.setattr(connection, "REPORT_SECONDS", 0.0)
    service = AdminService(make_context())
    endpoint = await service.start()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, endpoint)
        deadline = time.monotonic() + 20
        while "nothing of an answer was taken" not in caplog.text and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(b"GET /v1/metrics HTTP/1.1\r\nHost: n\r\n\r\n" * 4)
            await asyncio.sleep(0.01)
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


# ----------------------------------------------------------------------------- real profiles


@pytest.mark.parametrize("sampler", ["any", "in-process"])
async def test_a_cpu_profile_finds_the_busy_function(
    endpoint: Endpoint, busy: None, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler == "in-process":
        monkeypatch.setattr(cpu, "find_py_spy", lambda: None)
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=folded")
        assert answer.status_code == 200
        assert answer.headers["x-profile-sampler"] in (("py-spy", "in-process") if sampler == "any" else ("in-process",))
        assert "spin_forever" in answer.text
        assert ";spin (" in answer.text
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1")
        assert b"spin_forever" in answer.content
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=svg")
        assert b"<svg" in answer.content[:1000]
        answer = await client.get(f"http://{endpoint}/debug/pprof/profile?seconds=1&format=speedscope")
        assert json.loads(answer.content)["profiles"]


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
