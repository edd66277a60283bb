"""Which endpoint is asked next: the configured ones, the members a server names, and the leader when it is known.

Pure; runs anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence


class Endpoints:
    """An ordered list with a current entry; `configured` ones are never forgotten."""

    def __init__(self, configured: Sequence[str]) -> None:
        self._configured = list(dict.fromkeys(configured))
        if not self._configured:
            raise ValueError("a client needs at least one endpoint")
        self._all = list(self._configured)
        self._current = 0

    @property
    def current(self) -> str:
        return self._all[self._current]

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._all)

    def prefer(self, endpoint: str) -> None:
        """Ask this one next, also when it was not known before: a server named it as the leader."""
        if endpoint not in self._all:
            self._all.append(endpoint)
        self._current = self._all.index(endpoint)

    def move_on(self, failed: str) -> None:
        """Ask the one after `failed`, unless another is current already."""
        if self.current == failed:
            self._current = (self._current + 1) % len(self._all)

    def replace(self, members: Sequence[str]) -> None:
        """Take over the members' addresses; too few of them are no news (grpc.md section e)."""
        known = [member for member in members if member]
        if len(known) < len(members) // 2 + 1:
            return
        current = self.current
        self._all = list(dict.fromkeys([*known, *self._configured]))
        self._current = self._all.index(current) if current in self._all else 0
