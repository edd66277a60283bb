"""Long lists as they were just sent, for clients that ask for the same one while nothing was applied in between.

Several clients list the same prefix again and again, and most of what a list costs is reading and encoding its records.
A kept list counts for the entry after which it was read and for no other, so that it shows what a new read would show.
Whether a client may read the prefix is decided before. Memory is bounded: a list that does not fit is not kept. Knows no
records. Runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from metasrv.grpc_api.batches import Batch
from metasrv.model.limits import KEPT_LISTS_SIZE_BYTES_MAX
from metasrv.model.types import LogId

KEPT_SECONDS = 5.0
"""Lists that nobody asks for go after this time; so do the others, and are encoded anew."""


class Key(NamedTuple):
    """What a list shows."""

    applied: LogId
    """The entry after which it was read."""
    prefix: str


class KeptList:
    """The pages of one list, which may still be growing."""

    __slots__ = ("is_kept", "is_whole", "key", "pages", "size_bytes", "users")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.pages: list[Sequence[Batch]] = []
        self.size_bytes = 0
        """What it counts in the limit: 0 once it was too large."""
        self.is_whole = False
        self.is_kept = False
        self.users = 1
        """Calls that send it."""


class KeptLists:
    """The lists of one process."""

    def __init__(self, size_bytes_max: int = KEPT_LISTS_SIZE_BYTES_MAX) -> None:
        self._size_bytes_max = size_bytes_max
        self._kept: dict[Key, KeptList] = {}
        """The oldest first."""
        self.size_bytes = 0
        """All lists that are kept, that grow or that are being sent."""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, applied: LogId, prefix: str) -> KeptList:
        """The list of this prefix: whole if it is kept, otherwise to be filled by `add`. The caller gives it back."""
        key = Key(applied, prefix)
        found = self._kept.get(key)
        if found is None:
            return KeptList(key)
        found.users += 1
        return found

    def add(self, growing: KeptList, page: Sequence[Batch]) -> None:
        """The next page of a list that is being read."""
        size_bytes = sum(len(batch.data) for batch in page)
        if growing.size_bytes or not growing.pages:
            growing.pages.append(page)
            growing.size_bytes += size_bytes
            self.size_bytes += size_bytes
            while self.size_bytes > self._size_bytes_max and self._kept:
                self._drop(next(iter(self._kept)))
            if self.size_bytes > self._size_bytes_max:
                self._forget_pages(growing)

    def finish(self, growing: KeptList) -> None:
        """It is whole: keep it, unless it was too large."""
        if growing.size_bytes and growing.key not in self._kept:
            for key in [key for key in self._kept if key.applied != growing.key.applied]:
                self._drop(key)
            growing.is_whole = growing.is_kept = True
            self._kept[growing.key] = growing
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop_all)

    def give_back(self, taken: KeptList) -> None:
        """A call sends it no more."""
        taken.users -= 1
        self._free(taken)

    def _drop_all(self) -> None:
        self._timer = None
        for key in tuple(self._kept):
            self._drop(key)

    def _drop(self, key: Key) -> None:
        dropped = self._kept.pop(key)
        dropped.is_kept = False
        self._free(dropped)

    def _free(self, one: KeptList) -> None:
        if not one.users and not one.is_kept:
            self._forget_pages(one)

    def _forget_pages(self, one: KeptList) -> None:
        self.size_bytes -= one.size_bytes
        one.size_bytes = 0
        one.pages = [()]  # not empty: it has begun
