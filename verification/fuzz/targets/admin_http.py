"""The admin port: bytes of anybody, through the real parser, guard and routes. No answer may be a 500, no error logged.

Behind the routes stands a node without an engine. Profiles are refused: each would take a second or more.
"""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any
from unittest.mock import patch

from uvicorn.server import ServerState

from metasrv.admin import profiling
from metasrv.admin.access import Access
from metasrv.admin.app import create_app
from metasrv.admin.cut_offs import CutOffs
from metasrv.admin.service import server_config
from metasrv.config.model import Config, RaftConfig
from metasrv.process.open_files import admin_connections_max
from metasrv.process.operating_system import descriptor_limit
from metasrv.profiling.profile import ProfilerBusyError
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from metasrv.testing.memory_stream import MemoryTransport
from verification.fuzz.target import Target, fuzz_loop, no_logged_errors, run_callbacks

_ROUNDS = 40
"""Turns of the loop until an answer is there: the layers of the framework hand it on."""


class _Admin:
    """The server's configuration for one process; its connections are made for each input."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="metasrv-fuzz-")
        machine = StateMachine.open(f"{self._directory.name}/state.db")
        raft = RaftConfig(id=1, raft_advertise_host="localhost", raft_api_port=28103, single=True)
        context, _ = fake_context(machine, Config(raft_config=raft), leader_status())
        app = create_app(context, Access(context.config))
        self.config = server_config(app, CutOffs("the admin API"), admin_connections_max(descriptor_limit()))
        self.config.load()


async def _refuse(*_arguments: object) -> None:
    raise ProfilerBusyError("profiles are not fuzzed")


_admin: _Admin | None = None


def _run(data: bytes) -> None:
    with no_logged_errors(), patch.multiple(profiling, record_cpu=_refuse, record_memory=_refuse):
        written = fuzz_loop().run_until_complete(_exchanged(data))
        run_callbacks(2)
    if b"HTTP/1.1 500" in written:
        raise AssertionError(written.decode("latin-1"))


async def _exchanged(data: bytes) -> bytes:
    global _admin
    _admin = _admin or _Admin()
    config = _admin.config
    kind: Any = config.http_protocol_class
    protocol = kind(config=config, server_state=ServerState(), app_state={})
    transport = MemoryTransport(protocol, "127.0.0.1")
    protocol.connection_made(transport)
    protocol.data_received(data)
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
    written = bytes(transport.outgoing)
    protocol.connection_lost(None)
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
    return written


def _get(target: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost:28101", *headers, "", body]
    return "\r\n".join(lines).encode()


_ACTION = "X-Metasrv-Action: 1"
TARGET = Target(
    "admin_http",
    _run,
    (
        _get("/v1/health"),
        _get("/v1/cluster/status?verbose", "Accept-Encoding: gzip"),
        _get("/v1/cluster/nodes") * 2,
        _get("/v1/features/set?feature=a&enable=true", _ACTION, method="POST"),
        _get("/v1/ctrl/trigger_transfer_leader?to=2", _ACTION, method="POST"),
        _get("/v1/ctrl/trigger_snapshot", _ACTION, "Content-Length: 3", method="POST", body="abc"),
        _get(
            "/v1/ctrl/trigger_snapshot",
            _ACTION,
            "Transfer-Encoding: chunked",
            method="POST",
            body="3\r\nabc\r\n0\r\n\r\n",
        ),
        _get("/debug/pprof/profile?seconds=1&frequency=99&format=svg", "Authorization: Bearer x"),
        _get("/metrics", method="HEAD"),
        _get("/livez/loop"),
    ),
    input_size_bytes_max=2048,
)
