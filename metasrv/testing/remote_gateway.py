"""`metasrv gateway` as a process beside a cluster of processes: started, stopped, killed, asked how it is.

Knows its outside only. Used from one event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from metasrv.client import AsyncClient
from metasrv.model.types import Endpoint
from metasrv.testing.ports import PortReservation
from metasrv.testing.process_node import HOST

READY_SECONDS_MAX = 30.0


class RemoteGatewayProcess:
    """One gateway for the nodes at `nodes`; `settings` are keys before all sections, `raft` those of `[raft_config]`."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[Endpoint],
        *,
        settings: Mapping[str, Any] | None = None,
        raft: Mapping[str, Any] | None = None,
    ) -> None:
        self._ports = PortReservation()
        self.grpc, self.health = (Endpoint(HOST, self._ports.take()) for _ in range(2))
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        keys = {
            "grpc_api_address": str(self.grpc),
            "grpc_api_advertise_host": HOST,
            "health_api_address": str(self.health),
            "gateway_nodes": [str(node) for node in nodes],
            **(settings or {}),
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        lines += ["[log.file]", "on = false", "[log.stderr]", 'on = true\nlevel = "INFO"\nformat = "text"']
        lines += ["[raft_config]", *(f"{key} = {json.dumps(value)}" for key, value in (raft or {}).items())]
        directory.mkdir(parents=True, exist_ok=True)
        self.config_file = directory / "gateway.toml"
        self.config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("METASRV_")}
        command = [sys.executable, "-m", "metasrv.cli.server", "gateway", "--config-file", str(self.config_file)]
        with (self.directory / "console.log").open("ab") as console:
            self.process = subprocess.Popen(command, stdout=console, stderr=console, env=environment)  # noqa: S603

    def close(self) -> None:
        """End it, however it is."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self._ports.release()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)

    def output(self) -> str:
        """Everything that it printed."""
        return (self.directory / "console.log").read_text(encoding="utf-8", errors="replace")

    def client(self, **options: Any) -> AsyncClient:
        """A client of this gateway alone."""
        return AsyncClient([str(self.grpc)], **options)

    async def get(self, path: str) -> tuple[int, str]:
        """Status code and text of a page; 0 while nobody answers."""
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(f"http://{self.health}{path}", timeout=5)
            except httpx.HTTPError as error:
                return 0, str(error)
        return answer.status_code, answer.text

    async def wait_for(self, words: str, timeout_s: float = READY_SECONDS_MAX) -> None:
        """Until `/readyz` says these words. Raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while words not in (found := (await self.get("/readyz"))[1]):
            if time.monotonic() > deadline or not self.is_running:
                raise AssertionError(f"/readyz says {found!r}, not {words!r}\n{self.output()[-3000:]}")
            await asyncio.sleep(0.05)
