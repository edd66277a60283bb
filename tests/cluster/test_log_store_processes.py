"""The raft log in real processes: killed at any moment, out of space, and two of them on one file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metasrv.model.errors import StorageError
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore
from tests.support.paths import ROOT

WRITER = """
import random, resource, signal, sys
from metasrv.model.errors import MetasrvError
from metasrv.raft.log.store import LogStore

path, seed, file_size_max = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
try:
    store = LogStore.open(path, create_entries=[(b"\\x01", 1, 0)])
    writer = store.open_writer()
    if file_size_max:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_max, file_size_max))
    print("ready", store.last_index, flush=True)
    for _ in range(1_000_000):
        if chance.random() < 0.1:
            store.setCurrentTerm(store.getCurrentTerm() + 1, chance.choice([None, "2"]))
        if chance.random() < 0.05 and len(store) > 40:
            store.purge_to(store.last_index - 20)
        for _ in range(chance.randint(1, 12)):
            index = store.last_index + 1
            store.add(b"entry %d " % index * chance.choice([5, 40, 900]), index, store.getCurrentTerm())
        store.setRaftCommitIndex(store.last_index)
        writer.write(store.take_pending())
        print(store.last_index, store.getCurrentTerm(), store.getVotedForNodeId(), flush=True)
        writer.checkpoint_if_due()
except MetasrvError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
"""


FULL_DISK = """
import subprocess, sys
from metasrv.model.errors import StorageError
from metasrv.raft.log.store import LogStore

def sentence(error):
    return str(error).split(": ", 1)[1]

path = sys.argv[1] + "/raft.db"
store = LogStore.open(path, create_entries=[(b"\\x01", 1, 0)])
writer = store.open_writer()
acknowledged = 1
try:
    for index in range(2, 10_000):
        store.add(b"x" * 300, index, 0)
        writer.write(store.take_pending())
        acknowledged = index
except StorageError as error:
    print(sentence(error))
writer.close()
store = LogStore.open(path, create_entries=None)
try:
    store.open_writer()
except StorageError as error:
    print(sentence(error))
if store.last_index == acknowledged:
    print("nothing acknowledged is missing")
store._destroy()
subprocess.run(["mount", "-o", "remount,size=8m", sys.argv[1]], check=True)
store = LogStore.open(path, create_entries=None)
writer = store.open_writer()
store.add(b"y", store.last_index + 1, 0)
writer.write(store.take_pending())
writer.close()
print("goes on")
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts writers; kills what is left of them in the end."""
    processes: list[subprocess.Popen[str]] = []

    def start_one(path: str, seed: int, file_size_max: int = 0) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", WRITER, path, str(seed), str(file_size_max)]
        root = ROOT
        processes.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def read_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [line.strip() for _ in range(count) if (line := process.stdout.readline())]


def assert_holds_what_was_said(store: LogStore, line: str) -> None:
    """`line` is the last acknowledgement; a write that nobody was told of may follow it."""
    index, term, vote = line.split()
    assert store.last_index >= int(index)
    assert store.getCurrentTerm() >= int(term)
    if store.getCurrentTerm() == int(term):
        assert str(store.getVotedForNodeId()) == vote
    assert all(is_whole(entry) for entry in store[:])


def is_whole(entry: LogEntry) -> bool:
    content, index, _ = entry
    text = b"entry %d " % index
    return content == b"\x01" or (len(content) % len(text) == 0 and content == text * (len(content) // len(text)))


@pytest.mark.parametrize("seed", range(12))
def test_kill_at_any_moment_loses_no_acknowledged_write(start: Start, tmp_path: Path, seed: int) -> None:
    """The same log is killed and continued several times; the kill falls into whatever the process is doing."""
    path = str(tmp_path / "raft.db")
    chance = random.Random(seed)
    last_index = 1
    for round_number in range(4):
        process = start(path, seed * 100 + round_number)
        assert read_lines(process, 1) == [f"ready {last_index}"]
        lines = read_lines(process, chance.choice([1, 5, 40, 150]))
        process.kill()
        rest, _ = process.communicate(timeout=10)
        assert process.returncode == -signal.SIGKILL
        acknowledged = lines + rest.splitlines() if rest.endswith("\n") else lines + rest.splitlines()[:-1]
        store = LogStore.open(path, create_entries=None)
        store._destroy()
        assert_holds_what_was_said(store, acknowledged[-1])
        last_index = store.last_index


@pytest.mark.parametrize("size_bytes", [60_000, 300_000, 5_000_000])
def test_disk_without_space_stops_with_one_sentence_and_loses_nothing(
    start: Start, tmp_path: Path, size_bytes: int
) -> None:
    path = str(tmp_path / "raft.db")
    process = start(path, 7, size_bytes)
    output, _ = process.communicate(timeout=60)
    *lines, last = output.splitlines()
    assert last.startswith(f"StorageError {path}: writing failed: "), last
    assert process.returncode == StorageError.exit_code
    store = LogStore.open(path, create_entries=None)
    assert_holds_what_was_said(store, lines[-1])
    store.open_writer().close()


def test_second_process_is_told_that_the_first_is_running(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "raft.db")
    first = start(path, 1)
    read_lines(first, 3)
    second = start(path, 2)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 5
    assert "another process uses this log; is this node already running?" in output
    assert len(read_lines(first, 3)) == 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount of its own")
def test_full_file_system_is_named_and_the_log_goes_on_once_there_is_space(tmp_path: Path) -> None:
    mount, check = tmp_path / "small", tmp_path / "check.py"
    mount.mkdir()
    check.write_text(FULL_DISK)
    script = f"mount -t tmpfs -o size=1m tmpfs {mount} && {sys.executable} {check} {mount}"
    root = ROOT
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    if "ermission denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "writing failed: the disk is full (SQLITE_FULL)",
        "opening failed: the disk is full (SQLITE_FULL)",
        "nothing acknowledged is missing",
        "goes on",
    ]
