"""Long lists as they were just sent, for clients that ask for the same one while nothing under its prefix has changed.

Several clients list the same prefix again and again, and most of what a list costs is reading and encoding its records.
Where this process applies the entries, the prefix is held (`state/touched.py`) before the view of the list is pinned. An
entry tells what it touches in the step of the loop that applies it, so while the prefix is untouched the state has the
very records of that view, and a new read would show them. In a gateway a list counts for the entry after which it was
read and for no other.

Whether a client may read the prefix is decided before. Memory is bounded: a list that does not fit is not kept. Knows no
records. Runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metasrv.grpc_api.batches import Batch
from metasrv.model.limits import KEPT_LISTS_SIZE_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.state.format import prefix_end
from metasrv.state.touched import Held, Touched

KEPT_SECONDS = 5.0
"""Lists that nobody has asked for in this time go."""
KEPT_COUNT_MAX = 64
"""Lists at a time: each entry looks at all of their prefixes."""


class KeptList:
    """The pages of one list, which may still be growing."""

    __slots__ = ("applied", "held", "is_kept", "is_whole", "pages", "prefix", "size_bytes", "users", "was_asked_for")

    def __init__(self, prefix: str, applied: LogId | None, held: Held | None) -> None:
        self.prefix = prefix
        self.applied = applied
        """The entry after which it was read, where nothing is held."""
        self.held = held
        self.pages: list[Sequence[Batch]] = []
        self.size_bytes = 0
        """What it counts in the limit: 0 once it was too large."""
        self.is_whole = False
        self.is_kept = False
        self.users = 1
        """Calls that send it."""
        self.was_asked_for = True
        """Since the timer fired last."""

    def is_right(self, applied: LogId | None) -> bool:
        """Whether it shows what a new read would show, one after the entry `applied` where nothing is held."""
        return self.applied == applied if self.held is None else self.held.untouched


class KeptLists:
    """The lists of one process; `touched` is None where it does not apply entries."""

    def __init__(self, touched: Touched | None, size_bytes_max: int = KEPT_LISTS_SIZE_BYTES_MAX) -> None:
        self._touched = touched
        self._size_bytes_max = size_bytes_max
        self._kept: dict[str, KeptList] = {}
        """By prefix, the oldest first."""
        self.size_bytes = 0
        """All lists that are kept, that grow or that are being sent."""
        self._timer: asyncio.TimerHandle | None = None

    def take_now(self, prefix: str) -> KeptList | None:
        """The list of this prefix: whole if it is kept, otherwise to be filled by `add` from a view pinned after this.

        The caller gives it back. None where only `take` can say what is right.
        """
        if self._touched is None:
            return None
        self._drop_outdated(None)
        return self._right_one(prefix, None) or KeptList(prefix, None, self._touched.hold(prefix, prefix_end(prefix)))

    def has_now(self, prefix: str) -> bool:
        """Whether `take_now` would give a whole list."""
        kept = self._kept.get(prefix)
        return kept is not None and kept.held is not None and kept.is_right(None)

    def take(self, prefix: str, applied: LogId) -> KeptList:
        """The same for a process that does not apply entries, once it has a view after the entry `applied`."""
        return self._right_one(prefix, applied) or KeptList(prefix, applied, None)

    def _right_one(self, prefix: str, applied: LogId | None) -> KeptList | None:
        kept = self._kept.get(prefix)
        if kept is None or not kept.is_right(applied):
            return None
        kept.users += 1
        kept.was_asked_for = True
        return kept

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
        """It is whole: keep it, unless it was too large or its prefix was touched meanwhile."""
        if not growing.size_bytes or not growing.is_right(growing.applied):
            return
        self._drop_outdated(growing.applied)
        if growing.prefix in self._kept:
            return
        if len(self._kept) >= KEPT_COUNT_MAX:
            self._drop(next(iter(self._kept)))
        growing.is_whole = growing.is_kept = True
        self._kept[growing.prefix] = growing
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop_unused)

    def give_back(self, taken: KeptList) -> None:
        """A call sends it no more."""
        taken.users -= 1
        self._free(taken)

    def _drop_unused(self) -> None:
        """Drop the lists that nobody has asked for since the last time."""
        for prefix, one in tuple(self._kept.items()):
            if not one.was_asked_for:
                self._drop(prefix)
            one.was_asked_for = False
        self._timer = None
        if self._kept:
            self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop_unused)

    def _drop_outdated(self, applied: LogId | None) -> None:
        for prefix in [prefix for prefix, one in self._kept.items() if not one.is_right(applied)]:
            self._drop(prefix)

    def _drop(self, prefix: str) -> None:
        dropped = self._kept.pop(prefix)
        dropped.is_kept = False
        self._release(dropped)
        self._free(dropped)

    def _free(self, one: KeptList) -> None:
        if not one.users and not one.is_kept:
            self._release(one)
            self._forget_pages(one)

    def _release(self, one: KeptList) -> None:
        if one.held is not None and self._touched is not None:
            self._touched.release(one.held)

    def _forget_pages(self, one: KeptList) -> None:
        self.size_bytes -= one.size_bytes
        one.size_bytes = 0
        one.pages = [()]  # not empty: it has begun
