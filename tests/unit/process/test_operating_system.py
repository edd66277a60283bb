"""What differs between systems, seen by taking the functions of the others away."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import re
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from metasrv.process.operating_system import (
    make_syncs_full,
    memory_limit_bytes,
    raise_descriptor_limit,
    resident_peak_bytes,
    resident_size_bytes,
    sync_data,
    sync_directory,
    sync_file,
    thread_processor_time_ns,
)
from metasrv.state.machine import StateMachine
from tests.support.paths import PRODUCT, ROOT

F_FULLFSYNC = 51
"""Its number on macOS."""


class Syncs:
    """Records what was synced, and how."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.full_sync_works = True

    def fsync(self, descriptor: int) -> None:
        os.fstat(descriptor)
        self.calls.append("fsync")

    def fdatasync(self, descriptor: int) -> None:
        os.fstat(descriptor)
        self.calls.append("fdatasync")

    def fcntl(self, descriptor: int, command: int) -> int:
        os.fstat(descriptor)
        assert command == F_FULLFSYNC
        if not self.full_sync_works:
            raise OSError(errno.ENOTSUP, "not supported")
        self.calls.append("F_FULLFSYNC")
        return 0


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """Linux's calls, recorded."""
    recorded = Syncs()
    monkeypatch.setattr(os, "fsync", recorded.fsync)
    monkeypatch.setattr(os, "fdatasync", recorded.fdatasync, raising=False)
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    return recorded


@pytest.fixture
def macos(syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """macOS's calls, recorded: no fdatasync, and F_FULLFSYNC."""
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", syncs.fcntl)
    return syncs


def test_linux_syncs_data_with_fdatasync_and_the_rest_with_fsync(syncs: Syncs, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        sync_data(file.fileno())
        sync_file(file.fileno())
    sync_directory(str(tmp_path))
    assert syncs.calls == ["fdatasync", "fsync", "fsync"]


def test_macos_flushes_the_drive_too(macos: Syncs, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        sync_data(file.fileno())
        sync_file(file.fileno())
    sync_directory(str(tmp_path))
    assert macos.calls == ["F_FULLFSYNC"] * 3


def test_a_file_system_without_full_sync_gets_fsync(macos: Syncs, tmp_path: Path) -> None:
    macos.full_sync_works = False
    with open(tmp_path / "file", "wb") as file:
        sync_data(file.fileno())
    assert macos.calls == ["fsync"]


def test_a_fault_of_the_disk_is_raised(syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="input/output error"):
        sync_data(0)
    assert syncs.calls == []


def test_sqlite_is_told_to_flush_the_drive_on_macos_only(syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> list[int]:
        connection = sqlite3.connect(":memory:")
        make_syncs_full(connection)
        names = ("fullfsync", "checkpoint_fullfsync")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        connection.close()
        return found

    assert settings() == [0, 0]
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    assert settings() == [1, 1]
    assert syncs.calls == []


def test_log_mark_and_state_are_made_and_synced_with_the_calls_of_macos(macos: Syncs, tmp_path: Path) -> None:
    machine = StateMachine.open(str(tmp_path / "state"))
    machine.close()
    assert set(macos.calls) == {"F_FULLFSYNC"}


@pytest.mark.parametrize(("hard", "after"), [(resource.RLIM_INFINITY, 10_240), (1_048_576, 10_240), (4_096, 4_096)])
def test_the_descriptor_limit_stays_below_what_macos_refuses(
    monkeypatch: pytest.MonkeyPatch, hard: int, after: int
) -> None:
    limits = [(256, hard)]

    def setrlimit(_kind: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_descriptor_limit(65_536)
    assert limits[-1] == (after, hard)


def test_without_proc_no_processor_time_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_arguments: object, **_options: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    assert thread_processor_time_ns(1) is None


@pytest.mark.program
@pytest.mark.parametrize("module", ["metasrv.cli.server", "metasrv.cli.ctl", "metasrv.cli.local_cluster"])
def test_windows_is_refused_with_a_sentence_that_names_the_ways_out(module: str) -> None:
    program = f"import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; import {module}"
    refused = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "does not run on Windows" in refused.stderr
    assert "WSL 2" in refused.stderr
    assert "Docker" in refused.stderr


def test_no_other_module_of_the_product_asks_for_the_platform_or_syncs_by_itself() -> None:
    places = []
    for path in PRODUCT.rglob("*.py"):
        if path.relative_to(PRODUCT).parts[0] in {"testing", "cli"} or path.name == "operating_system.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.fullmatch("fsync|fdatasync|platform|prctl", node.attr):
                places.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}")
    assert places == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the present size")
def test_the_most_memory_is_no_less_than_the_present_and_no_more_than_there_is() -> None:
    resident, limit = resident_size_bytes(), memory_limit_bytes()
    assert resident is not None
    assert limit is not None
    assert resident // 2 <= resident_peak_bytes() <= limit, "the kernel counts the present size with some delay"


def test_the_limit_of_a_container_counts_when_it_is_less_than_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    real_open = open
    monkeypatch.setattr(
        "builtins.open", lambda path, **arguments: real_open(limit if "cgroup" in str(path) else path, **arguments)
    )
    limit.write_text("max\n")
    whole = memory_limit_bytes()
    limit.write_text("1000000\n")
    assert memory_limit_bytes() == 1_000_000
    assert whole is not None
    assert whole > 1_000_000
