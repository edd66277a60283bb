"""Damage checks of the raft log: bytes of the database and of its write-ahead log in, checked contents out.

SQLite takes a write-ahead log that was damaged in the middle for one that was torn at its end and silently drops what
follows. So the files are checked here before SQLite opens them: the pages are put together in memory from the database
and the valid frames, exactly as SQLite would, and every row is verified. Nothing on the disk is changed, so the evidence
stays. Runs at start, before the event loop is busy; pure functions over bytes, so that tests can flip any of them.

The file formats are SQLite's (sqlite.org/fileformat2.html, sections 1.3 and 4).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError
from metasrv.raft.log.format import (
    ADVICE,
    APPLICATION_ID,
    CREATE_TABLES,
    FORMAT_VERSION,
    INDEX,
    NUMBER_MAX,
    PAGE_SIZE_BYTES,
    SELECT_ENTRIES,
    SELECT_META,
    STORE_ID_SIZE_BYTES,
    LogContents,
    LogEntry,
    MetaRow,
    entry_checksum,
    mark_path,
    wal_path,
)
from metasrv.raft.log.mark import MarkValue

_MAGIC = b"SQLite format 3\x00"
_PAGE_COUNT_OFFSET = 28
_WAL_HEADER_SIZE_BYTES = 32
_FRAME_HEADER_SIZE_BYTES = 24
_FRAME_SIZE_BYTES = _FRAME_HEADER_SIZE_BYTES + PAGE_SIZE_BYTES
_WAL_MAGIC = 0x377F0682
_WAL_VERSION = 3007000
_CHECKSUM_START = (0, 0)

_HEADER_FIELDS: tuple[tuple[int, str, int, str], ...] = (
    (16, ">H", PAGE_SIZE_BYTES, "page size"),
    (18, ">H", 0x0202, "journal mode"),
    (20, ">I", 0x00402020, "page layout"),
    (44, ">I", 4, "schema format"),
    (56, ">I", 1, "text encoding"),
    (60, ">I", FORMAT_VERSION, "user_version"),
    (68, ">I", APPLICATION_ID, "application_id"),
)
"""Offset, layout, value and name of the fields that are the same in the header of every log file."""


_VACUUM_OFFSETS = (52, 64)
"""The root of the last table, and a flag: neither is 0 where free pages can be given back, as in each new file; both are
in a file of an earlier release."""


class WalPages(NamedTuple):
    """What the committed part of a write-ahead log puts over the database."""

    pages: dict[int, bytes]
    """Newest content by page number, from 1."""
    page_count: int | None
    """Size of the database in pages; None when nothing is committed."""


class _Frame(NamedTuple):
    page_number: int
    page_count: int
    """Not 0 in the last frame of a transaction."""
    salts: tuple[int, int]
    checksum: tuple[int, int]


def check_log(path: str, database: bytearray, wal: bytes, mark: MarkValue) -> LogContents:
    """All checks, in order; raises DataDamagedError at the first one that fails. `database` is used up."""
    _check_header(path, database)
    put_together(path, database, read_wal(wal_path(path), wal))
    _check_header(path, database)
    contents = _read_tables(path, database)
    _check_mark(path, contents, mark)
    return contents


def check_applied(path: str, last_index: int, applied_index: int) -> None:
    """The log must hold everything the state has applied, or more. Raises DataDamagedError."""
    if last_index < applied_index:
        what = f"ends at index {last_index}, but the state beside it has applied index {applied_index}"
        raise DataDamagedError(path, f"entry {last_index}", what, ADVICE)


# ----------------------------------------------------------------------------- the database file


def _check_header(path: str, database: bytearray) -> None:
    if not database:
        raise DataDamagedError(path, "byte 0", "the file is empty", ADVICE)
    if not database.startswith(_MAGIC):
        raise DataDamagedError(path, "byte 0", "not an SQLite database", ADVICE)
    if len(database) < PAGE_SIZE_BYTES:
        raise DataDamagedError(path, f"byte {len(database)}", "the file ends within its first page", ADVICE)
    for offset, layout, expected, name in _HEADER_FIELDS:
        (actual,) = struct.unpack_from(layout, database, offset)
        if actual != expected:
            what = f"the header's {name} is {actual:#x}, a raft log of this version has {expected:#x}"
            raise DataDamagedError(path, f"byte {offset}", what, ADVICE)
    root, flag = (int.from_bytes(database[offset : offset + 4], "big") for offset in _VACUUM_OFFSETS)
    if flag > 1 or (flag == 1) != (root > 0):
        what = f"the header's vacuum mode is {flag:#x} with last root {root:#x}"
        raise DataDamagedError(path, f"byte {_VACUUM_OFFSETS[0]}", what, ADVICE)


def put_together(path: str, database: bytearray, wal: WalPages) -> None:
    """Turn `database` into what SQLite would read through the write-ahead log; in place, because it may be large."""
    page_count = wal.page_count
    if page_count is None:
        (page_count,) = struct.unpack_from(">I", database, _PAGE_COUNT_OFFSET)
    size_bytes = page_count * PAGE_SIZE_BYTES
    available_pages = len(database) // PAGE_SIZE_BYTES
    for page_number in range(available_pages + 1, page_count + 1):
        if page_number not in wal.pages:
            what = f"the file is truncated, page {page_number} of {page_count} is missing"
            raise DataDamagedError(path, f"byte {len(database)}", what, ADVICE)
    database.extend(bytes(max(0, size_bytes - len(database))))
    del database[size_bytes:]
    for page_number, page in wal.pages.items():
        if page_number <= page_count:
            database[(page_number - 1) * PAGE_SIZE_BYTES : page_number * PAGE_SIZE_BYTES] = page


# ----------------------------------------------------------------------------- the write-ahead log


def read_wal(path: str, wal: bytes) -> WalPages:
    """Committed pages of the valid prefix; a torn end is dropped as SQLite drops it.

    Raises DataDamagedError when a frame is bad although a later transaction follows it: transactions are synced one
    after the other, so the bad frame had reached the disk.
    """
    if not wal.strip(b"\x00") or len(wal) < _WAL_HEADER_SIZE_BYTES:
        return WalPages({}, None)  # never used, or its first write never reached the disk
    order, salts, checksum = _check_wal_header(path, wal)
    frame_count = (len(wal) - _WAL_HEADER_SIZE_BYTES) // _FRAME_SIZE_BYTES
    committed: dict[int, bytes] = {}
    uncommitted: dict[int, bytes] = {}
    page_count = None
    for number in range(frame_count):
        frame = _frame_at(wal, number)
        checksum = _frame_checksum(order, wal, number, checksum)
        if frame.salts != salts or frame.checksum != checksum or not frame.page_number:
            _check_nothing_follows(path, wal, number, order, salts)
            break
        start = _frame_offset(number) + _FRAME_HEADER_SIZE_BYTES
        uncommitted[frame.page_number] = wal[start : start + PAGE_SIZE_BYTES]
        if frame.page_count:
            committed |= uncommitted
            uncommitted = {}
            page_count = frame.page_count
    return WalPages(committed, page_count)


def _check_wal_header(path: str, wal: bytes) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Byte order of the checksums, salts, first checksum. A header is smaller than a sector: it is never torn."""
    magic, version, page_size, _, *numbers = struct.unpack_from(">8I", wal)
    order = ">" if magic & 1 else "<"
    checksum = _checksum(order, wal[:24], _CHECKSUM_START)
    if magic & ~1 != _WAL_MAGIC or version != _WAL_VERSION or checksum != (numbers[2], numbers[3]):
        raise DataDamagedError(path, "byte 0", "the header of the write-ahead log is damaged", ADVICE)
    if page_size != PAGE_SIZE_BYTES:
        raise DataDamagedError(path, "byte 8", f"page size {page_size} is not that of the database", ADVICE)
    return order, (numbers[0], numbers[1]), checksum


def _check_nothing_follows(path: str, wal: bytes, bad: int, order: str, salts: tuple[int, int]) -> None:
    """Raise when a whole commit and something more follow the bad frame, which proves that the bad frame was synced.

    Frames vouch for each other in pairs: each one's checksum continues that of the frame before. Less than that may also
    be a torn transaction whose sectors reached the disk out of order; then the mark decides.
    """
    frame_count = (len(wal) - _WAL_HEADER_SIZE_BYTES) // _FRAME_SIZE_BYTES
    commit_seen = False
    before = _frame_at(wal, bad)
    for number in range(bad + 1, frame_count):
        frame = _frame_at(wal, number)
        if frame.salts == salts:
            if commit_seen:
                offset = _frame_offset(bad)
                what = f"frame {bad + 1} is damaged, but later transactions follow it at byte {_frame_offset(number)}"
                raise DataDamagedError(path, f"byte {offset}", what, ADVICE)
            if frame.page_count:
                commit_seen = frame.checksum == _frame_checksum(order, wal, number, before.checksum)
        before = frame


def _frame_offset(number: int) -> int:
    return _WAL_HEADER_SIZE_BYTES + number * _FRAME_SIZE_BYTES


def _frame_at(wal: bytes, number: int) -> _Frame:
    page_number, page_count, *rest = struct.unpack_from(">6I", wal, _frame_offset(number))
    return _Frame(page_number, page_count, (rest[0], rest[1]), (rest[2], rest[3]))


def _frame_checksum(order: str, wal: bytes, number: int, before: tuple[int, int]) -> tuple[int, int]:
    """The checksum frame `number` must have, given that of the frame before it."""
    offset = _frame_offset(number)
    page_start = offset + _FRAME_HEADER_SIZE_BYTES
    checksum = _checksum(order, wal[offset : offset + 8], before)
    return _checksum(order, wal[page_start : page_start + PAGE_SIZE_BYTES], checksum)


def _checksum(order: str, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    first, second = start
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


# ----------------------------------------------------------------------------- the tables


def _read_tables(path: str, image: bytearray) -> LogContents:
    image[18:20] = b"\x01\x01"  # a database in memory has no write-ahead log; its pages are already in the image
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.deserialize(image)
            image.clear()  # SQLite has a copy of its own
            _check_structure(path, connection)
            meta = _read_meta(path, connection)
            entries, written = _read_entries(path, connection, meta)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise DataDamagedError(path, "tables", f"SQLite cannot read them: {error}", ADVICE) from error
    return LogContents(entries, meta, max(written, meta.written))


def _check_structure(path: str, connection: sqlite3.Connection) -> None:
    for (report,) in connection.execute("PRAGMA integrity_check(1)"):
        if report != "ok":
            raise DataDamagedError(path, "pages", str(report).replace("\n", " "), ADVICE)
    schema = sorted(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master"))
    if schema != sorted(CREATE_TABLES):
        raise DataDamagedError(path, "schema", "its tables are not those of a raft log", ADVICE)


def _read_meta(path: str, connection: sqlite3.Connection) -> MetaRow:
    rows = connection.execute(SELECT_META).fetchall()
    if len(rows) != 1:
        raise DataDamagedError(path, "table meta", f"it has {len(rows)} rows instead of one", ADVICE)
    *values, checksum = rows[0]
    meta = MetaRow(*values)
    numbers_valid = all(_is_number(value) for value in (meta.first_index, meta.written, meta.term))
    store_id_valid = isinstance(meta.store_id, bytes) and len(meta.store_id) == STORE_ID_SIZE_BYTES
    vote_valid = meta.voted_for is None or isinstance(meta.voted_for, str)
    if not (numbers_valid and store_id_valid and vote_valid) or meta.checksum != checksum:
        raise DataDamagedError(path, "table meta", "the checksum of term and vote does not match", ADVICE)
    return meta


def _read_entries(path: str, connection: sqlite3.Connection, meta: MetaRow) -> tuple[list[LogEntry], int]:
    """Entries and the number of the last transaction that wrote one."""
    entries: list[LogEntry] = []
    expected_index, term_before, written_before = meta.first_index, 0, 0
    for index, term, written, checksum, content in _rows(connection):
        where = f"entry {index}"
        if index != expected_index:
            what = f"entries {expected_index} to {index - 1} are missing"
            raise DataDamagedError(path, where, what, ADVICE)
        numbers_valid = _is_number(index) and _is_number(term) and _is_number(written)
        if not numbers_valid or not isinstance(content, bytes):
            raise DataDamagedError(path, where, "a column has a value of the wrong type", ADVICE)
        if checksum != entry_checksum(content, index, term, written):
            raise DataDamagedError(path, where, "its checksum does not match", ADVICE)
        if term < term_before or written < written_before:
            raise DataDamagedError(path, where, f"its term {term} or transaction goes back", ADVICE)
        entries.append((content, index, term))
        expected_index, term_before, written_before = index + 1, term, written
    if not entries:
        raise DataDamagedError(path, "table entries", "it is empty", ADVICE)
    if term_before > meta.term:
        what = f"it has term {meta.term}, but entry {expected_index - 1} is of term {term_before}"
        raise DataDamagedError(path, "table meta", what, ADVICE)
    return entries, written_before


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[int, int, int, int, bytes]]:
    yield from connection.execute(SELECT_ENTRIES)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= NUMBER_MAX


def _check_mark(path: str, contents: LogContents, mark: MarkValue) -> None:
    if contents.meta.store_id != mark.store_id:
        raise DataDamagedError(path, "table meta", f"{mark_path(path)} belongs to another log", ADVICE)
    if contents.written < mark.written:
        lost = mark.written - contents.written
        where = f"after transaction {contents.written}"
        what = f"{lost} transactions that had been synced are missing here or in {wal_path(path)}"
        raise DataDamagedError(path, where, what, ADVICE)
    if contents.meta.written < mark.meta_written:
        what = f"term and vote are those of transaction {contents.meta.written}, but {mark.meta_written} had changed them"
        raise DataDamagedError(path, "table meta", what, ADVICE)
    last_index = contents.entries[-1][INDEX]
    if contents.written == mark.written and last_index != mark.last_index:
        what = f"the log ends at index {last_index}, but index {mark.last_index} had been synced"
        raise DataDamagedError(path, f"entry {last_index}", what, ADVICE)
