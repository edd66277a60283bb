"""Messages of a stream that are sent together: encoded, each with its length before it, and joined.

Every message that is sent alone costs a frame, a look at the windows and a turn of its handler; a batch costs them once.
Knows no records and no calls. Pure functions; run on the event loop and in helper threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from metasrv.grpc_api.http2.frames import PAYLOAD_SIZE_BYTES_MAX
from metasrv.grpc_api.http2.messages import PREFIX_SIZE_BYTES, length_prefixed

BATCH_SIZE_BYTES_MAX = PAYLOAD_SIZE_BYTES_MAX
"""A batch fits into one frame, unless it is a single message that does not."""


class Batch(NamedTuple):
    """Some messages, joined."""

    data: bytes
    """Each message behind its prefix."""
    messages: int
    """How many."""

    @property
    def messages_bytes(self) -> int:
        """Size of the messages without their prefixes."""
        return len(self.data) - PREFIX_SIZE_BYTES * self.messages


def batches_of(messages: Iterable[bytes]) -> list[Batch]:
    """All messages in order, in batches of at most `BATCH_SIZE_BYTES_MAX`; a larger message is a batch of its own."""
    return list(joined(map(length_prefixed, messages)))


def joined(prefixed: Iterable[bytes]) -> Iterator[Batch]:
    """The same for messages that have their prefixes; a batch is made when it is asked for."""
    waiting: list[bytes] = []
    size_bytes = 0
    for message in prefixed:
        if waiting and size_bytes + len(message) > BATCH_SIZE_BYTES_MAX:
            yield _batch(waiting)
            waiting, size_bytes = [], 0
        waiting.append(message)
        size_bytes += len(message)
    if waiting:
        yield _batch(waiting)


def _batch(messages: Sequence[bytes]) -> Batch:
    return Batch(messages[0] if len(messages) == 1 else b"".join(messages), len(messages))
