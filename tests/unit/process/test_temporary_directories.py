"""What a killed process leaves in the directory for temporary files is removed at the next start, and nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from metasrv.process.temporary_directories import make_temporary_directory, sweep_temporary_directories

DEAD = 4_194_999
"""No process: Linux gives ids up to 4,194,304."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_dead_process_left_is_removed(temporary: Path) -> None:
    for purpose in ("heap", "profile"):
        directory = temporary / f"metasrv-{purpose}-{DEAD}-abc"
        directory.mkdir()
        (directory / "capture.bin").write_bytes(b"x")
    Path(make_temporary_directory("heap")).joinpath("left by a process with the same id").touch()
    assert sweep_temporary_directories() == 3
    assert os.listdir(temporary) == []


def test_what_a_living_process_uses_and_what_is_not_ours_stays(temporary: Path) -> None:
    (temporary / f"metasrv-heap-{os.getppid()}-abc").mkdir()
    (temporary / "metasrv-heap-abc").mkdir()  # of a release without the id in the name
    (temporary / f"other-heap-{DEAD}-abc").mkdir()
    (temporary / f"metasrv-heap-{DEAD}-file").touch()
    before = sorted(os.listdir(temporary))
    assert sweep_temporary_directories() == 0
    assert sorted(os.listdir(temporary)) == before


def test_an_old_directory_is_removed_whatever_its_name_says(temporary: Path) -> None:
    for name in ("metasrv-profile-abc", f"metasrv-heap-{os.getppid()}-abc"):
        (temporary / name).mkdir()
        os.utime(temporary / name, (0, 0))
    assert sweep_temporary_directories() == 2


def test_no_directory_for_temporary_files_is_no_fault(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    assert sweep_temporary_directories() == 0
