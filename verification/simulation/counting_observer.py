"""Counts what a node reports of itself and a run must have met: otherwise it proves nothing about it."""

from __future__ import annotations

from typing import Any

from metasrv.raft.observer import SilentObserver
from verification.simulation.world import Witness


class CountingObserver(SilentObserver):
    """The observer of every simulated node."""

    def __init__(self, witness: Witness[Any]) -> None:
        self._witness = witness

    def applying_paused(self, seconds: float) -> None:
        del seconds
        self._witness.count("pauses for a new state log")
