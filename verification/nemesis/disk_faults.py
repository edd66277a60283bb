"""Full disks: a limit on the file sizes of a running node, and a small file system for one node.

A node whose disk refuses a write must stop with a sentence and exit code 8, and come back complete once there is room
(invariant 9). Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import functools
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from metasrv.model.errors import StorageError
from metasrv.testing.process_node import ProcessNode
from metasrv.testing.processes import DeadlineError, ProcessCluster
from verification.nemesis.fault import Fault, any_node

LIMIT_BYTES_MIN = 256 * 1024
CONSOLE_SPARE_BYTES = 64 * 1024
"""Added to the limit: the console file falls under it too, and the last log lines must fit."""
STRIKE_SECONDS_MAX = 15.0
ROOM_BYTES = 2 * 1024 * 1024
"""Room that the small file system has besides the node's files."""
LEFT_BYTES_MAX = 512 * 1024
RESTART_SECONDS = 3.0


async def limit_file_size(cluster: ProcessCluster, source: random.Random) -> None:
    """Limit the file sizes of a node to what its log is about to reach."""
    node = cluster.nodes[await any_node(cluster, source)]
    if node.process is None:
        raise AssertionError(f"node {node.node_id} was never started")
    console_bytes = node.console.stat().st_size
    limit = max(LIMIT_BYTES_MIN, console_bytes + CONSOLE_SPARE_BYTES) + source.randrange(64 * 1024)
    _, hard = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    await _until_storage_error(cluster, node)
    cluster.start(node.node_id)


async def fill_file_system(cluster: ProcessCluster, source: random.Random) -> None:
    """Fill the file system of a node, start the node while it is full, then make room again."""
    node = cluster.nodes[await any_node(cluster, source)]
    await cluster.kill(node.node_id)
    async with _small_file_system(node) as (wrapper, inside):
        cluster.start(node.node_id, wrapper=wrapper)
        await cluster.wait_for_leader(members=len(cluster.nodes))
        ballast = inside / "ballast"
        filling = asyncio.create_task(_keep_full(ballast, source.randrange(LEFT_BYTES_MAX)), name="ballast")
        try:
            await _until_storage_error(cluster, node)
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
        cluster.start(node.node_id, wrapper=wrapper)
        if not await _ends_within(cluster, node, RESTART_SECONDS):
            await cluster.kill(node.node_id)
        else:
            _require_storage_error(cluster, node)
        ballast.unlink()
        cluster.start(node.node_id, wrapper=wrapper)
        await cluster.wait_for_leader(members=len(cluster.nodes))
        await cluster.kill(node.node_id)
        kept = node.directory / "kept"
        await asyncio.to_thread(shutil.copytree, inside, kept)
    shutil.rmtree(node.raft_dir)
    kept.rename(node.raft_dir)
    cluster.start(node.node_id)


@asynccontextmanager
async def _small_file_system(node: ProcessNode) -> AsyncIterator[tuple[list[str], Path]]:
    """A stopped node's files on a tmpfs in a mount namespace of its own.

    Gives the command that starts a program inside, and the directory as seen from outside. The file system is gone
    with the process that holds the namespace, which dies with the test program at the latest.
    """
    used = sum(path.stat().st_size for path in node.raft_dir.rglob("*") if path.is_file())
    holder = _hold_namespace(node.raft_dir, 2 * used + ROOM_BYTES)
    try:
        ready = await asyncio.to_thread(holder.stdout.readline) if holder.stdout is not None else b""
        if ready != b"ready\n":
            raise AssertionError("the small file system could not be mounted")
        inside = Path(f"/proc/{holder.pid}/root{node.raft_dir}")
        await asyncio.to_thread(shutil.copytree, node.raft_dir, inside, dirs_exist_ok=True)
        yield ["nsenter", "--mount", f"--target={holder.pid}"], inside
    finally:
        holder.kill()
        await asyncio.to_thread(holder.communicate)


def _hold_namespace(directory: Path, size_bytes: int) -> subprocess.Popen[bytes]:
    script = 'mount -t tmpfs -o "size=$1,mode=700" metasrv-chaos "$2" && echo ready && exec sleep infinity'
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return subprocess.Popen(
        [*guard, "unshare", "--mount", "sh", "-c", script, "sh", str(size_bytes), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


@functools.cache
def _why_no_small_file_system() -> str | None:
    """Why this machine cannot do it, found out by trying once; None when it can."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare and nsenter are not installed"
    with tempfile.TemporaryDirectory(prefix="metasrv-disk-") as directory:
        holder = _hold_namespace(Path(directory), ROOM_BYTES)
        ready = b"" if holder.stdout is None else holder.stdout.readline()
        holder.kill()
        holder.communicate()
    return None if ready == b"ready\n" else "a file system cannot be mounted in a namespace of its own without root"


async def _keep_full(ballast: Path, left_bytes: int) -> None:
    """Take all room except for `left_bytes`, and again what the node gives back when it shortens a file."""
    while True:
        with ballast.open("ab", buffering=0) as file:
            missing = shutil.disk_usage(ballast).free - left_bytes
            try:
                while missing > 0:
                    missing -= file.write(bytes(min(missing, 1024 * 1024)))
            except OSError:
                missing = 0  # the node was quicker: the disk is full
        await asyncio.sleep(0.02)


async def _ends_within(cluster: ProcessCluster, node: ProcessNode, timeout_s: float) -> bool:
    try:
        await cluster.wait_exit(node.node_id, timeout_s)
    except DeadlineError:
        return False
    return True


async def _until_storage_error(cluster: ProcessCluster, node: ProcessNode) -> None:
    if not await _ends_within(cluster, node, STRIKE_SECONDS_MAX):
        raise AssertionError(f"node {node.node_id} went on for {STRIKE_SECONDS_MAX:g} s on a full disk under load")
    _require_storage_error(cluster, node)


def _require_storage_error(cluster: ProcessCluster, node: ProcessNode) -> None:
    code = None if node.process is None else node.process.returncode
    if code != StorageError.exit_code:
        words = cluster.logs(node.node_id)
        raise AssertionError(
            f"node {node.node_id} ended with {code} on a full disk, not {StorageError.exit_code}\n{words}"
        )


DISK_FAULTS = [
    Fault("file size limit", limit_file_size),
    Fault("full file system", fill_file_system, _why_no_small_file_system),
]
