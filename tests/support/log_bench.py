"""What the tests of the raft log share: entries, and an open log with its writer."""

from __future__ import annotations

from pathlib import Path

from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore, LogWriter

FIRST: LogEntry = (b"\x01", 1, 0)


def entry(index: int, term: int = 1, size_bytes: int = 20) -> LogEntry:
    return (f"content {index} of {term}".encode().ljust(size_bytes, b"."), index, term)


class OpenLog:
    """A log with its writer and the two ways it may end."""

    def __init__(self, directory: Path, create: list[LogEntry] | None) -> None:
        self.path = str(directory / "raft.db")
        self.store = LogStore.open(self.path, create_entries=create)
        self.store.commit_floor = lambda: 0
        self.writer: LogWriter = self.store.open_writer()

    def flush(self) -> None:
        if self.store.last_term > self.store.getCurrentTerm():  # as the engine has it before it adds entries of a term
            self.store.setCurrentTerm(self.store.last_term, None)
        while (pending := self.store.take_pending()) is not None:
            self.writer.write(pending)

    def reopen(self) -> LogStore:
        """Close cleanly and read back; the returned log has no writer."""
        self.writer.close()
        store = LogStore.open(self.path, create_entries=None)
        store._destroy()
        return store
