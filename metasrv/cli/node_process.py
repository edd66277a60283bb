"""One node as a child process: starting it, asking it, reading what it printed.

Used by the local cluster runner and by the process tests. Knows only a node's configuration file, command line and
admin routes. It blocks, and is meant for threads or programs without an event loop; only `start_node`, which does not
wait, may be called on an event loop.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metasrv.model.types import Endpoint

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Never uses a proxy: the nodes are on this machine."""


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """How a node is started: the command before the node's own arguments, and what its environment has besides."""

    command: tuple[str, ...] = (sys.executable, "-m", "metasrv.cli.server")
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def in_directory(cls, directory: Path) -> NodeProgram:
        """The node of another release, whose package was unpacked there; interpreter and libraries are these."""
        # Without the second, Python would look for the package in the current directory first.
        return cls(environment={"PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"})


THIS_PROGRAM = NodeProgram()
"""The node of the package that this module belongs to."""


@dataclass(frozen=True, slots=True)
class NodeFile:
    """What a runner needs from a node's configuration file."""

    path: Path
    node_id: int
    admin: Endpoint
    grpc: Endpoint
    raft: Endpoint
    raft_dir: Path

    @property
    def admin_url(self) -> str:
        return f"http://{reachable(self.admin)}"

    def ports(self) -> list[tuple[Endpoint, str]]:
        """Listen addresses with their purpose."""
        return [(self.admin, "admin HTTP"), (self.raft, "raft"), (self.grpc, "gRPC")]


def read_node_file(path: Path) -> NodeFile:
    """Read a configuration file; raises ValueError with one sentence when it is not usable."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        raft = content["raft_config"]
        return NodeFile(
            path=path,
            node_id=int(raft["id"]),
            admin=Endpoint.parse(content["admin_api_address"]),
            grpc=Endpoint.parse(content["grpc_api_address"]),
            raft=Endpoint(raft.get("raft_listen_host", "127.0.0.1"), int(raft["raft_api_port"])),
            raft_dir=Path(raft["raft_dir"]),
        )
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except KeyError as missing:
        raise ValueError(f"{path}: the key {missing} is missing") from None
    except (tomllib.TOMLDecodeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None


def reachable(endpoint: Endpoint) -> Endpoint:
    """The address to dial for a listen address: a wildcard becomes loopback."""
    if endpoint.addr == "0.0.0.0":  # noqa: S104 - compared, not bound
        return Endpoint("127.0.0.1", endpoint.port)
    return Endpoint("::1", endpoint.port) if endpoint.addr == "::" else endpoint


def start_node(
    config_file: Path,
    console_file: Path,
    arguments: Sequence[str] = (),
    *,
    program: NodeProgram = THIS_PROGRAM,
    environment: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    die_with_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a node, by default this package's; output is appended to `console_file`, the session is its own.

    `wrapper` is a command that execs the rest, as `prlimit` does. With `die_with_parent` (where setpriv exists) the
    kernel kills the node when the thread that called this ends, however it ends.
    """
    setpriv = shutil.which("setpriv") if die_with_parent else None
    guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    command = [*guard, *wrapper, *program.command, "-c", str(config_file), *arguments]
    console_file.parent.mkdir(parents=True, exist_ok=True)
    with console_file.open("ab") as console:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and files
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **program.environment, **(environment or {})},
        )


def fetch(url: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """GET; returns code and body, also of error answers. Raises OSError when there is no answer, or not all of one."""
    try:
        try:
            with _OPENER.open(url, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url} did not give a whole answer: {error!r}") from error


def fetch_status(admin: Endpoint, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """`/v1/cluster/status` of a node; None when it does not answer with one."""
    try:
        code, body = fetch(f"http://{reachable(admin)}/v1/cluster/status", timeout_s)
        status = json.loads(body) if code == 200 else None
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def why_not_ready(admin: Endpoint) -> str | None:
    """What `/readyz` says, or why it says nothing, as while a node starts; None when the node is ready."""
    try:
        code, body = fetch(f"http://{reachable(admin)}/readyz")
    except OSError as error:
        return f"no answer: {error}"
    return None if code == 200 else body.decode(errors="replace")


def leader_id_of(status: dict[str, Any] | None) -> int | None:
    """The id of the leader that a status names."""
    leader = (status or {}).get("leader")
    return int(leader["name"]) if leader else None


def last_lines(path: Path, count: int = 15) -> list[str]:
    """The end of a text file; empty when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def is_port_free(endpoint: Endpoint) -> bool:
    """Whether a listener could be opened there now."""
    family = socket.AF_INET6 if ":" in endpoint.addr else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.addr, endpoint.port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str | None:
    """`pid 123 (command line)` of the process that listens on `port`, if /proc shows it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in last_lines(Path(table), count=1_000_000)[1:]:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and _holds_any(directory, inodes):
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"pid {directory.name} ({command[:100]})"
    return None


def _holds_any(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(descriptor) in inodes for descriptor in (process / "fd").iterdir())
    except OSError:
        return False  # it has ended, or belongs to another user
