"""`metactl dump-raft-log-wal`: the log of a stopped node as text, one line a record, in the form of upstream's tool.

The row with term and vote is the first record, each entry one more; offsets count the bytes of the records. Damaged
records are named in their place. Runs in a program of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from metasrv.backup.log_text import payload_text, value_lines
from metasrv.model.entries import decode_entry, leader_id_of
from metasrv.model.errors import CodecError, DataDamagedError
from metasrv.model.types import LogId
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.log.files import open_log
from metasrv.raft.log.format import CONTENT, INDEX, TERM, LogEntry, MetaRow, meta_size_bytes
from metasrv.raft.log.salvage import BadEntry, salvage

_CHUNK = "ChunkId(00_000_000_000_000_000_000)"
_FIRST_INDEX = 1
"""The first of a log that was never purged."""


def dump(root: str, *, decoded: bool, raw: bool) -> Iterator[str]:
    """The lines. Raises IdentityError, StorageError; DataDamagedError after the last line, when a record is damaged."""
    directory = DataDirectory.open_present(root)
    try:
        yield "RaftLog:"
        yield _CHUNK
        damage: DataDamagedError | None = None
        try:
            opened = open_log(directory.log_path, None)
        except DataDamagedError as error:
            damage = error
            records = _Records()
            yield from records.lines(salvage(directory.log_path), decoded=decoded, raw=raw)
        else:
            opened.mark.close()
            contents = opened.contents
            records = _Records()
            state = _state_text(contents.meta, contents.entries, directory.identity.node_id)
            yield records.line(meta_size_bytes(contents.meta), state)
            yield from records.lines(contents.entries, decoded=decoded, raw=raw)
        if damage is not None:
            raise damage
    finally:
        directory.close()


class _Records:
    """Numbers records, and counts their bytes."""

    def __init__(self) -> None:
        self._number = 0
        self._offset = 0

    def line(self, size_bytes: int, text: str) -> str:
        start, self._offset = self._offset, self._offset + size_bytes
        number, self._number = self._number, self._number + 1
        return f"  R-{number:05}: [{_padded(start)}, {_padded(self._offset)}) Size({size_bytes}): {text}"

    def lines(self, entries: Iterable[LogEntry | BadEntry], *, decoded: bool, raw: bool) -> Iterator[str]:
        for entry in entries:
            if isinstance(entry, BadEntry):
                index = "" if entry.log_index is None else f"entry {entry.log_index}: "
                yield self.line(entry.size_bytes, f"Damaged({index}{entry.what})")
                continue
            content, index_of_entry, term = entry
            try:
                found = decode_entry(content)
            except CodecError as error:
                yield self.line(len(content), f"Damaged(entry {index_of_entry}: {error})")
                continue
            log_id = LogId(term, index_of_entry, found.leader_id)
            yield self.line(len(content), f"Append(log_id: {log_id}, payload: {payload_text(found)})")
            yield from value_lines(found, decoded=decoded, raw=raw)


def _state_text(meta: MetaRow, entries: list[LogEntry], node_id: int) -> str:
    last_id = LogId(entries[-1][TERM], entries[-1][INDEX], leader_id_of(entries[-1][CONTENT]))
    vote = "None" if meta.voted_for is None else f"<T{meta.term}-N{meta.voted_for}:->"
    anchor = LogId(entries[0][TERM], meta.first_index, leader_id_of(entries[0][CONTENT]))
    purged = "None" if meta.first_index <= _FIRST_INDEX else str(anchor)
    return (
        f"RaftLogState(RaftLogState(vote: {vote}, last: {last_id}, committed: None, purged: {purged}, "
        f"user_data: LogStoreMeta{{ node_id: Some({node_id}) }}))"
    )


def _padded(number: int) -> str:
    """Nine digits or more, in groups of three: `000_000_046`."""
    digits = f"{number:09}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    return "_".join(digits[start : start + 3] for start in range(0, len(digits), 3))
