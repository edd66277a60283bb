"""`metactl top` as it is used: the real program on a terminal, real nodes, one of them killed under it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.support.metactl import metactl

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
NAMED_SECONDS_MAX = 10.0
STEP_SECONDS_MAX = 40.0


class Terminal:
    """metactl with a terminal of its own; `seen` is what it wrote there since the last `forget`, without escapes."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metasrv.cli.ctl", *arguments],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        self._slave = slave
        self._read = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def forget(self) -> None:
        self._read = b""

    @property
    def raw(self) -> bytes:
        return self._read

    @property
    def seen(self) -> str:
        return ESCAPES.sub("", self._read.decode("utf-8", "replace"))

    def pump(self) -> None:
        """Take what it wrote within a tenth of a second."""
        if select.select([self._master], [], [], 0.1)[0]:
            self._read += os.read(self._master, 65_536)

    async def wait_for(self, *texts: str, seconds: float = STEP_SECONDS_MAX) -> None:
        deadline = time.monotonic() + seconds
        while not all(text in self.seen for text in texts):
            assert time.monotonic() < deadline, f"{texts} not within {seconds} s in:\n{self.seen[-3000:]}"
            assert self.process.poll() is None, self.seen
            await asyncio.to_thread(self.pump)

    async def end(self) -> int:
        """Its exit code, once it has ended by itself; the terminal must be as before."""
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            await asyncio.to_thread(self.pump)
        await asyncio.to_thread(self.pump)
        assert termios.tcgetattr(self._slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.mark.timeout(240)
async def test_a_leader_that_is_killed_is_named_from_another_node(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    address = str(cluster.nodes[leader].admin)
    once = (await metactl("top", "--once", "--admin-api-address", address)).out
    assert f"node {leader} leads" in once
    assert "one more failure is tolerated" in once
    assert "\x1b" not in once
    await a_request_to_end_leaves_the_terminal_as_it_was(address)
    terminal = Terminal("top", "--admin-api-address", address)
    try:
        await terminal.wait_for(f"node {leader} leads", "one more failure is tolerated", "q quit", "writes/s")
        terminal.forget()
        terminal.resize(60, 20)
        await terminal.wait_for("q quit")
        terminal.forget()
        await cluster.kill(leader)
        named = f"Node {leader} is silent", "one more failure stops the cluster", "runbook silent-node", "unreachable"
        await terminal.wait_for(*named, f"{address} gives no answer", seconds=NAMED_SECONDS_MAX)
        terminal.press(b"p")
        await terminal.wait_for("paused")
        terminal.press(b"p")
        rest = [node_id for node_id in cluster.nodes if node_id != leader]
        await cluster.kill(rest[0])
        terminal.forget()
        await terminal.wait_for(
            "No majority", "no leader", "1 of 3 voters heard, writes are refused", "runbook no-leader"
        )
        terminal.press(b"q")
        assert await terminal.end() == 0
        assert terminal.raw.endswith(b"\x1b[?1049l"), "the screen of before is shown again"
    finally:
        terminal.close()


async def a_request_to_end_leaves_the_terminal_as_it_was(address: str) -> None:
    terminal = Terminal("top", "--admin-api-address", address)
    try:
        await terminal.wait_for("q quit")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.end() != 0
        assert b"\x1b[?1049l" in terminal.raw
    finally:
        terminal.close()
