"""A genuine meta service of Databend: the one that its engine, a package for Python, runs within itself in local mode.

The engine starts six of them, each a cluster of one node with a raft port and a gRPC port that it picks on loopback. Only
the raft ports have a name, in the directories of the data, so the gRPC ports are the others that the process listens on.
Needs what `make databend` installs.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from tests.support.paths import ROOT

PYTHON = Path(os.environ.get("METASRV_DATABEND_PYTHON", ROOT / ".genuine/bin/python"))
needs_genuine_meta = pytest.mark.skipif(
    not PYTHON.exists(), reason="Databend's engine is not installed; `make databend` does that"
)
_PROGRAM = """
import sys, databend
connection = databend.connect(sys.argv[1])
for statement in sys.argv[2:]:
    connection.sql(statement).collect()
print("ready", flush=True)
sys.stdin.read()
"""
_LISTENING = "0A"


class GenuineMeta:
    """The engine's process; a context manager. `address` is that of the meta service whose records are used."""

    def __init__(self, directory: Path, *statements: str) -> None:
        """`statements` are SQL that fills the catalog."""
        directory.mkdir()
        self._directory = directory
        self._process = subprocess.Popen(
            [str(PYTHON), "-c", _PROGRAM, str(directory), *statements],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            text=True,
        )
        self.address = ""

    def __enter__(self) -> GenuineMeta:
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, "")
        assert any(line == "ready\n" for line in lines), f"the engine ended with {self._process.wait()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def client(self) -> AsyncClient:
        return AsyncClient([self.address])

    async def choose_the_fullest(self) -> None:
        """Use the meta service with the most writes: the catalog."""
        found = []
        for port in self._grpc_ports():
            self.address = f"127.0.0.1:{port}"
            async with self.client() as client:
                found.append(((await client.cluster_status()).last_seq, self.address))
        assert len(found) > 1
        self.address = max(found)[1]

    def _grpc_ports(self) -> set[int]:
        names = [path.name for path in (self._directory / "meta").iterdir()]
        raft_ports = {int(match[1]) for name in names if (match := re.search(r"-(\d+)$", name))}
        assert raft_ports
        ports = self._listening_ports()
        assert raft_ports < ports
        return ports - raft_ports

    def _listening_ports(self) -> set[int]:
        sockets = set()
        for name in (Path("/proc") / str(self._process.pid) / "fd").iterdir():
            if (match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(name))) is not None:
                sockets.add(match[1])
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENING and row[9] in sockets}
