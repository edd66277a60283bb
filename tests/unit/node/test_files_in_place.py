"""Files removed or replaced under a running node are noticed; what the node itself replaces is not (invariant 9)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model.entries import decode_entry
from metasrv.model.types import Endpoint, LogId
from metasrv.node.files_in_place import FilesInPlace
from metasrv.node.opening import OpenedData, open_data
from metasrv.raft.log.format import CONTENT, TERM
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter

ENDPOINT = Endpoint("localhost", 28103)
FILES = (
    "LOCK",
    "node.json",
    "df_meta/V004/log/raft.db",
    "df_meta/V004/log/raft.db-mark",
    "df_meta/V004/log/raft.db-wal",
    "df_meta/V004/state/state.db",
    "df_meta/V004/state/state.db-wal",
    "df_meta/V004/state/state.db-shm",
)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[OpenedData]:
    opened = open_data(str(tmp_path / "data"), 1, ENDPOINT, bootstrap=True)
    yield opened
    opened.close()


def write(data: OpenedData) -> None:
    """An entry of the log, so that each write-ahead log has something in it."""
    previous = data.store.entry_at(data.store.last_index)
    assert previous is not None
    data.store.add(previous[0], data.store.last_index + 1, previous[2])
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)


def test_every_file_of_a_directory_is_looked_at(data: OpenedData) -> None:
    write(data)
    files = [path for path in Path(data.directory.root).rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(data.directory.root)) for path in files) == sorted(FILES)


def test_a_directory_of_snapshots_that_is_gone_is_named(data: OpenedData) -> None:
    files = FilesInPlace(data)
    os.rmdir(data.directory.snapshot_directory)
    problem = files.problem()
    assert problem is not None
    assert problem.path == data.directory.snapshot_directory
    assert f"{problem.path}: directory: removed or replaced" in str(problem)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_gone_is_named(data: OpenedData, name: str, is_replaced: bool) -> None:
    files = FilesInPlace(data)
    write(data)
    assert files.problem() is None
    path = os.path.join(data.directory.root, name)
    shutil.copyfile(path, f"{path}.copy")
    if is_replaced:
        os.replace(f"{path}.copy", path)
    else:
        os.unlink(path)
    problem = files.problem()
    assert problem is not None
    assert problem.path == path
    assert "removed or replaced" in str(problem)


def test_a_directory_that_was_moved_away_is_noticed(data: OpenedData) -> None:
    files = FilesInPlace(data)
    os.rename(data.directory.root, f"{data.directory.root}.aside")
    problem = files.problem()
    assert problem is not None
    assert problem.path.startswith(data.directory.root)


def test_what_the_node_itself_replaces_is_no_problem(data: OpenedData, tmp_path: Path) -> None:
    cluster_id = data.directory.identity.cluster_id
    assert cluster_id is not None
    lagging = open_data(str(tmp_path / "lagging"), 2, ENDPOINT, bootstrap=False)
    files = FilesInPlace(lagging)
    lagging.directory.set_cluster_id(cluster_id)
    assert files.problem() is None, "node.json is written anew when the cluster is known"
    entries = data.store.entry_at(1), data.store.entry_at(2)
    assert entries[0] is not None
    assert entries[1] is not None
    data.machine.apply_entry(LogId(entries[1][TERM], 2, 1), decode_entry(entries[1][CONTENT]))
    writer = SnapshotWriter(data.directory.state_path)
    writer.pin()
    path = os.path.join(lagging.directory.snapshot_directory, "a.snap")
    writer.write(path, SnapshotTail(entries[0], entries[1]))
    lagging.machine.install(path)
    assert files.problem() is None
    os.unlink(lagging.directory.state_path)
    problem = files.problem()
    assert problem is not None
    assert problem.path == lagging.directory.state_path
    lagging.close()
