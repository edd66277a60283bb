"""Which views of the state are open, so that none can keep the write-ahead log from starting over forever.

Views are opened and revoked on the event loop and closed by any thread; adding to the set, taking from it and copying it
are single steps of the interpreter. Knows nothing of who reads, or why.
"""

from __future__ import annotations

from typing import Protocol


class Revocable(Protocol):
    """An open view."""

    def revoke(self, reason: str) -> None:
        """End the view soon, whoever uses it: its next read raises ViewLostError with this text. May be called again."""
        ...


class Views:
    """The open views of one state."""

    def __init__(self) -> None:
        self._open: set[Revocable] = set()
        self.hurry = False
        """The log has grown a good part of the way to its limit: reads should no longer pause between pages."""

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, view: Revocable) -> None:
        self._open.add(view)

    def closed(self, view: Revocable) -> None:
        self._open.discard(view)

    def revoke(self, reason: str) -> int:
        """Revoke all of them; returns how many. A view that is being read ends after that read."""
        views = list(self._open)
        for view in views:
            view.revoke(reason)
        return len(views)
