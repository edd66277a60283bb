"""What a data directory holds, read without its lock: of a stopped node, or of one that runs and is not disturbed.

Reads versions, the small tables of the state, and which commands the log has. Nothing is written, and no file is made in
the directory. What a node changes meanwhile is read again. Runs in a program of its own.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry, decode_entry
from metasrv.model.errors import CodecError, DataDamagedError, FatalError, IdentityError, StorageError
from metasrv.model.releases import LOG_GIVING_SPACE_BACK, LOG_KEEPING_SPACE, THIS, Format
from metasrv.model.types import LogId
from metasrv.process.data_directory import Identity, damage_note, layout, read_identity
from metasrv.raft.log.format import APPLICATION_ID as LOG_APPLICATION_ID
from metasrv.raft.log.format import CONTENT, INDEX, wal_path
from metasrv.raft.log.salvage import BadEntry, salvage
from metasrv.state.damage import ADVICE
from metasrv.state.format import APPLICATION_ID as STATE_APPLICATION_ID
from metasrv.state.registry import Registry, load_registry
from metasrv.state.snapshot import open_snapshot
from metasrv.state.storage_faults import fault
from metasrv.state.store import Store

LOOKS_MAX = 5
"""How often a directory is read until nothing changed under the reader's hands."""
PAUSE_SECONDS = 0.2
_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE_BYTES = 100
_VACUUM, _VERSION, _APPLICATION_ID = slice(52, 56), slice(60, 64), slice(68, 72)
_WAL_HEADER_SIZE_BYTES = 32


class LoggedEntry(NamedTuple):
    """What matters of an entry of commands."""

    log_index: int
    names: frozenset[str]
    """Its commands, and the operations of its transactions, by the names of their types."""
    switched: tuple[tuple[str, bool], ...]
    """Features that it turns on or off."""


class Seen(NamedTuple):
    """A directory as it was at one moment."""

    root: str
    identity: Identity
    damage: str
    """What is noted to be wrong with the state; mostly empty."""
    log_version: str
    first_index: int
    last_index: int
    entries: list[LoggedEntry]
    unreadable: list[str]
    """A sentence for each entry that this release cannot read."""
    state_version: str
    replacing: bool
    """A snapshot was chosen to take the state's place, which the next start does."""
    applied: LogId
    registry: Registry
    snapshot_versions: dict[str, str]
    """By the name of the file."""


def look_at(root: str, pause: Callable[[float], None] = time.sleep) -> Seen:
    """Read the directory, with pauses in between if it has to be read again.

    Raises IdentityError (no node's), DataDamagedError (also when a newer release wrote it), StorageError.
    """
    root = os.path.abspath(root)
    failure: FatalError | None = None
    for look in range(LOOKS_MAX):
        if look:
            pause(PAUSE_SECONDS)
        try:
            return _look(root)
        except (DataDamagedError, StorageError) as error:
            failure = error  # of a running node perhaps only of this moment
    raise failure or StorageError(f"{root} could not be read")


def _look(root: str) -> Seen:
    if not os.path.isdir(root):
        raise IdentityError(f"{root} is no directory")
    identity = read_identity(root)
    if identity is None or not identity.complete:
        raise IdentityError(f"{root} holds no data of a node")
    log_path, state_path, snapshot_directory = layout(root)
    try:
        # The state first: the log holds what the state has applied, also when both grow meanwhile.
        with _state(state_path) as store:
            state_version = str(store.execute("PRAGMA user_version").fetchone()[0])
            _refuse_newer(state_path, Format.STATE, state_version)
            applied, registry = store.applied().log_id, load_registry(store)
        log_version = _log_version(log_path)
        _refuse_newer(log_path, Format.LOG, log_version)
        indexes, entries, unreadable = _entries(log_path)
        snapshots = _snapshot_versions(snapshot_directory)
    except sqlite3.Error as error:
        raise fault(state_path, error) from error
    except OSError as error:
        raise StorageError(f"{root} cannot be read: {error}") from error
    return Seen(
        root,
        identity,
        damage_note(root),
        log_version,
        indexes[0],
        indexes[-1],
        entries,
        unreadable,
        state_version,
        os.path.exists(f"{state_path}.install"),
        applied,
        registry,
        snapshots,
    )


def _refuse_newer(path: str, kind: Format, version: str) -> None:
    known = THIS.formats[kind].reads
    if version not in known:
        what = f"the file has format {version}, this version of metasrv reads {' or '.join(known)}"
        raise DataDamagedError(path, "user version", what, "ask the release that wrote it, by its own command")


def _header(path: str, application_id: int) -> bytes:
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER_SIZE_BYTES)
    except FileNotFoundError:
        raise DataDamagedError(path, "file", "missing, although this data directory was in use before", ADVICE) from None
    if header[: len(_MAGIC)] != _MAGIC or int.from_bytes(header[_APPLICATION_ID], "big") != application_id:
        raise DataDamagedError(path, "application id", "this file was not written by metasrv", ADVICE)
    return header


# ----------------------------------------------------------------------------- the log


def _log_version(path: str) -> str:
    header = _header(path, LOG_APPLICATION_ID)
    version = str(int.from_bytes(header[_VERSION], "big"))
    gives_space_back = any(header[_VACUUM])
    return LOG_GIVING_SPACE_BACK if gives_space_back and version == LOG_KEEPING_SPACE else version


def _entries(path: str) -> tuple[list[int], list[LoggedEntry], list[str]]:
    """First and last index, the entries of commands, and what this release cannot read."""
    before = _fingerprint(path)
    indexes: list[int] = []
    entries: list[LoggedEntry] = []
    unreadable: list[str] = []
    for found in salvage(path):
        if isinstance(found, BadEntry):
            raise DataDamagedError(path, f"entry {found.log_index or '?'}", found.what, ADVICE)
        index = found[INDEX]
        indexes = [indexes[0] if indexes else index, index]
        try:
            entry = decode_entry(found[CONTENT])
        except CodecError as error:
            unreadable.append(f"entry {index} cannot be read: {error}")
            continue
        if isinstance(entry, RegularEntry):
            entries.append(_facts(index, entry))
    if before != _fingerprint(path):
        raise StorageError(f"{path} changes all the time; ask again when the node has less to do, or is stopped")
    if not indexes:
        raise DataDamagedError(path, "table entries", "it is empty", ADVICE)
    return indexes, entries, unreadable


def _fingerprint(path: str) -> tuple[object, ...]:
    """Changes when entries move from the write-ahead log into the database; new ones may come at its end."""
    status = os.stat(path)
    wal = b""
    if os.path.exists(wal_path(path)):
        with open(wal_path(path), "rb") as file:
            wal = file.read(_WAL_HEADER_SIZE_BYTES)
    return status.st_ino, status.st_size, status.st_mtime_ns, wal


def _facts(index: int, entry: RegularEntry) -> LoggedEntry:
    names: set[str] = set()
    switched = []
    for command in entry.commands:
        names.add(type(command).__name__)
        names.update(type(operation).__name__ for operation in _operations(command))
        if isinstance(command, c.SetFeature):
            switched.append((command.feature, command.enable))
    return LoggedEntry(index, frozenset(names), tuple(switched))


def _operations(command: c.Command) -> Iterator[c.TransactionOperation]:
    if isinstance(command, c.Transaction | c.BranchTransaction):
        for branch in command.branches:
            yield from branch.operations
    if isinstance(command, c.Transaction):
        yield from command.if_then
        yield from command.else_then


# ----------------------------------------------------------------------------- state and snapshots


@contextmanager
def _state(path: str) -> Iterator[Store]:
    """The state, read-only. A node may write to it: its write-ahead log is read along, and no side file is made."""
    _header(path, STATE_APPLICATION_ID)
    if not os.path.exists(f"{path}-wal"):
        store = open_snapshot(path)  # of a node that was stopped in order: nobody writes
    elif os.path.exists(f"{path}-shm"):
        store = _open_beside(path)
    else:  # a copy without the index of its write-ahead log, which SQLite would write beside it
        with tempfile.TemporaryDirectory(prefix="metasrv-") as place:
            copied = os.path.join(place, "state.db")
            shutil.copyfile(path, copied)
            shutil.copyfile(f"{path}-wal", f"{copied}-wal")
            store = _open_beside(copied)
            try:
                yield store
            finally:
                store.close()
        return
    try:
        yield store
    finally:
        store.close()


def _open_beside(path: str) -> Store:
    connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
    return Store(path, connection)


def _snapshot_versions(directory: str) -> dict[str, str]:
    versions = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.endswith(".snap"):
            try:
                header = _header(os.path.join(directory, name), STATE_APPLICATION_ID)
            except DataDamagedError:
                if os.path.exists(os.path.join(directory, name)):
                    raise
                continue  # a running node removed it
            versions[name] = str(int.from_bytes(header[_VERSION], "big"))
    return versions
