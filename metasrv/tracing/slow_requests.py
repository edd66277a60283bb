"""The log of slow requests: one line each, which says where the time went; in a storm a few lines a second and a count.

Keys are shortened and escaped, values never appear. Must not know gRPC or consensus. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import NamedTuple

from metasrv.model.limits import SLOW_REQUEST_KEY_CHARACTERS_MAX, SLOW_REQUEST_LINES_PER_SECOND_MAX
from metasrv.tracing.times import Stage, StageTime

logger = logging.getLogger("metasrv.slow_requests")

WINDOW_SECONDS = 1.0
WAITED_SECONDS_MIN = 0.0005
"""Who waited for a leader no longer than this has not waited."""


class SlowRequest(NamedTuple):
    """What a line says."""

    method: str
    request_id: str
    key: str
    """The first key or prefix that the request names, as `shown_key` writes it; empty without one."""
    client: str
    """The client's address; empty for a request that another node forwarded."""
    from_node: int | None
    """The node that forwarded it."""
    user: str
    """Empty when nobody had to say who it is."""
    node_id: int
    term: int
    outcome: str
    """`ok`, or why it failed (`model/failure_reasons.py`)."""
    forwarded_to: int | None
    log_index: int | None
    """Index of the log entry that holds the write, where this node led."""
    stages: list[StageTime]

    @property
    def seconds(self) -> float:
        return self.stages[-1].ended_at - self.stages[0].began_at


class SlowRequests:
    """Writes the lines, `SLOW_REQUEST_LINES_PER_SECOND_MAX` a second at most."""

    def __init__(self) -> None:
        self._window_began_at = float("-inf")
        self._written = 0
        self._left_out = 0
        self._slowest: tuple[float, str] = (0.0, "")
        self._timer: asyncio.TimerHandle | None = None

    def takes_line(self, now: float, method: str, seconds: float) -> bool:
        """Whether the next line may be written; one that may not is counted. `now` is on the loop's clock."""
        if self._timer is None and now - self._window_began_at >= WINDOW_SECONDS:
            self._window_began_at, self._written = now, 0
        if self._written < SLOW_REQUEST_LINES_PER_SECOND_MAX:
            self._written += 1
            return True
        self._left_out += 1
        self._slowest = max(self._slowest, (seconds, method))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._window_began_at + WINDOW_SECONDS - now), self.report)
        return False

    def report(self) -> None:
        """End the second: say how many lines were left out of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left_out, (seconds, method) = self._left_out, self._slowest
        self._left_out, self._slowest, self._window_began_at = 0, (0.0, ""), float("-inf")
        if left_out:
            logger.warning(
                "%d more slow requests within this second have no line of their own, the slowest was %s with %s ms",
                left_out,
                method,
                f"{seconds * 1000:,.0f}",
            )

    def write(self, slow: SlowRequest) -> None:
        """Write the line of one request."""
        longest = max(slow.stages, key=lambda stage: stage.ended_at - stage.began_at)
        where = f"waiting for node {slow.forwarded_to}" if longest.stage is Stage.FORWARD else f"in {longest.stage}"
        logger.warning(
            "a request took %s ms, %s of them %s",
            f"{slow.seconds * 1000:,.0f}",
            f"{(longest.ended_at - longest.began_at) * 1000:,.0f}",
            where,
            extra=_fields(slow),
        )


def shown_key(key: str) -> str:
    """A key as a quoted text without control or other special characters; a long one is cut, and none is nothing."""
    if not key:
        return ""
    cut = key[:SLOW_REQUEST_KEY_CHARACTERS_MAX]
    return json.dumps(cut) + ("…" if len(key) > len(cut) else "")


def _fields(slow: SlowRequest) -> dict[str, str | int | float]:
    fields: dict[str, str | int | float | None] = {
        "method": slow.method,
        "request_id": slow.request_id,
        "node": slow.node_id,
        "term": slow.term,
        "key": slow.key or None,
        "client": slow.client or None,
        "from_node": slow.from_node,
        "user": slow.user or None,
        "outcome": slow.outcome,
        "forwarded_to": slow.forwarded_to,
        "log_index": slow.log_index,
        "total_ms": round(slow.seconds * 1000, 1),
    }
    for stage, began_at, ended_at in slow.stages:
        if stage is not Stage.LEADER or ended_at - began_at >= WAITED_SECONDS_MIN:
            fields[f"{stage}_ms"] = round((ended_at - began_at) * 1000, 1)
    return {name: value for name, value in fields.items() if value is not None}
