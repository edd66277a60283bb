"""How many bytes one server keeps for all its clients together (invariant 10).

Counts large metadata, requests from their first piece until their handler is done, responses that wait until their client
takes them, and what stands in full sockets. Small calls are none of these. Pure.
"""

from __future__ import annotations


class Budget:
    """Bytes held, and the limit past which further ones are refused."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    @property
    def exceeded(self) -> bool:
        return self.used_bytes > self.limit_bytes

    def sentence(self) -> str:
        """Tells a client why its call is refused."""
        return f"this node already holds {self.limit_bytes} bytes of requests and answers, the limit; try again later"
