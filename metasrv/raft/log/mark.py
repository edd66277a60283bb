"""The mark: a small file that says which transaction of the raft log was synced last.

A torn write at the end of a write-ahead log looks the same as damage to its last synced transaction; the log alone
cannot tell them apart. The mark is written after each sync and says how far the log must reach at least: a log that ends
earlier was damaged, and the node refuses it (invariant 9). It is synced only with checkpoints, so it is exact after
the death of the process and may lag after a power loss; it never runs ahead of the log. The one case left undetected is
a power loss together with damage to the last few transactions of the write-ahead log.

Two slots, written in turn, each in a sector of its own. The file also carries the lock that keeps a second process
out. Runs in the storage thread, and at start before the loop is busy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from typing import NamedTuple

from metasrv.model.errors import DataDamagedError, IdentityError
from metasrv.process.operating_system import sync_data, sync_file
from metasrv.raft.log.format import ADVICE, STORE_ID_SIZE_BYTES, disk_error

_MAGIC = b"metasrv log mark"
_BODY = struct.Struct(f"<16s{STORE_ID_SIZE_BYTES}sQQ")
_CHECKSUM = struct.Struct("<I")
_META = struct.Struct("<Q")
"""What follows the body and its checksum, with a checksum of both. Earlier releases neither write nor read it."""
_BODY_END = _BODY.size + _CHECKSUM.size
_META_END = _BODY_END + _META.size
_SLOT_SIZE_BYTES = _META_END + _CHECKSUM.size
_SLOT_DISTANCE_BYTES = 4096
FILE_SIZE_BYTES = 2 * _SLOT_DISTANCE_BYTES


class MarkValue(NamedTuple):
    """What was synced last."""

    store_id: bytes
    written: int
    """Number of the transaction."""
    last_index: int
    """Highest index in the log after it."""
    meta_written: int
    """Number of the transaction that last changed the row of term and vote; 0 where an earlier release wrote the mark."""


def encode_mark(value: MarkValue) -> bytes:
    body = _BODY.pack(_MAGIC, value.store_id, value.written, value.last_index)
    meta = _META.pack(value.meta_written)
    return body + _CHECKSUM.pack(zlib.crc32(body)) + meta + _CHECKSUM.pack(zlib.crc32(body + meta))


def decode_mark(path: str, data: bytes) -> MarkValue:
    """The newer slot. Raises DataDamagedError when one is bad: slots are smaller than a sector and never torn."""
    if len(data) != FILE_SIZE_BYTES:
        raise DataDamagedError(path, f"byte {len(data)}", f"{len(data)} bytes instead of {FILE_SIZE_BYTES}", ADVICE)
    values = []
    for offset in (0, _SLOT_DISTANCE_BYTES):
        slot = data[offset : offset + _SLOT_SIZE_BYTES]
        magic, store_id, written, last_index = _BODY.unpack_from(slot)
        body = slot[: _BODY.size]
        if magic != _MAGIC or _CHECKSUM.pack(zlib.crc32(body)) != slot[_BODY.size : _BODY_END]:
            raise DataDamagedError(path, f"byte {offset}", "checksum of the mark does not match", ADVICE)
        values.append(MarkValue(store_id, written, last_index, _meta_written(body, slot)))
    if values[0].store_id != values[1].store_id:
        raise DataDamagedError(path, f"byte {_SLOT_DISTANCE_BYTES}", "its two halves are of different logs", ADVICE)
    return max(values, key=lambda value: value.written)


def _meta_written(body: bytes, slot: bytes) -> int:
    """An earlier release leaves what stood there, which then does not belong to its body."""
    meta = slot[_BODY_END:_META_END]
    if _CHECKSUM.pack(zlib.crc32(body + meta)) != slot[_META_END:]:
        return 0
    return int(_META.unpack(meta)[0])


class SyncMark:
    """The open and locked mark file of one log."""

    def __init__(self, path: str, *, create: bool) -> None:
        """Open and lock. Raises IdentityError when another process holds it, StorageError, DataDamagedError."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            raise DataDamagedError(path, "file", "missing, although the log beside it exists", ADVICE) from None
        except OSError as error:
            raise disk_error(path, "opening", error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise IdentityError(f"{path}: another process uses this log; is this node already running?") from error
            raise disk_error(path, "locking", error) from error

    def read(self) -> bytes:
        """The whole file; empty when it was just created."""
        try:
            return os.pread(self._descriptor, FILE_SIZE_BYTES + 1, 0)
        except OSError as error:
            raise disk_error(self.path, "reading", error) from error

    def initialise(self, value: MarkValue) -> None:
        """Fill a new file and sync it, so that later writes stay inside blocks the file system has given out."""
        slot = encode_mark(value).ljust(_SLOT_DISTANCE_BYTES, b"\x00")
        try:
            os.ftruncate(self._descriptor, FILE_SIZE_BYTES)
            os.pwrite(self._descriptor, slot + slot, 0)
            sync_file(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, "writing", error) from error

    def write(self, value: MarkValue) -> None:
        """Note a transaction that has just been synced."""
        try:
            os.pwrite(self._descriptor, encode_mark(value), (value.written & 1) * _SLOT_DISTANCE_BYTES)
        except OSError as error:
            raise disk_error(self.path, "writing", error) from error

    def sync(self) -> None:
        """Bring the mark itself to the disk."""
        try:
            sync_data(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, "syncing", error) from error

    def close(self) -> None:
        """Release the lock; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
