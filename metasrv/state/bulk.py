"""Making a state file that no entry wrote: records by the batch, and what a new cluster begins with.

For restores, in a program of its own: nobody else has the file open, and a file that is not finished is thrown away. What
the entries keep (counts, digest, the checksum over the small tables) is kept here too, so that checks, comparisons and
conversions hold for such a file as for any other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.model.types import I64_MAX, LogId, Membership, Node
from metasrv.process.operating_system import sync_file
from metasrv.state.copying import copy_live
from metasrv.state.digest import DIGEST_MASK, record_share
from metasrv.state.expiry import expire_ms_of
from metasrv.state.format import (
    INLINE_SIZE_BYTES_MAX,
    META_APPLIED,
    META_CLUSTER_ID,
    META_MEMBERSHIP,
    META_REGISTRY,
    META_SIZE,
    META_TAIL,
    Applied,
    applied_out,
    key_size_bytes,
    membership_out,
    record_checksum,
    seal,
    size_out,
)
from metasrv.state.registry import load_registry, nodes_by_id, registry_out
from metasrv.state.state_file import create_draft
from metasrv.state.storage_faults import fault
from metasrv.state.store import SET_META, Store, connect, sync_directory

_CACHE_SIZE_KIB = 32 * 1024


class BulkRecord(NamedTuple):
    """One record of a backup."""

    key: str
    seq: int
    expire_at: int | None
    proposed_at_ms: int
    data: bytes


class StateBuilder:
    """Fills a new state file. Fastest when records come in the order of their keys, as exports have them."""

    def __init__(self, path: str) -> None:
        """Begin the file in the place of an unfinished one. Raises StorageError."""
        self._path = path
        self.key_count = self.expire_count = self.seq_max = self.time_ms = 0
        self._digest = self._data_size_bytes = 0
        try:
            self._connection = create_draft(path)
            # A file that a crash cuts short is thrown away, so it needs neither journal nor syncs before its end.
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_SIZE_KIB}"):
                self._connection.execute(f"PRAGMA {pragma}").fetchall()
            self._connection.execute("BEGIN")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{path}: the state file could not be made: {error}") from error

    def add(self, records: Sequence[BulkRecord]) -> None:
        """Store records. Raises DataDamagedError when a key or a sequence number stands twice, StorageError."""
        rows: list[tuple[object, ...]] = []
        large: list[tuple[int, bytes]] = []
        digest = 0
        for key, seq, expire_at, proposed_at_ms, data in records:
            checksum = record_checksum(key, seq, expire_at, proposed_at_ms, data)
            digest += record_share(seq, checksum)
            self._data_size_bytes += key_size_bytes(key) + len(data)
            expire_ms: int | None = None
            stored: int | str | None = expire_at
            if expire_at is not None:
                expire_ms = expire_ms_of(expire_at)
                stored = expire_at if expire_at <= I64_MAX else str(expire_at)
                self.expire_count += 1
            inline: bytes | None = data
            if len(data) > INLINE_SIZE_BYTES_MAX:
                large.append((seq, data))
                inline = None
            self.seq_max = max(self.seq_max, seq)
            self.time_ms = max(self.time_ms, proposed_at_ms)
            rows.append((key, seq, expire_ms, stored, proposed_at_ms, checksum, inline))
        self.key_count += len(rows)
        self._digest = (self._digest + digest) & DIGEST_MASK
        try:
            self._connection.executemany("INSERT INTO kv VALUES(?, ?, ?, ?, ?, ?, ?)", rows)
            if large:
                self._connection.executemany("INSERT INTO large VALUES(?, ?)", large)
        except sqlite3.IntegrityError as error:
            keys = f"{records[0].key!r} to {records[-1].key!r}"
            raise DataDamagedError(
                self._path, f"keys {keys}", "a key or a sequence number stands twice in the backup", "use another backup"
            ) from error
        except sqlite3.Error as error:
            raise fault(self._path, error) from error

    def finish(self, log_id: LogId, time_ms: int, seq: int) -> Applied:
        """Close the file as the entry `log_id` would have left it, synced; `seq` is raised to that of the records."""
        applied = Applied(
            log_id,
            max(time_ms, self.time_ms),
            max(seq, self.seq_max),
            self.key_count,
            self.expire_count,
            self._digest,
            self._data_size_bytes,
        )
        try:
            self._connection.execute(SET_META, (META_APPLIED, applied_out(applied)))
            self._connection.execute(SET_META, (META_SIZE, size_out(applied)))
            self._connection.execute("COMMIT")
            self._connection.close()
            _sync(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: the state file could not be finished: {error}") from error
        return applied

    def close(self) -> None:
        """Give an unfinished file up; harmless for a finished one."""
        self._connection.close()


class Beginning(NamedTuple):
    """What a state says of its cluster, in the place of what it said before."""

    log_id: LogId
    """The last entry it has applied."""
    membership_log_id: LogId
    membership: Membership
    nodes: Sequence[Node]
    cluster_id: str | None
    features: Sequence[str] | None = None
    """The features that are on; None for those that the file has."""
    secrets: Mapping[str, bytes] | None = None
    """The replicated secrets; None for those that the file has."""


def give_beginning(path: str, beginning: Beginning) -> Applied:
    """Let the closed state file at `path` belong to another cluster; records stay as they are.

    Synced. Returns what the file has applied. Raises DataDamagedError or StorageError.
    """
    try:
        store = Store(path, connect(path))
        try:
            store.begin()
            applied = store.applied()._replace(log_id=beginning.log_id)
            registry = replace(load_registry(store), nodes=nodes_by_id(list(beginning.nodes)))
            if beginning.features is not None:
                registry = replace(registry, features=tuple(sorted(set(beginning.features))))
                store.execute("DELETE FROM features")
                for name in registry.features:
                    store.execute("INSERT INTO features VALUES(?)", (name,))
            if beginning.secrets is not None:
                registry = replace(registry, secrets=MappingProxyType(dict(sorted(beginning.secrets.items()))))
                store.execute("DELETE FROM secrets")
                for name, secret in registry.secrets.items():
                    store.execute("INSERT INTO secrets VALUES(?, ?)", (name, seal(secret)))
            store.execute("DELETE FROM nodes")
            for node in registry.nodes.values():
                store.execute("INSERT INTO nodes VALUES(?, ?)", (str(node.node_id), seal(node)))
            store.execute("DELETE FROM meta WHERE name IN (?, ?)", (META_TAIL, META_CLUSTER_ID))
            store.set_meta(META_APPLIED, applied_out(applied))
            store.set_meta(META_REGISTRY, registry_out(registry))
            store.set_meta(META_MEMBERSHIP, membership_out(beginning.membership_log_id, beginning.membership))
            if beginning.cluster_id is not None:
                store.set_meta(META_CLUSTER_ID, seal(beginning.cluster_id))
            store.commit()
        finally:
            store.close()
        _sync(path)
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except OSError as error:
        raise StorageError(f"{path}: the state file could not be changed: {error}") from error
    return applied


def applied_of(path: str) -> Applied:
    """What the closed state file at `path` has applied. Raises DataDamagedError or StorageError."""
    try:
        store = Store(path, connect(path))
        try:
            return store.applied()
        finally:
            store.close()
    except sqlite3.Error as error:
        raise fault(path, error) from error


def copy_state(source: str, destination: str) -> None:
    """Copy what is live in the closed state file `source`, in the present format, to a new file, synced.

    Raises DataDamagedError or StorageError.
    """
    try:
        store = Store(source, connect(source))
        try:
            store.execute("BEGIN")
            copy_live(store, destination, values_inside=False)
        finally:
            store.close()
        _sync(destination)
    except sqlite3.Error as error:
        raise fault(source, error) from error
    except OSError as error:
        raise StorageError(f"{destination}: the state could not be copied: {error}") from error


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path)
