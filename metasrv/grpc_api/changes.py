"""WatchResponse messages, encoded once for all watchers of a change (docs/contract/grpc.md section d.7).

All watchers of a key are told of a change in one turn of the event loop, each by its own task. What the first one encodes
is kept until the loop turns, and the others send the same bytes. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from metasrv.grpc_api.encoding import field, is_large, record_field, tag
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.replies import record_out
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.watch import WatchItem

MARKER = length_prefixed(pb.WatchResponse().SerializeToString())
"""Ends the initial flush: no event, no initialization flag; by proto3's rules an empty message."""
_EVENT, _CURRENT, _PREV = tag(pb.WatchResponse, "event"), tag(pb.Event, "current"), tag(pb.Event, "prev")
KEPT_SIZE_BYTES_MAX = 4 * 1024 * 1024
"""What is kept of one turn; further messages are encoded for each watcher."""


class _Kept(NamedTuple):
    item: WatchItem
    """Kept with its message, so that its records cannot go and another one's get their identities."""
    message: bytes


class EncodedChanges:
    """The messages of this turn of the loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, int], _Kept] = {}
        self._kept_size_bytes = 0
        self._last_item: WatchItem | None = None
        self._last_message = b""
        """All watchers of a key are given the same item."""

    def message(self, item: WatchItem) -> bytes:
        """The item as a message with its prefix."""
        if item is self._last_item:
            return self._last_message
        if item.marker:
            return MARKER
        if item.is_initialization:
            return length_prefixed(watch_response(item))  # of one watcher alone
        # The hub gives all watchers the same records.
        identity = (item.key, id(item.prev), id(item.current))
        kept = self._kept.get(identity)
        if kept is not None:
            return kept.message
        message = length_prefixed(watch_response(item))
        if self._kept_size_bytes + len(message) <= KEPT_SIZE_BYTES_MAX:
            if not self._kept:
                asyncio.get_running_loop().call_soon(self._forget)
            self._kept[identity] = _Kept(item, message)
            self._last_item, self._last_message = item, message
            self._kept_size_bytes += len(message)
        return message

    def _forget(self) -> None:
        self._kept.clear()
        self._last_item, self._last_message = None, b""
        self._kept_size_bytes = 0


def watch_response(item: WatchItem) -> bytes:
    """An encoded WatchResponse with an event."""
    if is_large(item.current) or is_large(item.prev):
        records = [*record_field(_CURRENT, item.current), *record_field(_PREV, item.prev)]
        event_parts = field(_EVENT, [pb.Event(key=item.key).SerializeToString(), *records])
        head = pb.WatchResponse(is_initialization=item.is_initialization).SerializeToString()
        return b"".join([head, *event_parts])
    event = pb.Event(key=item.key, current=record_out(item.current), prev=record_out(item.prev))
    response = pb.WatchResponse(event=event, is_initialization=item.is_initialization)
    return response.SerializeToString()
