"""How long entries take to a peer and back: one message at a time to each peer, for the metric of append latency.

Pure; runs on the event loop, in a step.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.raft.core.messages import AppendEntries, AppendReply
from metasrv.raft.log.format import INDEX


class AppendTimes:
    """`observed(node_id, seconds)` hears of each acknowledgement; `now` is monotonic seconds, given by the caller."""

    def __init__(self, observed: Callable[[int, float], None]) -> None:
        self._observed = observed
        self._sent: dict[int, tuple[int, float]] = {}
        """Last index and moment of the message that each peer has not yet answered."""

    def sent(self, node_id: int, message: AppendEntries, now: float) -> None:
        if message.entries and node_id not in self._sent:
            self._sent[node_id] = (message.entries[-1][INDEX], now)

    def answered(self, node_id: int, message: AppendReply, now: float) -> None:
        waiting = self._sent.get(node_id)
        if waiting is None:
            return
        last_index, sent_at = waiting
        if not message.success:
            del self._sent[node_id]  # the entries did not fit and are sent again
        elif message.next_index > last_index:
            del self._sent[node_id]
            self._observed(node_id, now - sent_at)

    def forget(self) -> None:
        """This node leads no more, or anew: answers to what it sent before say nothing."""
        self._sent.clear()
