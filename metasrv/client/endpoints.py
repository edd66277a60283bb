"""Which endpoint is asked next: the configured ones, the members a server names, and the leader when it is known.

A server names members by the addresses they advertise, which not every client can dial: from outside a container network
or a cluster of pods the same nodes have other addresses, the configured ones. So a learned address that was never
reached is avoided for a while, and its node is looked for behind the configured endpoints, each of which says at its
handshake what it is called. Pure but for the clock; runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

UNREACHABLE_SECONDS_MIN = 10.0
UNREACHABLE_SECONDS_MAX = 300.0
"""How long an address that was never reached is avoided; doubles with each failure."""


class Endpoints:
    """An ordered list with a current entry; `configured` ones are never forgotten."""

    def __init__(self, configured: Sequence[str], clock: Callable[[], float] = monotonic) -> None:
        self._configured = list(dict.fromkeys(configured))
        if not self._configured:
            raise ValueError("a client needs at least one endpoint")
        self._all = list(self._configured)
        self._current = 0
        self._clock = clock
        self._names: dict[str, str] = {}
        """By reached endpoint, the address that its node advertises."""
        self._unreachable: dict[str, tuple[float, float]] = {}
        """By endpoint never reached, until when it is avoided, and for how many seconds that is."""

    @property
    def current(self) -> str:
        return self._all[self._current]

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._all)

    def reached(self, endpoint: str, name: str | None) -> None:
        """The node behind `endpoint` answered; `name` is the address it advertises, None if it did not say."""
        self._names[endpoint] = name or endpoint
        self._unreachable.pop(endpoint, None)

    def prefer(self, endpoint: str) -> bool:
        """Ask this endpoint next, known or not: a server named it as the leader.

        Returns False if it cannot be dialled from here and no configured endpoint is known to be it. Then the next one is
        a configured endpoint whose name is not known yet, if there is one.
        """
        if not self._is_avoided(endpoint):
            self._select(endpoint)
            return True
        for configured in self._configured:
            if self._names.get(configured) == endpoint:
                self._select(configured)
                return True
        for configured in self._configured:
            if configured not in self._names and not self._is_avoided(configured):
                self._select(configured)
                break
        return False

    def move_on(self, failed: str) -> None:
        """Ask the endpoint after `failed`, unless another one is current already."""
        if failed not in self._names and not self._is_avoided(failed):
            _, before = self._unreachable.get(failed, (0.0, UNREACHABLE_SECONDS_MIN / 2))
            seconds = min(2 * before, UNREACHABLE_SECONDS_MAX)
            self._unreachable[failed] = (self._clock() + seconds, seconds)
        if self.current != failed:
            return
        for step in range(1, len(self._all) + 1):
            position = (self._current + step) % len(self._all)
            if self._all[position] in self._configured or not self._is_avoided(self._all[position]):
                self._current = position
                return

    def replace(self, members: Sequence[str]) -> None:
        """Take over the members' addresses; too few are ignored (docs/contract/grpc.md section e)."""
        known = [member for member in members if member]
        if len(known) < len(members) // 2 + 1:
            return
        current = self.current
        self._all = list(dict.fromkeys([*known, *self._configured]))
        if current in self._all:
            self._select(current)
        else:
            usable = [one for one in self._all if one in self._configured or not self._is_avoided(one)]
            self._select(usable[0])

    def _select(self, endpoint: str) -> None:
        if endpoint not in self._all:
            self._all.append(endpoint)
        self._current = self._all.index(endpoint)

    def _is_avoided(self, endpoint: str) -> bool:
        until, _ = self._unreachable.get(endpoint, (0.0, 0.0))
        return self._clock() < until
