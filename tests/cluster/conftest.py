"""What several tests of real nodes share: a small disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


def mounted(command: list[str]) -> bool:
    return subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def small_disk() -> Iterator[tuple[list[str], list[str]]]:
    """A private mount namespace, as a command to run things in it and one to run first; both gone with the test."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("needs root, unshare and nsenter for a small file system")
    holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "600"])
    enter = ["nsenter", "-m", "-t", str(holder.pid), "--"]
    try:
        for _ in range(100):  # until unshare has made the namespace
            mine, its = os.readlink("/proc/self/ns/mnt"), os.readlink(f"/proc/{holder.pid}/ns/mnt")
            if mine != its:
                break
            subprocess.run(["sleep", "0.02"], check=True)
        else:
            pytest.skip("a mount namespace cannot be made here")
        yield enter, [*enter, "mount"]
    finally:
        holder.kill()
        holder.wait()
