"""Tells which members a leader no longer hears, and when it hears them again.

A connection may stay open while nobody answers, so only answers count. Looks four times a second; changes nothing. Runs
on the event loop.
"""

from __future__ import annotations

from metasrv.model.events import EventKind, Severity
from metasrv.model.reach import counted_tolerance
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.telling import Telling

LOOK_SECONDS = 0.25


class SilentPeers:
    """`patience_seconds` is the longest election timeout."""

    def __init__(self, engine: Engine, telling: Telling, patience_seconds: float) -> None:
        self._engine = engine
        self._telling = telling
        self._patience = patience_seconds
        self._looks_at = 0.0
        self._led_since: float | None = None
        self._silent: dict[int, float] = {}
        """Since when each was not heard."""

    def stood_still(self, now: float) -> None:
        """This process did not run for a while: what others sent meanwhile has not been read yet."""
        self._looks_at = now + self._patience

    def look(self, now: float) -> None:
        """Tell what is new; `now` in monotonic seconds."""
        if self._engine.role() != LEADER:
            self._led_since = None
            self._silent.clear()
            return
        if self._led_since is None:
            self._led_since = now
        if now < self._looks_at:
            return
        self._looks_at = now + LOOK_SECONDS
        membership = self._engine.membership()
        members = {*membership.voters, *membership.learners} - {self._telling.node_id}
        for node_id in sorted(members | set(self._silent)):
            self._look_at(node_id, node_id in members, max(self._engine.last_response(node_id), self._led_since), now)

    def _look_at(self, node_id: int, is_member: bool, heard_at: float, now: float) -> None:
        since = self._silent.get(node_id)
        if not is_member:
            self._silent.pop(node_id, None)
        elif now - heard_at <= self._patience:
            if since is not None:
                del self._silent[node_id]
                text = f"node {node_id} answers again, after {now - since:,.1f} s"
                self._telling.tell(EventKind.PEER, Severity.INFO, text)
        elif since is None:
            self._silent[node_id] = heard_at
            text = f"node {node_id} not heard for {(now - heard_at) * 1000:,.0f} ms"
            self._telling.tell(EventKind.PEER, Severity.WARNING, f"{text}: {self._tolerance()}")

    def _tolerance(self) -> str:
        voters = self._engine.membership().voters
        left = sum(1 for i in voters if i not in self._silent)
        return counted_tolerance(len(voters), left, left).text
