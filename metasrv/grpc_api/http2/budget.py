"""How much of clients' requests and answers one node holds at the same time, all connections together (invariant 10).

Counted are requests of which a part is still missing, and answers that wait until their client takes them; most calls
are neither. Pure.
"""

from __future__ import annotations


class Budget:
    """Bytes held, and the limit past which whoever asks for more is turned away."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    @property
    def exceeded(self) -> bool:
        return self.used_bytes > self.limit_bytes

    def sentence(self) -> str:
        """For the client that is turned away."""
        return f"this node already holds {self.limit_bytes} bytes of requests and answers, the limit; try again later"
