"""Ranges of keys that somebody keeps a copy of, and whether an entry has touched them since.

Whoever keeps a copy holds its range before reading it. As long as the range is untouched, its records are those of the
instant at which it was held. Telling too much only costs a copy. Few ranges are held at a time, and while there are
none, entries do nothing for them. Knows neither SQLite nor what is kept. Runs on the event loop only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from metasrv.state.effects import Change, Range


class Held:
    """One range [start, end), until it is touched or released; an end of None is no end."""

    __slots__ = ("end", "start", "untouched")

    def __init__(self, start: str, end: str | None) -> None:
        self.start = start
        self.end = end
        self.untouched = True
        """Whether its records are known to be those that were there when it was held."""

    def overlaps(self, start: str, end: str | None) -> bool:
        """Whether any key may be in both this range and [start, end)."""
        return (end is None or self.start < end) and (self.end is None or start < self.end)


class Touched:
    """The ranges of one state that are held."""

    def __init__(self) -> None:
        self._held: dict[Held, None] = {}

    def __len__(self) -> int:
        """How many are held and untouched."""
        return len(self._held)

    def hold(self, start: str, end: str | None) -> Held:
        """Notice from now on what touches [start, end)."""
        held = Held(start, end)
        self._held[held] = None
        return held

    def release(self, held: Held) -> None:
        """Nobody asks any more, and nothing is known of it from now on; safe to call again."""
        held.untouched = False
        self._held.pop(held, None)

    def tell(self, changes: Iterable[Change], ranges: Iterable[Range]) -> None:
        """An entry took effect: it changed these records, and any in these ranges."""
        if not self._held:
            return
        keys = sorted([key for key, _, _ in changes])
        touched = [held for held in self._held if _has_any(held, keys)]
        for start, end in ranges:
            touched += [held for held in self._held if held.overlaps(start, end)]
        for held in touched:
            self.release(held)

    def tell_everything(self) -> None:
        """The state was replaced as a whole."""
        for held in tuple(self._held):
            self.release(held)


def _has_any(held: Held, keys: list[str]) -> bool:
    """Whether any of the keys, which ascend, is in the range."""
    place = bisect_left(keys, held.start)
    return place < len(keys) and (held.end is None or keys[place] < held.end)
