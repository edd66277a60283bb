"""The model of a disk: what is left of a write-ahead log that SQLite has removed itself."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from verification.simulation.disk import Disk


@pytest.mark.parametrize("name", ["log/raft.db-wal", "state/state.db-wal"])
def test_a_log_that_sqlite_removed_does_not_come_back_as_it_was_long_ago(tmp_path: Path, name: str) -> None:
    """SQLite removes it once all of it is in the database: an old log would undo what came after."""
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b"long ago")
    disk = Disk(str(tmp_path))
    disk.all_synced()
    os.unlink(path)
    for seed in range(20):
        assert name not in disk.image_after_power_loss(random.Random(seed))


def test_a_log_that_the_product_removed_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "state/state.db-wal"
    path.parent.mkdir()
    path.write_bytes(b"synced")
    disk = Disk(str(tmp_path))
    disk.all_synced()
    disk.before_name_change(str(path))
    os.unlink(path)
    disk.after_name_change()
    images = [disk.image_after_power_loss(random.Random(seed)) for seed in range(20)]
    assert {"state/state.db-wal": b"synced"} in images
    assert {} in images
