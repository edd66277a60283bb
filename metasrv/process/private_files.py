"""Rights of what a node keeps on disk: files for this user alone (0600), in directories for this user alone (0700).

What an earlier release or another hand left looser is tightened, and the caller logs what these functions say. What
others can write, and this user cannot tighten, is refused: whoever can replace a file of the raft log decides what the
node has promised. A group may be allowed, as the one that Kubernetes gives a volume to (fsGroup); its rights are then
left as they are. Knows no layout and no configuration. Blocks; runs before the node serves, and in helper threads.
"""

from __future__ import annotations

import os
import stat

from metasrv.model.errors import StorageError

PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700
_UMASK = 0o077
_GROUP_RIGHTS = 0o070
_OTHERS_RIGHTS = 0o077
_OTHERS_WRITE = 0o022
_ADVICE = "give it to this user alone (chmod 0700), or name the group that may write there as `file_group`"


def keep_new_files_private() -> None:
    """Take the rights of others from whatever this process, and the programs that it starts, will create."""
    os.umask(_UMASK)


def open_private(path: str, flags: int) -> int:
    """An opener for `open`: a new file is this user's alone, and a link in its place is refused. Raises OSError."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE_MODE)


def make_private_directory(path: str) -> None:
    """Create the directory, and what is missing above it, for this user alone; one that exists stays. Raises OSError."""
    missing = []
    head = os.path.abspath(path)
    while not os.path.lexists(head):
        missing.append(head)
        head = os.path.dirname(head)
    for directory in reversed(missing):  # `os.makedirs` gives its mode to the last one only
        os.makedirs(directory, mode=PRIVATE_DIRECTORY_MODE, exist_ok=True)
    os.makedirs(path, exist_ok=True)  # fails for a file, and for a link that leads nowhere


def secure_directory(path: str, group_id: int | None, *, shared: bool = False) -> str:
    """Tighten the directory that `path`, or the link there, leads to; `shared` if others keep files in it, too.

    Returns a sentence about what was changed or stays open, empty for neither. Raises StorageError when others can write
    to it and that cannot be changed, OSError when it cannot be read.
    """
    status = os.stat(path)
    loose = _loose_rights(status, group_id)
    if loose and not shared and not status.st_mode & stat.S_ISVTX and _is_changeable(status):
        tightened = _tighten(path, status, loose)
        status = os.stat(path)
        loose = _loose_rights(status, group_id)
        if tightened and not loose:
            return f"{path} was open to other users (mode {tightened}); it is now this user's alone"
    writers = _writers(status, loose, group_id)
    if writers:
        raise StorageError(f"the directory {path} cannot be used: {writers} can write to it; {_ADVICE}")
    return f"{path} can be read by other users; the files that this node makes there cannot" if loose else ""


def secure_tree(root: str, group_id: int | None) -> str:
    """Tighten all files and directories below `root`, which `secure_directory` has seen; says what it changed.

    Raises StorageError for a link, or for what others can write and this user cannot tighten; OSError when the disk
    refuses to be read.
    """
    tightened = 0
    directories = [root]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                tightened += _secure_entry(entry, group_id)
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
    if not tightened:
        return ""
    return f"files and directories in {root} were open to other users, and are now this user's alone: {tightened} of them"


def make_file_private(path: str, group_id: int | None) -> None:
    """Tighten a file if this user may; a link is left alone. Raises OSError when it is gone."""
    status = os.lstat(path)
    loose = _loose_rights(status, group_id)
    if loose and stat.S_ISREG(status.st_mode) and _is_changeable(status):
        _tighten(path, status, loose)


def _secure_entry(entry: os.DirEntry[str], group_id: int | None) -> bool:
    """Whether it had to be tightened."""
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise StorageError(
            f"{entry.path} is a link, which may lead to what others can change; put the file or directory itself there. "
            "Only the data directory as a whole may be a link"
        )
    loose = _loose_rights(status, group_id)
    tightened = bool(loose) and _is_changeable(status) and bool(_tighten(entry.path, status, loose))
    if tightened:
        status = os.lstat(entry.path)
        loose = _loose_rights(status, group_id)
    writers = _writers(status, loose, group_id)
    if writers:
        raise StorageError(f"{entry.path} cannot be used: {writers} can write to it; {_ADVICE}")
    return tightened and not loose


def _loose_rights(status: os.stat_result, group_id: int | None) -> int:
    rights = stat.S_IMODE(status.st_mode) & _OTHERS_RIGHTS
    return rights & ~_GROUP_RIGHTS if status.st_gid == group_id else rights


def _is_changeable(status: os.stat_result) -> bool:
    return os.geteuid() in (status.st_uid, 0)


def _tighten(path: str, status: os.stat_result, loose: int) -> str:
    """The mode that it had, in octal; empty if the file system refuses."""
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.chmod(path, mode & ~loose)
    except OSError:  # a file system without rights; what others can do there is judged by the caller
        return ""
    return f"{mode:04o}"


def _writers(status: os.stat_result, loose: int, group_id: int | None) -> str:
    """Who else can write: its owner, unless that is root or belongs to the allowed group, or those whom the mode lets."""
    if loose & _OTHERS_WRITE:
        return f"other users (mode {stat.S_IMODE(status.st_mode):04o})"
    if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0 and status.st_gid != group_id:
        return f"its owner, the user {status.st_uid},"
    return ""
