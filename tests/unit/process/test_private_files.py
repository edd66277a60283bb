"""Rights at rest: what is looser than this user's alone is tightened, and what others can write is refused."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from metasrv.model.errors import StorageError
from metasrv.process import private_files
from metasrv.process.data_directory import DataDirectory
from metasrv.process.private_files import (
    make_file_private,
    make_private_directory,
    open_private,
    secure_directory,
    secure_tree,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process has the rights of an ordinary user to whom nothing here belongs."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


def refuse_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", refuse)


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def test_new_directories_are_this_users_alone_up_to_the_first_that_was_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_directory(str(tmp_path / "a" / "b" / "c"))
    assert [mode(tmp_path / name) for name in ("", "a", "a/b", "a/b/c")] == [0o755, 0o700, 0o700, 0o700]
    make_private_directory(str(tmp_path / "a" / "b" / "c"))


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        make_private_directory(str(tmp_path / "file" / "data"))
    with pytest.raises(FileExistsError):
        make_private_directory(str(tmp_path / "file"))


def test_new_files_are_this_users_alone_and_links_are_not_followed(tmp_path: Path) -> None:
    with open(tmp_path / "new", "w", encoding="utf-8", opener=open_private) as file:
        file.write("x")
    assert mode(tmp_path / "new") == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"), open(tmp_path / "link", "w", encoding="utf-8", opener=open_private):
        pytest.fail("it was opened")
    assert not (tmp_path / "elsewhere").exists()


def test_a_loose_directory_is_tightened_and_named(loose: Path) -> None:
    assert "open to other users (mode 0777)" in secure_directory(str(loose), None)
    assert mode(loose) == 0o700
    assert secure_directory(str(loose), None) == ""


def test_a_link_to_the_directory_is_followed(loose: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(loose)
    secure_directory(str(tmp_path / "link"), None)
    assert mode(loose) == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_what_others_can_write_and_cannot_be_tightened_is_refused(
    loose: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    loose.chmod(bits)
    refuse_changes(monkeypatch)
    with pytest.raises(StorageError, match=rf"other users \(mode 0{bits:o}\) can write to it; .*`file_group`"):
        secure_directory(str(loose), None)


def test_what_others_can_only_read_is_used_and_said(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose.chmod(0o755)
    refuse_changes(monkeypatch)
    assert "can be read by other users" in secure_directory(str(loose), None)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_directory_of_another_user_is_refused(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose.chmod(0o700)
    os.chown(loose, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StorageError, match="its owner, the user 12345, can write to it"):
        secure_directory(str(loose), None)


def test_the_rights_of_the_allowed_group_stay(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a volume that Kubernetes gave to an fsGroup: it belongs to root, and the group may write."""
    loose.chmod(0o2770)
    group = loose.stat().st_gid
    assert secure_directory(str(loose), group) == ""
    assert mode(loose) == 0o2770
    not_ours(monkeypatch)
    with pytest.raises(StorageError, match="other users"):
        secure_directory(str(loose), group + 1)


def test_others_never_keep_a_right_to_write_beside_an_allowed_group(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = loose.stat().st_gid
    refuse_changes(monkeypatch)
    with pytest.raises(StorageError, match=r"other users \(mode 0777\)"):
        secure_directory(str(loose), group)


def test_a_directory_with_files_of_others_is_not_closed_to_them(loose: Path) -> None:
    """A log directory may be /var/log, which the whole machine uses."""
    loose.chmod(0o755)
    assert "can be read by other users" in secure_directory(str(loose), None, shared=True)
    assert mode(loose) == 0o755
    loose.chmod(0o1777)
    with pytest.raises(StorageError, match=r"mode 1777"):
        secure_directory(str(loose), None)
    assert mode(loose) == 0o1777


def test_everything_below_is_tightened(loose: Path) -> None:
    (loose / "deep").mkdir()
    (loose / "deep").chmod(0o755)
    for name in ("file", "deep/file"):
        (loose / name).write_bytes(b"")
        (loose / name).chmod(0o644)
    assert "this user's alone: 3 of them" in secure_tree(str(loose), None)
    assert [mode(loose / name) for name in ("deep", "file", "deep/file")] == [0o700, 0o600, 0o600]
    assert secure_tree(str(loose), None) == ""


def test_a_link_inside_is_refused(loose: Path, tmp_path: Path) -> None:
    (loose / "deep").mkdir()
    (loose / "deep" / "link").symlink_to(tmp_path)
    with pytest.raises(StorageError, match=r"deep/link is a link, .*Only the data directory as a whole may be a link"):
        secure_tree(str(loose), None)


def test_a_file_inside_that_others_can_write_is_refused(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (loose / "file").write_bytes(b"")
    (loose / "file").chmod(0o666)
    refuse_changes(monkeypatch)
    with pytest.raises(StorageError, match="file cannot be used: other users"):
        secure_tree(str(loose), None)


def test_a_link_is_left_alone_where_files_are_tightened_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    make_file_private(str(tmp_path / "link"), None)
    assert mode(tmp_path / "file") == 0o644
    make_file_private(str(tmp_path / "file"), None)
    assert mode(tmp_path / "file") == 0o600


def test_what_is_created_later_is_private_as_well(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        private_files.keep_new_files_private()
        (tmp_path / "by anybody").write_bytes(b"")
        assert mode(tmp_path / "by anybody") == 0o600
    finally:
        os.umask(before)


# ----------------------------------------------------------------------------- the data directory


def test_the_data_directory_is_tightened_with_a_log_line(loose: Path, caplog: pytest.LogCaptureFixture) -> None:
    DataDirectory.open(str(loose), 1).close()
    (loose / "node.json").chmod(0o644)
    (loose / "df_meta").chmod(0o755)
    loose.chmod(0o755)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        DataDirectory.open(str(loose), 1).close()
    assert [record.message.rpartition(" ")[0] for record in caplog.records] == [
        f"{loose} was open to other users (mode 0755); it is now this user's",
        f"files and directories in {loose} were open to other users, and are now this user's alone: 2 of",
    ]
    found = {str(path.relative_to(loose)): mode(path) for path in [loose, *loose.rglob("*")]}
    assert set(found.values()) == {0o700, 0o600}, found


def test_the_data_directory_may_be_a_link_and_holds_none(loose: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(loose)
    DataDirectory.open(str(tmp_path / "link"), 1).close()
    moved = tmp_path / "moved"
    (loose / "df_meta").rename(moved)
    (loose / "df_meta").symlink_to(moved)
    with pytest.raises(StorageError, match="df_meta is a link"):
        DataDirectory.open(str(loose), 1)
    assert (moved / "V004").exists()


def test_a_link_in_the_place_of_the_lock_is_refused(loose: Path, tmp_path: Path) -> None:
    (loose / "LOCK").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="cannot be used"):
        DataDirectory.open(str(loose), 1)
    assert not (tmp_path / "elsewhere").exists()
