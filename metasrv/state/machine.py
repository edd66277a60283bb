"""The replicated state machine: log entries in, replies out, everything on one SQLite file (invariants 2 and 3).

`apply_entry` is the only way the state changes. SQLite stores an entry's effects and position in one transaction, which
several entries may share (`commits_later`), so replay after a crash continues exactly after what is there. Reads no clock
and no randomness: the same entries give the same state on every node. Knows of Raft only positions. Runs on the loop.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter

from metasrv.model import commands as c
from metasrv.model.entries import Entry, MembershipEntry, RegularEntry
from metasrv.model.errors import InvariantError, StorageError
from metasrv.model.types import LogId, Membership, Node, SeqV, WriteLimits
from metasrv.state.cached_store import CachedStore, closed_on_error, open_cached_store
from metasrv.state.command_faults import CommandFaultError, apply_guarded
from metasrv.state.conversion import convert_state
from metasrv.state.damage import check_file, damaged
from metasrv.state.effects import EntryEffects, follow_all
from metasrv.state.expiry import TIME_MS_MAX, unless_expired
from metasrv.state.format import (
    META_APPLIED,
    META_CLUSTER_ID,
    META_MEMBERSHIP,
    META_REGISTRY,
    META_TAIL,
    Applied,
    SnapshotTail,
    applied_out,
    membership_out,
    prefix_end,
    seal,
    tail_in,
)
from metasrv.state.install import OldFiles, begin_install, finish_install
from metasrv.state.instants import Instant, Instants
from metasrv.state.open_checks import check_small_file, rows_fit, with_sums
from metasrv.state.reader import StateReader, read_cluster_id, read_membership
from metasrv.state.registry import Registry, load_registry, registry_out
from metasrv.state.snapshot import tail_fits
from metasrv.state.state_file import StateFileSizes, check_schema, create_file, file_sizes
from metasrv.state.state_hash import state_hash
from metasrv.state.storage_faults import fault
from metasrv.state.store import FILE_SWAP
from metasrv.state.touched import Touched
from metasrv.state.views import Views
from metasrv.state.watch import WatchHub

FULL_CHECK_SIZE_BYTES_MAX = 64 * 1024 * 1024
"""Up to this size a start walks the whole state file: some 100 ms for 100,000 records of 256 bytes."""


class StateMachine:
    """The whole replicated state of one node; made by `open`. Attributes show what the last commit left."""

    def __init__(self, path: str, store: CachedStore) -> None:
        self.path = path
        self._store = store
        self.commits_later = False
        """Entries stay in an open transaction until `commit`, which whoever sets this calls soon."""
        self.committed: Callable[[float], None] = lambda _seconds: None  # told how long each commit to the file took
        self.installs = 0  # how often another file has taken the state file's place
        self.writes_refused = 0  # commands that the cluster's limits kept out, since this start
        self._applied = Applied()
        self._registry = Registry()
        self._expiry_floor_ms = 0
        """No record expires before this; it may be too early, never too late."""
        self.membership_log_id = LogId()
        self.membership = Membership()
        self.cluster_id: str | None = None
        self.watches = WatchHub(self._read_watch_page)
        self.touched = Touched()
        self.views = Views()
        self.instants = Instants(self.get)
        self._load()

    @classmethod
    def open(cls, path: str) -> StateMachine:
        """Open the state file, or create an empty one where there is none.

        Finishes an installation that a crash interrupted, and converts a file of an earlier format. Raises
        DataDamagedError for a file that is empty, foreign, cut off or damaged, StorageError when the disk refuses.
        """
        try:
            finish_install(path)
            if not os.path.exists(path):
                if os.path.exists(f"{path}-wal"):
                    raise damaged(path, "whole file", "the file is gone, but its write-ahead log is there")
                create_file(path)
            check_file(path)
            convert_state(path)
            with closed_on_error(open_cached_store(path)) as store:
                machine = cls(path, store)
                if sum(machine.file_sizes()) <= FULL_CHECK_SIZE_BYTES_MAX:
                    check_small_file(path, store, machine._applied)
            return machine
        except OSError as error:
            raise StorageError(f"{path}: the state file could not be opened: {error}") from error
        except sqlite3.Error as error:
            raise fault(path, error) from error

    def close(self) -> None:
        """End all watches and close the file."""
        self.watches.reset("the node is shutting down")
        try:
            if not self._store.lost:
                self.commit()
        finally:
            self._store.close()

    @property
    def last_applied(self) -> LogId:
        return self._applied.log_id

    @property
    def last_time_ms(self) -> int:
        """Highest log time so far; it never goes back."""
        return self._applied.time_ms

    @property
    def last_seq(self) -> int:
        """Last sequence number given out."""
        return self._applied.seq

    @property
    def key_count(self) -> int:
        return self._applied.key_count

    @property
    def expire_count(self) -> int:
        """Records that carry an expiry."""
        return self._applied.expire_count

    def state_hash(self) -> bytes:
        """The same on every node that has applied the same entries (`state_hash.py`)."""
        return state_hash(self._applied, self._registry, self.membership)

    def rows_fit(self) -> bool:
        """Whether the rows are those that the entries left, by number and digest; reads every key."""
        return rows_fit(self._store, self._applied)

    @property
    def nodes(self) -> Mapping[int, Node]:
        """Registered nodes by id, ascending."""
        return self._registry.nodes

    @property
    def features(self) -> tuple[str, ...]:
        """Sorted names of the features that are on."""
        return self._registry.features

    @property
    def limits(self) -> WriteLimits:
        """What the cluster refuses."""
        return self._registry.limits

    @property
    def data_size_bytes(self) -> int:
        """All keys and values."""
        return self._applied.data_size_bytes

    @property
    def secrets(self) -> Mapping[str, bytes]:
        """Replicated secrets by name; another mapping after each change."""
        return self._registry.secrets

    def free_size_bytes(self) -> tuple[int, int]:
        """Bytes of the state file that hold nothing, and of all of it once its write-ahead log is moved."""
        with self._store.faults():
            return self._store.free_size_bytes()

    def give_back_space(self, pages: int) -> None:
        """Shorten the state file by up to so many of its free pages; changes nothing that anybody reads.

        Raises StorageError or DataDamagedError.
        """
        self.commit()
        with self._store.faults():
            self._store.give_back(pages)

    def file_sizes(self) -> StateFileSizes:
        """What is on disk at this moment."""
        return file_sizes(self.path)

    # ------------------------------------------------------------------------- applying

    def apply_entry(self, log_id: LogId, entry: Entry) -> tuple[c.Reply, ...]:
        """Apply one committed entry: all its effects and its position, or nothing.

        Returns one reply for each command. A command that asks for something impossible is answered with ErrorReply and
        changes nothing. Raises InvariantError when `log_id` is not the next position, StorageError when the disk refuses
        (the transaction is rolled back), DataDamagedError when a record that is needed proves damaged.
        """
        last = self._applied.log_id
        if log_id.index != last.index + 1 or log_id.term < last.term:
            raise InvariantError(f"entry {log_id} cannot be applied after {last}: it is not the next one")
        refused: dict[int, str] = {}
        try:
            while True:
                try:
                    if isinstance(entry, RegularEntry):
                        replies = self._apply_commands(log_id, entry, refused)
                    else:
                        replies = self._apply_unstamped(log_id, entry)
                    if not self.commits_later:
                        self._store.flush()
                    return replies
                except CommandFaultError as command_fault:
                    refused[command_fault.position] = command_fault.text
        except sqlite3.Error as error:
            raise fault(self.path, error) from error

    def _apply_commands(self, log_id: LogId, entry: RegularEntry, refused: dict[int, str]) -> tuple[c.Reply, ...]:
        store = self._store
        time_ms = min(max(entry.time_ms, self._applied.time_ms), TIME_MS_MAX)
        follows = follow_all if self.instants else self.watches.concerns if self.watches.count else None
        effects = EntryEffects(store, self._applied, self._registry, time_ms, follows, bool(self.touched))
        replies: list[c.Reply] = []
        store.begin()
        try:
            if entry.commands and not self._registry.is_migrating:
                # One sweep serves all commands: they share their time, and none can store what has expired by then.
                effects.sweep()
            for position, command in enumerate(entry.commands):
                if position in refused:
                    replies.append(c.ErrorReply(refused[position]))
                else:
                    replies.append(apply_guarded(effects, position, command))
            applied = effects.applied(log_id)
            store.set_meta(META_APPLIED, applied_out(applied))
            if applied.digest != self._applied.digest:
                store.set_size(applied)
            if effects.registry is not self._registry:
                store.set_meta(META_REGISTRY, registry_out(effects.registry))
            store.commit()
        except BaseException:
            store.rollback()
            raise
        self._applied = applied
        self._registry = effects.registry
        self.touched.tell(effects.changes, effects.emptied)
        self.writes_refused += effects.refused
        self.instants.changed(log_id.index, effects.changes)
        if effects.earliest_expire_ms is not None:
            self._expiry_floor_ms = min(self._expiry_floor_ms, effects.earliest_expire_ms)
        if follows is not None and effects.changes:
            self.watches.publish(effects.changes)
        return tuple(replies)

    def _apply_unstamped(self, log_id: LogId, entry: Entry) -> tuple[c.Reply, ...]:
        """A no-op or a membership: no time, so no expiry."""
        applied = self._applied._replace(log_id=log_id)
        self._store.begin()
        try:
            self._store.set_meta(META_APPLIED, applied_out(applied))
            if isinstance(entry, MembershipEntry):
                self._store.set_meta(META_MEMBERSHIP, membership_out(log_id, entry.after))
            self._store.commit()
        except BaseException:
            self._store.rollback()
            raise
        self._applied = applied
        if isinstance(entry, MembershipEntry):
            self.membership_log_id, self.membership = log_id, entry.after
        return ()

    @property
    def uncommitted(self) -> int:
        """Applied entries that other connections to the file do not see yet."""
        return self._store.uncommitted

    def commit(self) -> None:
        """Let other connections see what is applied, and syncs reach it.

        Raises StorageError when the disk refuses: answered entries are lost here then, and reads raise it as well.
        """
        started = perf_counter()
        with self._store.faults():
            if self._store.flush():
                self.committed(perf_counter() - started)

    def expires_before(self, time_ms: int) -> bool:
        """Whether an entry of log time `time_ms` would delete something that has expired; mostly answered from memory."""
        if not self._applied.expire_count or self._expiry_floor_ms >= time_ms or self._registry.is_migrating:
            return False
        with self._store.faults():
            earliest_ms = self._store.earliest_expire_ms()
        self._expiry_floor_ms = TIME_MS_MAX if earliest_ms is None else earliest_ms
        return self._expiry_floor_ms < min(time_ms, TIME_MS_MAX)

    def get(self, key: str, now_ms: int) -> SeqV | None:
        """The record, unless it has expired by `now_ms`."""
        with self._store.faults():
            return unless_expired(self._store.read(key), now_ms)

    def get_many(self, keys: Iterable[str], now_ms: int) -> list[SeqV | None]:
        """One item for each key, in the order asked for, duplicates repeated."""
        with self._store.faults():
            read = self._store.read
            return [unless_expired(read(key), now_ms) for key in keys]

    def list_prefix(self, prefix: str, limit: int | None, now_ms: int) -> list[tuple[str, SeqV]]:
        """Records whose key starts with `prefix`, in key order, at most `limit`; None is all of them."""
        with self._store.faults():
            return self._store.scan(prefix, prefix_end(prefix), None, limit, now_ms)

    def list_range(
        self, start: str, end: str | None, after_key: str | None, page_size: int, now_ms: int
    ) -> list[tuple[str, SeqV]]:
        """A page of [start, end) after `after_key`; shorter than `page_size` only at the end.

        Pages that are read with entries in between show different instants; `open_reader` gives a single one.
        """
        with self._store.faults():
            return self._store.scan(start, end, after_key, page_size, now_ms)

    def open_reader(self) -> StateReader:
        """A read-only view pinned to this instant, for a helper thread; the caller closes it."""
        self.commit()
        return StateReader(self.path, self.views)

    def open_instant(self) -> Instant:
        """The records of this instant, for some reads on the loop; costs next to nothing. The caller closes it."""
        return self.instants.open(self.last_applied.index)

    def _read_watch_page(
        self, start: str, end: str | None, after_key: str | None, limit: int
    ) -> tuple[list[tuple[str, SeqV]], bool]:
        with self._store.faults():
            return self._store.scan_page(start, end, after_key, limit)

    def set_cluster_id(self, cluster_id: str) -> None:
        """Remember the cluster of this state. Raises InvariantError when it already belongs to another."""
        if self.cluster_id == cluster_id:
            return
        if self.cluster_id is not None:
            raise InvariantError(f"{self.path}: the state is of cluster {self.cluster_id}, not of {cluster_id}")
        with self._store.faults():
            self._store.flush()
            self._store.set_meta(META_CLUSTER_ID, seal(cluster_id))
        self.cluster_id = cluster_id

    def install(self, path: str) -> SnapshotTail:
        """Replace the whole state by a verified snapshot file, which is used up; returns the tail it carries.

        Takes a few milliseconds, whatever the size. All watches end with WatchReset. Raises InvariantError for a
        snapshot that is not newer than the state, StorageError when the disk refuses.
        """
        old = self._store
        begin_install(path, self.path)
        self.touched.tell_everything()
        old_files = OldFiles(self.path)
        with FILE_SWAP:
            finish_install(self.path)
            old.close()
            old_files.dispose()
            self.installs += 1
            try:
                self._store = open_cached_store(self.path)
                self._load()
            except sqlite3.Error as error:
                raise fault(self.path, error) from error
        reason = "the state was replaced by a snapshot from the leader"
        self.watches.reset(reason)
        self.instants.lose_all(f"{reason}; read again")
        tail = self.installed_tail()
        if tail is None:
            raise damaged(self.path, "meta tail", "the installed snapshot carries no end of the log")
        return tail

    def installed_tail(self) -> SnapshotTail | None:
        """The tail of the installed snapshot while nothing has been applied on top of it."""
        with self._store.faults():
            data = self._store.meta(META_TAIL)
        if data is None:
            return None
        tail: SnapshotTail = self._store.parsed("meta tail", tail_in, data)
        return tail if tail_fits(tail, self._applied.log_id) else None

    def _load(self) -> None:
        """Fill the memory from the file."""
        store = self._store
        try:
            check_schema(self.path, store.connection)
            self._applied = with_sums(store, store.applied())
            self._expiry_floor_ms = 0
            self._registry = load_registry(store)
            self.membership_log_id, self.membership = read_membership(store)
            self.cluster_id = read_cluster_id(store)
            # Touch both ends of the records and of the expire index: cheap, and a mangled root is found now.
            store.execute("SELECT min(key) FROM kv").fetchall()
            store.execute("SELECT max(key) FROM kv").fetchall()
            store.execute("SELECT max(expire_ms) FROM kv WHERE expire_ms IS NOT NULL").fetchall()
        except BaseException:
            store.close()
            raise
