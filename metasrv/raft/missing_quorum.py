"""Tells that too few voters are heard: when it has lasted for an election timeout, every half minute, and at its end.

Changes nothing. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model.events import EventKind, Severity
from metasrv.raft.core.engine import Engine
from metasrv.raft.telling import Telling

REPEAT_SECONDS = 30.0
START_SECONDS = 3.0
"""A node that has just been started has not had the time to reach the others."""


class MissingQuorum:
    """`heard` gives how many voters this node hears, itself among them; `patience_seconds` is the longest timeout."""

    def __init__(self, engine: Engine, telling: Telling, heard: Callable[[float], int], patience_seconds: float) -> None:
        self._engine = engine
        self._telling = telling
        self._heard = heard
        self._patience = patience_seconds
        self._leaderless_at: float | None = None
        self._missing_since: float | None = None
        self._told_at = 0.0
        self._has_known_leader = False

    def told(self, now: float) -> None:
        """Somebody has just said that too few voters are heard."""
        self._leaderless_at = self._leaderless_at or now
        self._missing_since, self._told_at = self._missing_since or now, now

    def look(self, leaderless: bool, votes: bool, now: float) -> None:
        """`votes`: this node is a voter. `now` in monotonic seconds."""
        if not leaderless:
            self._leaderless_at, self._has_known_leader = None, True
            if self._missing_since is not None:
                self._end(now, "a leader is there and takes writes")
            return
        self._leaderless_at = self._leaderless_at or now
        patience = self._patience if self._has_known_leader else max(self._patience, START_SECONDS)
        if now - self._leaderless_at < patience or not votes:
            return
        since, voters = self._missing_since, len(self._engine.membership().voters)
        heard = self._heard(now)
        if heard >= self._engine.membership().majority:
            if since is not None:
                self._end(now, f"{heard} of {voters} voters heard again, they can elect a leader")
        elif since is None:
            self._missing_since, self._told_at = self._leaderless_at, now
            text = f"{heard} of {voters} voters heard, writes are refused"
            self._telling.tell(EventKind.QUORUM, Severity.CRITICAL, text)
        elif now - self._told_at >= REPEAT_SECONDS:
            self._told_at = now
            text = f"{heard} of {voters} voters heard for {now - since:,.0f} s by now, writes are refused"
            self._telling.log(Severity.CRITICAL, text)

    def _end(self, now: float, text: str) -> None:
        since, self._missing_since = self._missing_since or now, None
        self._telling.tell(EventKind.QUORUM, Severity.INFO, f"{text}; too few were heard for {now - since:,.1f} s")
