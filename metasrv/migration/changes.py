"""What a watch of the source brought and the target has not got yet: the newest change of each key.

A record's sequence number says which change is newer, and a deletion is newer than what it deletes and older than what
is written after it. So changes may come twice and in any order, and the same remains. Pure; runs anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

from metasrv.client.answers import WatchEvent
from metasrv.model.errors import NotDoneError
from metasrv.model.types import SeqV


class Change(NamedTuple):
    """A record, or the deletion of the one that had the number `seq`."""

    key: str
    seq: int
    record: SeqV | None

    @property
    def version(self) -> tuple[int, bool]:
        """Orders the changes of one key."""
        return self.seq, self.record is None


class Pending:
    """At most one change a key."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}
        self.last_seq = 0
        """The largest sequence number that was seen."""
        self.events = 0
        """Events so far; a pause of it means that nothing comes."""

    def __len__(self) -> int:
        return len(self._changes)

    def event(self, event: WatchEvent) -> None:
        """Note a change. Raises NotDoneError for one that does not say what was deleted."""
        self.events += 1
        if event.is_marker:
            return
        record = event.current or event.prev
        if record is None:
            raise NotDoneError(f"the source does not say which record of {event.key!r} was deleted")
        self.add(Change(event.key, record.seq, event.current))

    def add(self, change: Change) -> None:
        """Keep the change, unless a newer one of its key is waiting."""
        self.last_seq = max(self.last_seq, change.seq)
        present = self._changes.get(change.key)
        if present is None or change.version > present.version:
            self._changes[change.key] = change

    def take(self, count: int) -> list[Change]:
        """Remove and return up to `count` changes, those first that wait the longest."""
        keys = [key for key, _ in zip(self._changes, range(count), strict=False)]
        return [self._changes.pop(key) for key in keys]
