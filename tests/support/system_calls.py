"""Counts the system calls of a running process by name, with strace."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

_ROW = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_0-9]+)\s*")
"""% of the time, seconds, microseconds a call, calls, errors if there were any, name."""


class SystemCalls:
    """`with SystemCalls(pid, directory) as calls: ...`, then `calls.counts`. Skips the test where strace is of no use."""

    def __init__(self, pid: int, directory: Path) -> None:
        if shutil.which("strace") is None:
            pytest.skip("needs strace, to count system calls of a node")
        self._pid = pid
        self._output = directory / f"strace-{pid}"
        self._process: subprocess.Popen[bytes] | None = None
        self.counts: dict[str, int] = {}

    def __enter__(self) -> SystemCalls:
        command = ["strace", "-f", "-c", "-o", str(self._output), "-p", str(self._pid)]
        process = self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.readline()  # "Process N attached", for one thread of it after the other
        if b"attached" not in said:
            process.wait()
            pytest.skip(f"strace may not look at a process here: {said.decode(errors='replace').strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # it lets the process go and writes what it counted
            process.communicate()
        if self._output.exists():
            self.counts = counts_in(self._output.read_text())


def counts_in(table: str) -> dict[str, int]:
    """Calls by name of the table that `strace -c` writes."""
    rows = (_ROW.fullmatch(line) for line in table.splitlines())
    return {row[2]: int(row[1]) for row in rows if row is not None and row[2] != "total"}
