"""One node of a cluster of processes: what is configured, where its files are, and its process while it runs.

Knows a node's outside only. Used from one event loop.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metasrv.cli.node_process import THIS_PROGRAM, NodeProgram, last_lines
from metasrv.model.types import Endpoint

HOST = "127.0.0.1"
HEARTBEAT_INTERVAL_MS = 200
"""As in conf/: the nodes share a machine."""


@dataclass(slots=True)
class ProcessNode:
    """One node: its files, its addresses, and its process while it runs."""

    node_id: int
    directory: Path
    admin: Endpoint
    raft: Endpoint
    grpc_listens: Endpoint
    advertised_host: str = HOST
    """Where peers and clients dial it: HOST, or an address of a breakable network."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of `[raft_config]`."""
    own_settings: dict[str, Any] = field(default_factory=dict)
    """Keys that stand before all sections, beside the addresses."""
    program: NodeProgram = THIS_PROGRAM
    """What its next start runs: this release, or another one."""
    process: subprocess.Popen[bytes] | None = None
    paused: bool = False

    @property
    def advertised(self) -> Endpoint:
        """Where peers dial it."""
        return Endpoint(self.advertised_host, self.raft.port)

    @property
    def grpc(self) -> Endpoint:
        """Where clients dial it."""
        return Endpoint(self.advertised_host, self.grpc_listens.port)

    @property
    def config_file(self) -> Path:
        return self.directory / "node.toml"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def raft_dir(self) -> Path:
        return self.directory / "data"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def output(self) -> str:
        """Everything the node printed, over all its starts."""
        return "\n".join(last_lines(self.console, count=1_000_000))

    def write_config(self) -> None:
        """The configuration file from the fields above."""
        raft = {
            "id": self.node_id,
            "raft_listen_host": HOST,
            "raft_advertise_host": self.advertised_host,
            "raft_api_port": self.raft.port,
            "raft_dir": str(self.raft_dir),
            "heartbeat_interval": HEARTBEAT_INTERVAL_MS,
            **self.settings,
        }
        lines = [
            f'admin_api_address = "{self.admin}"',
            f'grpc_api_address = "{self.grpc_listens}"',
            f'grpc_api_advertise_host = "{self.advertised_host}"',
            *_lines(self.own_settings),
            "[log.file]",
            "on = false",
            "[log.stderr]",
            'on = true\nlevel = "INFO"\nformat = "text"',
            "[raft_config]",
            *_lines(raft),
        ]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(settings: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in settings.items()]  # JSON scalars and lists are TOML
