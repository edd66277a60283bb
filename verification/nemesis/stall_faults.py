"""Disks that do not answer for seconds: strace holds up each sync of one thread of a running node.

Only that thread is traced, so the event loop goes on as it would beside such a disk. The state's thread is not held up:
it gives way to a slow disk before its work keeps anybody waiting (`metasrv/raft/state_log.py`); the simulator stalls it.
Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from metasrv.testing.processes import ProcessCluster
from verification.nemesis.fault import Fault, any_node

LOG_THREAD = "raft-log"


async def stall_log(cluster: ProcessCluster, source: random.Random) -> None:
    """Each sync of a node's raft log takes seconds for a while; when the node leads, another one takes over."""
    leader = await cluster.wait_for_leader()
    node_id = await any_node(cluster, source)
    async with stalled_log(cluster, node_id, source.uniform(2.0, 5.0)):
        if node_id == leader:
            await cluster.wait_for_leader(other_than=leader, members=len(cluster.nodes) - 1)
        await asyncio.sleep(source.uniform(1.0, 4.0))


@asynccontextmanager
async def stalled_log(cluster: ProcessCluster, node_id: int, seconds: float) -> AsyncIterator[None]:
    """Within the block each sync of the node's raft log takes `seconds`."""
    process = cluster.nodes[node_id].process
    if process is None:
        raise AssertionError(f"node {node_id} was never started")
    thread = str(thread_named(process.pid, LOG_THREAD))
    delay = f"inject=fdatasync,fsync:delay_enter={int(seconds * 1_000_000)}"
    tracer = await asyncio.create_subprocess_exec(
        *_trace("fdatasync,fsync", thread), "-e", delay, stdin=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{process.pid}/task/{thread}/status")
        await cluster.wait_until(lambda: "TracerPid:\t0\n" not in status.read_text(), "strace to attach")
        yield
    finally:
        tracer.kill()  # the kernel lets go of the thread, also in the middle of a delay
        await tracer.wait()


def thread_named(pid: int, name: str) -> int:
    """The id of a thread of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            if (task / "comm").read_text().strip() == name:
                return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name!r}")


def _trace(calls: str, thread: str) -> list[str]:
    """The command that traces these system calls of a thread, and dies with this program."""
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return [*guard, "strace", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-p", thread]


@functools.cache
def why_no_tracer() -> str | None:
    """Why this machine cannot do it, found out by trying once; None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    sleeper = subprocess.Popen(["sleep", "10"], stdin=subprocess.DEVNULL)
    try:
        tracer = subprocess.Popen(_trace("fsync", str(sleeper.pid)), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tracer.wait(0.5)
        except subprocess.TimeoutExpired:
            return None
        finally:
            tracer.kill()
            tracer.wait()
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()
    return "strace may not attach to a process of this user"


STALL_FAULTS = [Fault("raft log stalls", stall_log, why_no_tracer)]
