"""The raft log as the engine sees it: pysyncobj's `Journal`, in memory, with a list of what the disk still lacks.

Runs on the event loop and touches the disk only when it is opened: `take_pending` hands the changes to the driver, which
has a `LogWriter` execute them in the storage thread and holds every vote and acknowledgement until it is done (invariant
1). Knows nothing of what entries mean, except that the engine's bare no-op is replaced by one that names its leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import overload

from pysyncobj.journal import Journal

from metasrv.model.errors import InvariantError
from metasrv.model.types import RaftLogStatus
from metasrv.raft.log.checks import check_applied
from metasrv.raft.log.files import OpenedLog, open_log
from metasrv.raft.log.format import CONTENT, INDEX, NUMBER_MAX, TERM, LogEntry, LogFileSizes, PendingWrite
from metasrv.raft.log.writer import CHECKPOINT_SIZE_BYTES, LogWriter

__all__ = ["LogStore", "LogWriter", "PendingWrite"]

_BARE_NOOP = b"\x01"
_ENTRY_OVERHEAD_BYTES = 168
"""A bytes object, a tuple, two integers and a list slot."""
_ENTRIES_KEPT_MIN = 2
"""The engine compares new entries with the one before them, and a snapshot carries two."""
_PURGE_ENTRIES_MAX = 512
_PURGE_SIZE_BYTES_MAX = 4 * 1024 * 1024
"""Limits of what is purged along with one write, so that no write waits long for it."""
_COMPACT_ENTRIES_MIN = 1024


class LogStore(Journal):  # type: ignore[misc]  # pysyncobj is untyped
    """The log, the term and the vote. Entries are (content, index, term), their indexes without holes."""

    def __init__(self, path: str, opened: OpenedLog) -> None:
        entries, meta, self._written = opened.contents
        self.path = path
        self.noop_content: bytes | None = None
        """What the engine's own bare no-op becomes when it is added at an index above 1."""
        self.commit_floor: Callable[[], int] = self.getRaftCommitIndex
        """The highest index known to be committed; nothing at or below it is ever cut off the end (D12)."""
        self._mark = opened.mark
        self._writer: LogWriter | None = None
        self._entries: list[LogEntry | None] = list(entries)
        self._head = 0
        self._content_bytes = sum(len(entry[CONTENT]) for entry in entries)
        self._first_index = entries[0][INDEX]
        # Entries before the first one were purged because they had been committed and applied.
        self._commit_index = self._first_index
        self._term = meta.term
        self._voted_for = meta.voted_for
        self._term_changed = False
        self._disk_first_index = self._first_index
        self._unwritten_from = entries[-1][INDEX] + 1
        self._delete_from: int | None = None
        self._delete_all = False
        self._purge_cuts: deque[int] = deque()
        self._purge_due = False

    @classmethod
    def open(cls, path: str, *, create_entries: Sequence[LogEntry] | None) -> LogStore:
        """Read and check the log, or create it durably; at start only, because it reads and writes files.

        `create_entries` is None when the data directory was in use before, so that a missing log is damage. Raises
        DataDamagedError, IdentityError (another process has the log open), StorageError.
        """
        return cls(path, open_log(path, create_entries))

    def open_writer(self, checkpoint_size_bytes: int = CHECKPOINT_SIZE_BYTES) -> LogWriter:
        """The one writer, for the storage thread; at start only. It holds the lock until it is closed."""
        if self._writer is not None:
            raise InvariantError("the raft log already has a writer")
        self._writer = LogWriter(self.path, self._mark, self._written, checkpoint_size_bytes)
        return self._writer

    def check_against_state(self, applied_index: int) -> None:
        """Raises DataDamagedError when the log ends before what the state has applied, which it had to hold first."""
        check_applied(self.path, self.last_index, applied_index)

    # ------------------------------------------------------------------ reading

    @property
    def first_index(self) -> int:
        return self._first_index

    @property
    def last_index(self) -> int:
        # Read dozens of times a write, so without the detour over `len(self)`.
        return self._first_index + len(self._entries) - self._head - 1

    @property
    def last_term(self) -> int:
        return self[-1][TERM]

    @property
    def bytes_in_memory(self) -> int:
        return self._content_bytes + len(self) * _ENTRY_OVERHEAD_BYTES

    def __len__(self) -> int:
        return len(self._entries) - self._head

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...

    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...

    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        """By position, not by index, as in a list."""
        count = len(self._entries) - self._head
        if isinstance(item, slice):
            positions = range(count)[item]
            return [self._at(position) for position in positions]
        if not -count <= item < count:
            raise IndexError("log position out of range")
        return self._at(item if item >= 0 else count + item)

    def _at(self, position: int) -> LogEntry:
        entry = self._entries[self._head + position]
        if entry is None:
            raise InvariantError(f"log position {position} was purged")
        return entry

    def entry_at(self, index: int) -> LogEntry | None:
        """The entry with this index, or None when the log does not hold it."""
        position = index - self._first_index + self._head
        return self._entries[position] if self._head <= position < len(self._entries) else None

    def entries_from(self, index: int, size_bytes_max: int) -> list[LogEntry]:
        """Entries from `index` on: at least one if there is one, then as many as stay within the size."""
        if index < self._first_index:
            return []
        entries: list[LogEntry] = []
        size_bytes = 0
        for position in range(index - self._first_index, len(self)):
            entry = self._at(position)
            size_bytes += len(entry[CONTENT])
            if entries and size_bytes > size_bytes_max:
                break
            entries.append(entry)
        return entries

    # ------------------------------------------------------------------ changing

    def add(self, command: bytes, idx: int, term: int) -> None:
        if command == _BARE_NOOP and idx > 1 and self.noop_content is not None:
            command = self.noop_content
        if len(self) == 0:
            self._first_index = self._unwritten_from = idx
        elif idx != self.last_index + 1 or term < self.last_term:
            last = f"index {self.last_index}, term {self.last_term}"
            raise InvariantError(f"an entry with index {idx}, term {term} was added after one with {last}")
        if not 0 < idx <= NUMBER_MAX or not 0 <= term <= NUMBER_MAX:
            raise InvariantError(f"an entry has index {idx} and term {term}")
        self._entries.append((command, idx, term))
        self._content_bytes += len(command)

    def clear(self) -> None:
        """Drop everything; entries must follow before the next write (a snapshot's last two)."""
        self._entries.clear()
        self._head = 0
        self._content_bytes = 0
        self._delete_all = True
        self._delete_from = None
        self._purge_cuts.clear()
        self._purge_due = False

    def reset_to(self, entries: Sequence[LogEntry]) -> None:
        """A snapshot replaced the state: the log starts anew at its entries."""
        if not entries:
            raise InvariantError("a raft log is never empty")
        self.clear()
        for entry in entries:
            self.add(*entry)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Cut the end off, from a position on."""
        if entryFrom >= len(self):
            return
        index = self._first_index + entryFrom
        floor = self.commit_floor()
        if entryFrom < 0 or index <= floor:
            raise InvariantError(f"entries from index {index} on were to be deleted, but index {floor} is committed")
        if entryFrom == 0:
            self.clear()
            return
        for position in range(entryFrom, len(self)):
            self._content_bytes -= len(self._at(position)[CONTENT])
        del self._entries[self._head + entryFrom :]
        if index < self._unwritten_from:
            self._unwritten_from = self._delete_from = index

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Drop the front, up to a position; at least two entries stay."""
        self.purge_to(self._first_index + entryTo)

    def purge_to(self, index: int) -> None:
        """Drop the entries below `index`, which the caller knows to be applied and durable in the state; two stay.

        Nothing waits for the disk: they are deleted there together with the next write, or by the one-second timer.
        """
        index = min(index, self.last_index - _ENTRIES_KEPT_MIN + 1)
        if index <= self._first_index:
            return
        start, size_bytes = self._first_index, 0
        for each in range(self._first_index, index):
            size_bytes += len(self._at(each - self._first_index)[CONTENT])
            self._entries[self._head + each - self._first_index] = None
            if each + 1 - start >= _PURGE_ENTRIES_MAX or size_bytes >= _PURGE_SIZE_BYTES_MAX:
                self._purge_cuts.append(each + 1)
                self._content_bytes -= size_bytes
                start, size_bytes = each + 1, 0
        if start < index:
            self._purge_cuts.append(index)
            self._content_bytes -= size_bytes
        self._head += index - self._first_index
        self._first_index = index
        if self._head >= _COMPACT_ENTRIES_MIN and self._head * 2 >= len(self._entries):
            del self._entries[: self._head]
            self._head = 0

    # ------------------------------------------------------------------ term, vote, commit index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if term == self._term and votedForNodeId == self._voted_for:
            return
        if term < self._term or term > NUMBER_MAX:
            raise InvariantError(f"the term was to go from {self._term} to {term}")
        if term == self._term and self._voted_for is not None:
            before, after = self._voted_for, votedForNodeId
            raise InvariantError(f"the vote of term {term} was to change from node {before} to {after}")
        self._term = term
        self._voted_for = votedForNodeId
        self._term_changed = True

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Kept in memory only: a restarted node learns it again, and applied entries are in the state file."""
        self._commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self._commit_index

    # ------------------------------------------------------------------ what the disk lacks

    @property
    def dirty(self) -> bool:
        """Whether a change waits that a vote or an acknowledgement may depend on, or a purge is due."""
        return (
            self._unwritten_from < self._first_index + len(self._entries) - self._head
            or self._term_changed
            or self._delete_from is not None
            or self._delete_all
            or self._purge_due
        )

    @property
    def purges_wait(self) -> bool:
        """Whether purged entries are still on the disk."""
        return bool(self._purge_cuts)

    @property
    def dirty_term(self) -> bool:
        return self._term_changed

    def onOneSecondTimer(self) -> None:
        """Purges that no write has taken along are due now."""
        self._purge_due = bool(self._purge_cuts)

    def take_pending(self) -> PendingWrite | None:
        """Everything the disk lacks, as one transaction; None when nothing waits."""
        if not self.dirty and not self._purge_cuts:
            return None
        if len(self) == 0:
            raise InvariantError("the raft log was cleared and nothing put in its place")
        if self._unwritten_from < self._first_index and self._purge_cuts:
            # Entries were purged before they were ever written: the file must not get a hole in their place.
            self._purge_cuts.clear()
            self._purge_cuts.append(self._first_index)
        cut = self._purge_cuts.popleft() if self._purge_cuts else None
        start = max(self._unwritten_from, self._first_index) - self._first_index
        if self._delete_all:
            self._disk_first_index = self._first_index
        elif cut is not None:
            self._disk_first_index = cut
        pending = PendingWrite(
            delete_all=self._delete_all,
            delete_from=self._delete_from,
            delete_before=cut,
            entries=self[start:],
            first_index=self._disk_first_index,
            last_index=self.last_index,
            term=self._term,
            voted_for=self._voted_for,
            changes_meta=self._term_changed or self._delete_all or self._delete_from is not None or cut is not None,
        )
        self._unwritten_from = self.last_index + 1
        self._delete_from = None
        self._delete_all = self._term_changed = False
        self._purge_due = self._purge_due and bool(self._purge_cuts)
        return pending

    # ------------------------------------------------------------------ status and end

    def statistics(self) -> RaftLogStatus:
        """Sizes, on disk as of the last write. The write-ahead log is the open chunk, the database a closed one."""
        sizes = LogFileSizes() if self._writer is None else self._writer.file_sizes
        total_bytes = sizes.database_bytes + sizes.wal_bytes
        return RaftLogStatus(
            cache_items=len(self),
            cache_used_size=self.bytes_in_memory,
            wal_total_size=total_bytes,
            wal_open_chunk_size=sizes.wal_bytes,
            wal_offset=0 if self._writer is None else self._writer.appended_bytes,
            wal_closed_chunk_count=1,
            wal_closed_chunk_total_size=sizes.database_bytes,
            wal_closed_chunk_sizes={"ChunkId(00_000_000_000_000_000_000)": sizes.database_bytes},
        )

    def _destroy(self) -> None:
        """The engine is done; the writer, if any, is closed by the storage thread."""
        if self._writer is None:
            self._mark.close()
