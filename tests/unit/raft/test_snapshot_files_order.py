"""Which snapshot file is the newest is said by its name: a copied or restored directory has other file times."""

from __future__ import annotations

import os
from pathlib import Path

from metasrv.raft.snapshot_files import finished_files, size_of_files


def test_files_are_ordered_by_what_they_hold(tmp_path: Path) -> None:
    names = ["1-1-9-1700000000500.snap", "2-3-100-1700000000100.snap", "2-3-100-1700000000900.snap", "3-1-20-5.snap"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    found = [Path(path).name for path in finished_files(str(tmp_path))]
    assert found == ["1-1-9-1700000000500.snap", "3-1-20-5.snap", *names[1:3]]


def test_a_file_of_another_name_comes_first(tmp_path: Path) -> None:
    for name in ("copy of it.snap", "1-1-9-5.snap", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [Path(path).name for path in finished_files(str(tmp_path))] == ["copy of it.snap", "1-1-9-5.snap"]


def test_the_size_of_a_directory_that_is_gone_is_a_figure_for_status(tmp_path: Path) -> None:
    """Every status raised otherwise, also those of the metrics and of the console, until the node noticed the loss."""
    (tmp_path / "1-1-9-5.snap").write_bytes(b"12345")
    assert size_of_files(str(tmp_path)) == 5
    assert size_of_files(str(tmp_path / "gone")) == 0
    assert size_of_files(str(tmp_path / "1-1-9-5.snap")) == 0, "somebody put a file in its place"
