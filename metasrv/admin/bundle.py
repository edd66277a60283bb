"""What a diagnostics bundle of this node has in it: a file for each thing that is worth knowing, one after the other.

Everything comes from what other routes show, so secrets are masked and values are left out here as there. A file that
cannot be made is named in `errors.txt`; the others are there all the same. Must not know HTTP. Runs on the event loop;
what blocks runs in helper threads.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import json
import logging
import os
import platform
import resource
import sqlite3
import ssl
import tarfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from metasrv.admin.config_view import config_dump
from metasrv.admin.log_levels import levels_view
from metasrv.admin.members import members_view
from metasrv.admin.slow_writes import slow_writes_view
from metasrv.admin.views import nodes_view, status_view
from metasrv.console.console import Console
from metasrv.model import limits
from metasrv.model.limits import EVENTS_ANSWERED_MAX
from metasrv.node.context import NodeContext
from metasrv.node.health import HealthMonitor
from metasrv.process.directory_listing import directory_listing
from metasrv.process.operating_system import resident_size_bytes
from metasrv.profiling.cpu import record_cpu
from metasrv.profiling.profile import ProfileFormat, ProfileSlot
from metasrv.profiling.thread_stacks import task_names, thread_stacks

logger = logging.getLogger(__name__)

PROFILE_FREQUENCY_HERTZ = 99
ERRORS = "errors.txt"
PACKAGES = (
    "pysyncobj",
    "uvloop",
    "msgpack",
    "fastapi",
    "starlette",
    "uvicorn",
    "httptools",
    "hpack",
    "grpcio",
    "protobuf",
    "pydantic",
    "cryptography",
    "prometheus-client",
    "py-spy",
    "memray",
)
Make = Callable[[], Awaitable[Any]]


class BundleSources(NamedTuple):
    """What a bundle is made of."""

    context: NodeContext
    console: Console
    monitor: HealthMonitor
    profiles: ProfileSlot


async def bundle_pieces(sources: BundleSources, profile_seconds: int) -> AsyncIterator[bytes]:
    """The bundle as a tar archive, compressed, piece by piece; a profile of 0 seconds is left out."""
    made_at_ms = sources.context.clock.wall_ms()
    archive = _Archive(made_at_ms // 1000)
    errors: list[str] = []
    for name, make in _files(sources, profile_seconds, made_at_ms).items():
        try:
            piece = await asyncio.to_thread(archive.add, name, await make())
        except Exception as error:
            logger.warning("%s of a diagnostics bundle cannot be made: %s", name, error)
            errors.append(f"{name}: {type(error).__name__}: {error}\n")
        else:
            yield piece
    if errors:
        yield await asyncio.to_thread(archive.add, ERRORS, "".join(errors))
    yield await asyncio.to_thread(archive.finish)


class _Archive:
    """A compressed tar archive that is taken away as it grows."""

    def __init__(self, made_at: int) -> None:
        self._made_at = made_at
        self._sink = _Sink()
        self._tar = tarfile.open(mode="w|gz", fileobj=self._sink)  # noqa: SIM115 - closed by `finish`

    def add(self, name: str, content: Any) -> bytes:
        """Add one file, text or bytes as they are, everything else as JSON; returns what is ready."""
        if isinstance(content, str):
            data = content.encode("utf-8", "backslashreplace")
        elif isinstance(content, bytes):
            data = content
        else:
            data = json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(data), self._made_at, 0o600
        self._tar.addfile(member, io.BytesIO(data))
        return self._sink.take()

    def finish(self) -> bytes:
        self._tar.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken


# ----------------------------------------------------------------------------- files


def _files(sources: BundleSources, profile_seconds: int, made_at_ms: int) -> dict[str, Make]:
    """The files by name, in the order in which they are made: what may wait comes last."""
    context, console = sources.context, sources.console
    files: dict[str, Make] = {
        "about.json": lambda: _soon(lambda: _about(context, made_at_ms)),
        "status.json": lambda: _soon(lambda: status_view(context)),
        "nodes.json": lambda: _soon(lambda: nodes_view(context.consensus.status())),
        "checks.json": lambda: _checks(sources.monitor),
        "console.json": lambda: _console(console),
        "events.json": lambda: _soon(lambda: console.events(limit=EVENTS_ANSWERED_MAX)),
        "history.json": lambda: _soon(lambda: console.history.view(context.clock.wall_ms())),
        "metrics.txt": lambda: _soon(lambda: _metrics(context)),
        "configuration.txt": lambda: _soon(lambda: config_dump(context.config)),
        "log-levels.json": lambda: _soon(lambda: levels_view(context)),
        "log.txt": lambda: asyncio.to_thread(lambda: "".join(f"{line}\n" for line in context.log_levels.recent_lines())),
        "slow-writes.json": lambda: _soon(lambda: slow_writes_view(context)),
        "limits.json": lambda: _soon(_limits),
        "files.txt": lambda: asyncio.to_thread(directory_listing, context.config.raft_config.raft_dir),
        "tasks.txt": lambda: _soon(task_names),
        "threads.txt": lambda: asyncio.to_thread(thread_stacks),
        "members.json": lambda: _members(context),
    }
    if profile_seconds:
        node_id = context.config.raft_config.id
        files["cpu-profile.folded"] = lambda: _profile(node_id, sources.profiles, profile_seconds)
    return files


async def _soon(make: Callable[[], Any]) -> Any:
    """What is made on the loop: everything that looks at the node's own state."""
    await asyncio.sleep(0)  # each file in a step of its own
    return make()


def _about(context: NodeContext, made_at_ms: int) -> dict[str, Any]:
    status, system = context.consensus.status(), os.uname()
    return {
        "made_at_ms": made_at_ms,
        "node_id": status.node_id,
        "cluster_name": context.config.raft_config.cluster_name,
        "cluster_id": status.cluster_id,
        "version": context.binary_version,
        "started_at_ms": context.started_at_ms,
        "python": platform.python_version(),
        "system": f"{system.sysname} {system.release} {system.machine}",
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: version for name in PACKAGES if (version := _version_of(name)) is not None},
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
        "resident_size_bytes": resident_size_bytes(),
        "threads": threading.active_count(),
        "listeners": {name: str(endpoint) for name, endpoint in context.listeners.items()},
    }


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _limits() -> dict[str, Any]:
    own = {name: value for name, value in vars(limits).items() if name.isupper()}
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    system = {name.removeprefix("RLIMIT_").lower(): resource.getrlimit(getattr(resource, name)) for name in names}
    return {"metasrv": own, "system_soft_and_hard": system}


def _metrics(context: NodeContext) -> bytes:
    body, _ = context.metrics.render(context.consensus.status(), context.machine.watches.count, None)
    return body


async def _checks(monitor: HealthMonitor) -> dict[str, Any]:
    return {
        "livez": [check._asdict() for check in await monitor.liveness()],
        "readyz": [check._asdict() for check in await monitor.readiness()],
    }


async def _console(console: Console) -> dict[str, Any]:
    await console.look()
    return console.state()


async def _members(context: NodeContext) -> dict[str, Any]:
    return members_view(await context.members.look())


async def _profile(node_id: int, slot: ProfileSlot, seconds: int) -> bytes:
    with slot.take("CPU"):
        return (await record_cpu(node_id, seconds, PROFILE_FREQUENCY_HERTZ, ProfileFormat.FOLDED)).body
