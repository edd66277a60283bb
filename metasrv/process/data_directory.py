"""The data directory: its layout, its lock, and which node it belongs to.

    <raft_dir>/LOCK                          held by the running process
    <raft_dir>/node.json                     identity: node id, incarnation, cluster id; why it is no longer a member
    <raft_dir>/DAMAGED                       what is wrong with the state, once that is known
    <raft_dir>/df_meta/V004/log/raft.db      the raft log
    <raft_dir>/df_meta/V004/state/state.db   the state
    <raft_dir>/df_meta/V004/snapshot/*.snap  snapshots

Never starts empty where data was before (invariant 9). Runs before the node serves, and again when the node learns its
cluster. Does not know what the files contain.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from metasrv.model.errors import DataDamagedError, IdentityError, StorageError
from metasrv.model.types import DATA_VERSION
from metasrv.process.operating_system import sync_directory, sync_file
from metasrv.process.private_files import make_private_directory, open_private, secure_directory, secure_tree

logger = logging.getLogger(__name__)

_FORMAT = 2
FileId = tuple[int, int]
"""Device and inode: what tells two files of one name apart."""
DAMAGE_NAME = "DAMAGED"
ASIDE_PREFIX = "aside-"
BUILDING_NAME = "building"
"""Where a restore builds data before it takes its place."""
_ADVICE = "restore the directory from a copy, or remove it and let the node join again with an empty one"


@dataclass(frozen=True, slots=True)
class Identity:
    """The node and the cluster that the directory belongs to."""

    node_id: int
    incarnation: str
    cluster_id: str | None
    complete: bool
    """False while the first start is not finished; such a directory has never acknowledged anything."""
    removed: str | None = None
    """Why the node is no longer a member of its cluster; None while it is one, or may become one."""


class DataDirectory:
    """An opened and locked data directory."""

    def __init__(self, root: str, lock_descriptor: int, identity: Identity) -> None:
        self.root = root
        self.identity = identity
        self._lock_descriptor = lock_descriptor
        self._identity_file: FileId | None = None
        self.log_path, self.state_path, self.snapshot_directory = layout(root)

    @classmethod
    def open(
        cls, root: str, configured_id: int, allowed_group: int | None = None, *, incarnation: str | None = None
    ) -> DataDirectory:
        """Lock the directory, take the rights of others away, and read or create its identity.

        `allowed_group` is the id of a group that keeps its rights; `incarnation` is that of a new identity, by default
        random. Raises IdentityError (another process, another node), DataDamagedError, StorageError.
        """
        root = os.path.abspath(root)
        try:
            make_private_directory(root)
            _say(secure_directory(root, allowed_group))
            descriptor = _lock(root)
        except OSError as error:
            raise StorageError(f"the data directory {root} cannot be used: {error.strerror}") from error
        try:
            _secure_content(root, allowed_group)
            identity = read_identity(root)
            if identity is not None and identity.complete and identity.node_id != configured_id:
                raise IdentityError(
                    f"{root} belongs to node {identity.node_id}, but the configuration says id = {configured_id}; "
                    "correct the id, or use another raft_dir"
                )
            directory = cls(
                root, descriptor, identity or Identity(configured_id, incarnation or uuid.uuid4().hex, None, False)
            )
            if identity is None or not identity.complete:
                directory._begin(configured_id)
            else:
                directory._identity_file = file_id(os.stat(directory._identity_path))
            directory._make_subdirectories()
        except BaseException:
            os.close(descriptor)
            raise
        return directory

    @classmethod
    def open_present(cls, root: str, *, held: bool = False) -> DataDirectory:
        """Lock a directory that a node has used, for a program that only looks at it; `held` when it has the lock.

        Raises IdentityError (another process, no directory of a node), DataDamagedError, StorageError.
        """
        root = os.path.abspath(root)
        try:
            if not os.path.isdir(root):
                raise IdentityError(f"{root} is no directory")
            descriptor = os.open(os.path.join(root, "LOCK"), os.O_RDONLY | os.O_CLOEXEC) if held else _lock(root)
        except OSError as error:
            raise StorageError(f"the data directory {root} cannot be used: {error.strerror}") from error
        try:
            identity = read_identity(root)
            if identity is None or not identity.complete:
                raise IdentityError(f"{root} holds no data of a node")
            return cls(root, descriptor, identity)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def fresh(self) -> bool:
        """Whether the first start is unfinished: log and state have yet to be created."""
        return not self.identity.complete

    def complete(self, cluster_id: str | None) -> None:
        """Record that log and state exist on disk; from now on their absence is damage."""
        self._write(replace(self.identity, complete=True, cluster_id=cluster_id))

    def set_cluster_id(self, cluster_id: str) -> None:
        """Remember the cluster that this node belongs to; it never changes."""
        known = self.identity.cluster_id
        if known == cluster_id:
            return
        if known is not None:
            raise IdentityError(f"{self.root} belongs to cluster {known}, not to cluster {cluster_id}")
        self._write(replace(self.identity, cluster_id=cluster_id))

    def set_removed(self, reason: str) -> None:
        """Remember that the cluster goes on without this directory; it never changes."""
        if self.identity.removed is None:
            self._write(replace(self.identity, removed=reason))

    def files(self) -> dict[str, FileId]:
        """The files of this module by path, as this process knows them."""
        files = {os.path.join(self.root, "LOCK"): file_id(os.fstat(self._lock_descriptor))}
        if self._identity_file is not None:
            files[self._identity_path] = self._identity_file
        return files

    def damage(self) -> str:
        """What is known to be wrong with the state; empty without a note."""
        return damage_note(self.root)

    def set_damage(self, sentence: str) -> None:
        """Note it for the next start, synced; an empty sentence removes the note. Raises StorageError."""
        path = os.path.join(self.root, DAMAGE_NAME)
        try:
            if sentence:
                with open(path, "w", encoding="utf-8", opener=open_private) as file:
                    file.write(sentence + "\n")
                    file.flush()
                    sync_file(file.fileno())
            elif os.path.exists(path):
                os.unlink(path)
            sync_directory(self.root)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock_descriptor)

    def _begin(self, configured_id: int) -> None:
        base = os.path.join(self.root, "df_meta")
        if self.identity.node_id != configured_id:
            self.identity = replace(self.identity, node_id=configured_id)
        shutil.rmtree(base, ignore_errors=True)  # left by an unfinished first start, which acknowledged nothing
        self._write(self.identity)

    def _make_subdirectories(self) -> None:
        for path in (os.path.dirname(self.log_path), os.path.dirname(self.state_path), self.snapshot_directory):
            make_private_directory(path)

    def _write(self, identity: Identity) -> None:
        path = self._identity_path
        fields: dict[str, Any] = {
            "format": _FORMAT,
            "node_id": identity.node_id,
            "incarnation": identity.incarnation,
            "cluster_id": identity.cluster_id,
            "complete": identity.complete,
        }
        if identity.removed is not None:  # only then, so that a member's file is the same in every release
            fields["removed"] = identity.removed
        text = json.dumps({**fields, "checksum": _checksum(fields)}, indent=2)
        try:
            with open(path + ".tmp", "w", encoding="utf-8", opener=open_private) as file:
                file.write(text + "\n")
                file.flush()
                sync_file(file.fileno())
                written = file_id(os.fstat(file.fileno()))
            os.replace(path + ".tmp", path)
            sync_directory(self.root)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
        self.identity, self._identity_file = identity, written

    @property
    def _identity_path(self) -> str:
        return os.path.join(self.root, "node.json")


def layout(root: str) -> tuple[str, str, str]:
    """The raft log, the state, and the directory of the snapshots."""
    base = os.path.join(root, "df_meta", DATA_VERSION)
    return (
        os.path.join(base, "log", "raft.db"),
        os.path.join(base, "state", "state.db"),
        os.path.join(base, "snapshot"),
    )


def damage_note(root: str) -> str:
    """What is known to be wrong with the state in a directory; empty without a note. Needs no lock."""
    try:
        with open(os.path.join(root, DAMAGE_NAME), encoding="utf-8", errors="replace") as file:
            return file.read().strip() or "a note without text"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"the note {DAMAGE_NAME} cannot be read: {error.strerror}"


def file_id(status: os.stat_result) -> FileId:
    return status.st_dev, status.st_ino


def set_data_aside(root: str, configured_id: int, cluster_id: str, now_ms: int) -> str | None:
    """Move everything but the lock into a new directory inside `root`; returns it, None when there was nothing.

    An identity that cannot be read is no obstacle. Raises IdentityError for the directory of another node or another
    cluster, or one that is in use, StorageError when the disk refuses.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        return None
    descriptor = _lock(root)
    try:
        try:
            identity = read_identity(root)
        except DataDamagedError:
            identity = None
        if identity is not None and identity.node_id != configured_id:
            raise IdentityError(
                f"{root} belongs to node {identity.node_id}, but the configuration says id = {configured_id}"
            )
        if identity is not None and identity.cluster_id not in (None, cluster_id):
            raise IdentityError(f"{root} belongs to cluster {identity.cluster_id}, the other nodes to {cluster_id}")
        names = [name for name in ("df_meta", "node.json", DAMAGE_NAME) if os.path.exists(os.path.join(root, name))]
        if not names:
            return None
        place = os.path.join(root, f"{ASIDE_PREFIX}{now_ms}")
        os.mkdir(place, 0o700)
        for name in names:
            # The data goes first: a directory with an identity and without data is refused, and can be set aside again.
            os.rename(os.path.join(root, name), os.path.join(place, name))
        sync_directory(place)
        sync_directory(root)
        return place
    except OSError as error:
        raise StorageError(f"the data in {root} cannot be moved aside: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _say(sentence: str) -> None:
    if sentence:
        logger.warning("%s", sentence)


def _secure_content(root: str, allowed_group: int | None) -> None:
    try:
        _say(secure_tree(root, allowed_group))
    except OSError as error:
        raise StorageError(f"the data directory {root} cannot be used: {error.strerror}") from error


@contextmanager
def building_beside(root: str, now_ms: int) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Lock `root` and give an empty directory inside it, where other data is built, and what puts that in its place.

    The second moves what is there into a directory `aside-…`, which it returns, None when there was nothing. At each
    moment `root` has all of the old data, all of the new, or an identity without data, with which no node starts.
    Raises IdentityError when a process uses `root`, StorageError when the disk refuses.
    """
    root = os.path.abspath(root)
    built = os.path.join(root, BUILDING_NAME)
    place = os.path.join(root, f"{ASIDE_PREFIX}{now_ms}")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        descriptor = _lock(root)
        try:
            shutil.rmtree(built, ignore_errors=True)  # left by a program that was killed
            os.mkdir(built, 0o700)
            try:
                yield built, lambda: _replace_data(root, built, place)
            finally:
                shutil.rmtree(built, ignore_errors=True)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"the data directory {root} cannot be written: {error.strerror}") from error


def holds_data(root: str) -> bool:
    """Whether anything of a node is in the directory."""
    return any(os.path.exists(os.path.join(root, name)) for name in ("df_meta", "node.json"))


def _replace_data(root: str, built: str, place: str) -> str | None:
    names = [name for name in ("node.json", DAMAGE_NAME) if os.path.exists(os.path.join(root, name))]
    had_data = os.path.exists(os.path.join(root, "df_meta"))
    if names or had_data:
        os.mkdir(place, 0o700)
        for name in names:
            with open(os.path.join(root, name), "rb") as present, open(os.path.join(place, name), "wb") as kept:
                shutil.copyfileobj(present, kept)
                kept.flush()
                sync_file(kept.fileno())
        if had_data:
            os.rename(os.path.join(root, "df_meta"), os.path.join(place, "df_meta"))
        sync_directory(place)
    os.rename(os.path.join(built, "df_meta"), os.path.join(root, "df_meta"))
    sync_directory(root)
    os.replace(os.path.join(built, "node.json"), os.path.join(root, "node.json"))
    if DAMAGE_NAME in names:
        os.unlink(os.path.join(root, DAMAGE_NAME))
    sync_directory(root)
    return place if names or had_data else None


def _lock(root: str) -> int:
    descriptor = open_private(os.path.join(root, "LOCK"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise IdentityError(f"{root} is in use by another running metasrv process") from error
        raise
    return descriptor


def read_identity(root: str) -> Identity | None:
    """Whom the directory belongs to; None for one that is empty. Needs no lock. Raises DataDamagedError."""
    path = os.path.join(root, "node.json")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        if os.path.exists(os.path.join(root, "df_meta")):
            raise DataDamagedError(path, "the whole file", "is missing although data is present", _ADVICE) from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataDamagedError(path, "the whole file", f"cannot be read: {error}", _ADVICE) from error
    try:
        fields = json.loads(text)
        if fields["format"] != _FORMAT:
            raise DataDamagedError(
                path, "format", f"is {fields['format']!r}, this version of metasrv knows {_FORMAT}", _ADVICE
            )
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise DataDamagedError(path, "the whole file", "does not match its checksum", _ADVICE)
        return Identity(
            int(fields["node_id"]),
            str(fields["incarnation"]),
            fields["cluster_id"],
            bool(fields["complete"]),
            fields.get("removed"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataDamagedError(path, "the whole file", "is not an identity that metasrv wrote", _ADVICE) from error


def _checksum(fields: dict[str, Any]) -> int:
    """Guards the fields: JSON with a wrong incarnation or cluster is still valid, and would silently cut the node off."""
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())
