"""Keys followed for ever: the present values, every change, and what differs after a watch had to begin anew.

A watch ends when its node stops, takes over a snapshot, falls behind its leader, or thinks its reader too slow. What was
yielded until then is compared with the next reading by sequence numbers, which every write changes. So each key's
events end with its latest value or its delete, whatever happened in between. Knows no connection. Runs on the caller's
event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from enum import StrEnum
from typing import NamedTuple

from metasrv.client.answers import WatchEvent
from metasrv.client.interface import KeyValueClient
from metasrv.client.outcomes import ClientClosedError, OtherClusterError
from metasrv.model.errors import NotDoneError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb

PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 1.0
"""Before a watch is begun anew; doubles until one is level."""
_CODE_POINT_MAX = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class EventKind(StrEnum):
    PUT = "put"
    DELETE = "delete"
    SYNCED = "synced"
    """What was yielded so far is the state of one instant, which had everything acknowledged before the reading."""


class PrefixEvent(NamedTuple):
    """A key's new value or its delete; of a `SYNCED` event only the kind means something."""

    kind: EventKind
    key: str = ""
    record: SeqV | None = None
    """The value of a `PUT`."""
    prev_seq: int = 0
    """Sequence number of the value that was yielded for this key before; 0 if it was absent."""


def end_of_prefix(prefix: str) -> str:
    """The first text that stands behind every key with the prefix (docs/contract/grpc.md section d.7)."""
    rest = prefix.rstrip(chr(_CODE_POINT_MAX))
    if not rest:
        return chr(_CODE_POINT_MAX) * (KEY_SIZE_BYTES_MAX // 4)
    following = ord(rest[-1]) + 1
    if following in _SURROGATES:
        following = _SURROGATES.stop
    return rest[:-1] + chr(following)


class Known:
    """What has been yielded, by key and sequence number, and what a message of a watch adds to it. Pure."""

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}
        self._flushed: set[str] | None = None
        """Keys of the reading that is under way; None when it is complete."""

    def begin(self) -> None:
        """A new watch begins with a reading."""
        self._flushed = set()

    def take(self, event: WatchEvent) -> list[PrefixEvent]:
        """The events to yield. Raises NotDoneError for a state that is older than what was yielded."""
        if event.is_marker:
            missing = self._seqs.keys() - (self._flushed or set())
            self._flushed = None
            return [*(self._delete(key) for key in sorted(missing)), PrefixEvent(EventKind.SYNCED)]
        if event.is_initialization and self._flushed is not None:
            self._flushed.add(event.key)
        prev_seq = self._seqs.get(event.key, 0)
        if event.current is None:
            return [self._delete(event.key)] if prev_seq else []
        if event.current.seq == prev_seq:
            return []
        if event.current.seq < prev_seq:
            raise NotDoneError(f"the node shows an older value of {event.key!r} than another one did")
        self._seqs[event.key] = event.current.seq
        return [PrefixEvent(EventKind.PUT, event.key, event.current, prev_seq)]

    def _delete(self, key: str) -> PrefixEvent:
        return PrefixEvent(EventKind.DELETE, key, None, self._seqs.pop(key))


async def follow(
    client: KeyValueClient,
    key: str,
    key_end: str | None,
    *,
    filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
) -> AsyncGenerator[PrefixEvent, None]:
    """One key, or [key, key_end), as `AsyncClient.watch_prefix` documents it.

    With the filter DELETE, changes of a present key are only seen when the watch begins anew.
    """
    known = Known()
    reached = False
    pause = PAUSE_SECONDS_MIN
    while True:
        known.begin()
        watch = client.watch(key, key_end, filter_type=filter_type, initial_flush=True, require_leader=True)
        try:
            async with aclosing(watch) as messages:
                async for message in messages:
                    reached = True
                    if message.is_marker:
                        pause = PAUSE_SECONDS_MIN
                    for event in known.take(message):
                        yield event
        except (ClientClosedError, OtherClusterError):
            raise
        except NotDoneError:
            if not reached:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)


async def wait_until(
    client: KeyValueClient,
    key: str,
    key_end: str | None,
    holds: Callable[[Mapping[str, SeqV]], bool],
    *,
    filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
) -> None:
    """Return once `holds` is true of the records of one key, or of [key, key_end)."""
    records: dict[str, SeqV] = {}
    level = False
    async with aclosing(follow(client, key, key_end, filter_type=filter_type)) as events:
        async for event in events:
            if event.record is not None:
                records[event.key] = event.record
            elif event.kind is EventKind.DELETE:
                records.pop(event.key, None)
            level = level or event.kind is EventKind.SYNCED
            if level and holds(records):
                return
