"""The operating system under simulated processes: system calls that make files durable, and randomness.

While a simulation runs, these functions of `os` are replaced. Each tells the disk model what became durable, and is a
step at which a process can be killed. The calls still work on the real files, except for syncs, which a memory file
system does not need. Random numbers that the product takes from the system come from the seed.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from verification.simulation.disk import Disk
from verification.simulation.loop import running_loop


class SimulatedSystem:
    """`base` is the directory that holds the disks of all machines."""

    def __init__(self, base: str, source: random.Random) -> None:
        self._prefix = base + "/"
        self._source = source
        self._disks: dict[str, Disk] = {}

    def add_disk(self, disk: Disk) -> None:
        self._disks[disk.root] = disk

    def disk_of(self, path: str) -> Disk | None:
        if not path.startswith(self._prefix):
            return None
        end = path.find("/", len(self._prefix))
        return self._disks.get(path if end < 0 else path[:end])

    def step(self, name: str) -> None:
        """A process is about to make something durable, or has just done so: it may die here."""
        loop = running_loop()
        if loop is not None:
            loop.persist_step(name)

    # ------------------------------------------------------------------ the calls

    def sync(self, real: Callable[[int], None], descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        disk = self.disk_of(path)
        if disk is None:
            real(descriptor)
            return
        self.step("before sync")
        if os.path.isdir(path):
            disk.directory_synced()
        else:
            disk.file_synced(path)
        self.step("after sync")

    def change_name(self, what: str, real: Callable[..., None], path: str, *others: Any, **options: Any) -> None:
        disk = self.disk_of(os.fspath(path))
        if disk is None:
            real(path, *others, **options)
            return
        self.step(f"before {what}")
        if others:
            disk.before_name_change(others[0], path)
        else:
            disk.before_name_change(path)
        real(path, *others, **options)
        disk.after_name_change()
        self.step(f"after {what}")

    def connect(self, real: Callable[..., sqlite3.Connection], path: str, **options: Any) -> sqlite3.Connection:
        """Open without file locks, which cost a system call each: no other process uses these files."""
        if self.disk_of(path) is None:
            return real(path, **options)
        return real(f"file:{quote(path)}?vfs=unix-excl", uri=True, **options)

    def random_bytes(self, size_bytes: int) -> bytes:
        return self._source.randbytes(size_bytes)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in for the system until the end of the block."""
        saved: list[tuple[Any, str, Any]] = []

        def replace(module: Any, name: str, function: Any) -> None:
            saved.append((module, name, getattr(module, name)))
            setattr(module, name, function)

        fsync, fdatasync, rename, replace_file, unlink = os.fsync, os.fdatasync, os.rename, os.replace, os.unlink
        state = random.getstate()
        random.seed(self._source.getrandbits(64))
        replace(os, "fsync", lambda fd: self.sync(fsync, fd if isinstance(fd, int) else fd.fileno()))
        replace(os, "fdatasync", lambda fd: self.sync(fdatasync, fd if isinstance(fd, int) else fd.fileno()))
        replace(os, "rename", lambda a, b, **k: self.change_name("rename", rename, a, b, **k))
        replace(os, "replace", lambda a, b, **k: self.change_name("rename", replace_file, a, b, **k))
        replace(os, "unlink", lambda a, **k: self.change_name("unlink", unlink, a, **k))
        replace(os, "urandom", self.random_bytes)
        replace(sqlite3, "connect", partial(self.connect, sqlite3.connect))
        replace(sys.modules["random"], "_urandom", self.random_bytes)
        try:
            yield
        finally:
            for module, name, function in reversed(saved):
                setattr(module, name, function)
            random.setstate(state)
