"""The hashes of the state at some applied indexes, which nodes compare (`node/copies.py`).

A hash is taken at every index that `EVERY_ENTRIES` divides, so that all nodes have the same ones, and the newest are
kept: enough for a node that lags by some seconds. In a cluster without writes all nodes stand at one index, and the
present hash is compared. Runs on the event loop.
"""

from __future__ import annotations

from collections import deque

from metasrv.state.machine import StateMachine

EVERY_ENTRIES = 64
KEPT = 128


class StateHashes:
    """See the module."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)

    def applied(self, index: int) -> None:
        """One entry took effect."""
        if index % EVERY_ENTRIES == 0:
            self._kept.append((index, self._machine.state_hash()))

    def replaced(self) -> None:
        """The state was replaced as a whole, so that what it was before says nothing about it."""
        self._kept.clear()

    def known(self) -> dict[int, bytes]:
        """The hashes by index, the present one included."""
        return {**dict(self._kept), self._machine.last_applied.index: self._machine.state_hash()}
