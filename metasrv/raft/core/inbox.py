"""Raft messages that wait for a step; a sync may be in flight meanwhile, so their number and size are bounded.

Knows nothing of what they say. Runs on the event loop.
"""

from __future__ import annotations

from collections import deque

from metasrv.model.limits import INBOX_MESSAGES_MAX, INBOX_SIZE_BYTES_MAX


class Inbox:
    """Encoded messages with their senders, oldest first."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, bytes]] = deque()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, node_id: int, payload: bytes) -> bool:
        """Queue a message; False when the inbox is full."""
        if len(self._messages) >= INBOX_MESSAGES_MAX or self._size_bytes + len(payload) > INBOX_SIZE_BYTES_MAX:
            return False
        self._messages.append((node_id, payload))
        self._size_bytes += len(payload)
        return True

    def take(self) -> tuple[int, bytes]:
        """The oldest message and who sent it."""
        node_id, payload = self._messages.popleft()
        self._size_bytes -= len(payload)
        return node_id, payload
