"""The key browser: one level of the tree of keys, and one record, read in a helper thread from this node's own state.

Read-only and bounded: in time, in entries, in the bytes of a value, and in how many read at once. What is shown is this
node's applied state, which may be a moment old. Must not know HTTP. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from metasrv.model.errors import OverloadedError
from metasrv.model.limits import (
    CONSOLE_ENTRIES_MAX,
    CONSOLE_KEY_READS_MAX,
    CONSOLE_KEYS_SECONDS_MAX,
    CONSOLE_VALUE_SIZE_BYTES_MAX,
)
from metasrv.model.types import SeqV
from metasrv.node.context import NodeContext
from metasrv.state.expiry import expire_ms_of
from metasrv.state.key_tree import KeyTree, key_tree
from metasrv.state.reader import StateReader

T = TypeVar("T")


class KeyBrowser:
    """Reads for whoever may; the caller has checked that."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._reading = 0

    async def level(self, prefix: str, delimiter: str) -> dict[str, Any]:
        """The shape of `GET /v1/console/keys`. Raises OverloadedError, StorageError, ViewLostError."""
        deadline = monotonic() + CONSOLE_KEYS_SECONDS_MAX
        now_ms = self._now_ms()

        def read(reader: StateReader) -> KeyTree:
            return key_tree(reader, prefix, delimiter, CONSOLE_ENTRIES_MAX, lambda: deadline - monotonic(), now_ms)

        tree = await self._read(read)
        return {
            "prefixes": [
                {"prefix": group.prefix, "keys": group.keys, "bytes": group.size_bytes} for group in tree.groups
            ],
            "records": [record._asdict() for record in tree.records],
            "more": tree.more,
        }

    async def record(self, key: str) -> dict[str, Any] | None:
        """The shape of `GET /v1/console/key`; None when there is no such record. Raises as `level`."""
        now_ms = self._now_ms()

        def read(reader: StateReader) -> dict[str, Any] | None:
            found = reader.get(key, now_ms)
            return None if found is None else _record_view(key, found)

        return await self._read(read)

    def _now_ms(self) -> int:
        """The log's time or the wall clock, whichever is later: what has expired by then is not shown."""
        return max(self._context.machine.last_time_ms, self._context.clock.wall_ms())

    async def _read(self, read: Callable[[StateReader], T]) -> T:
        if self._reading >= CONSOLE_KEY_READS_MAX:
            raise OverloadedError(
                f"{CONSOLE_KEY_READS_MAX} reads of the key browser are under way; try again in a moment"
            )
        self._reading += 1
        try:
            reader = self._context.machine.open_reader()
            return await asyncio.shield(asyncio.to_thread(_read_and_close, reader, read))
        finally:
            self._reading -= 1


def _read_and_close(reader: StateReader, read: Callable[[StateReader], T]) -> T:
    with reader:
        return read(reader)


def _record_view(key: str, record: SeqV) -> dict[str, Any]:
    seq, data, meta = record
    expire_at = None if meta is None else meta.expire_at
    return {
        "key": key,
        "seq": seq,
        "meta": {"expire_at": expire_at, "proposed_at_ms": None if meta is None else meta.proposed_at_ms},
        "expires_at_ms": None if expire_at is None else expire_ms_of(expire_at),
        "size_bytes": len(data),
        "value_base64": base64.b64encode(data[:CONSOLE_VALUE_SIZE_BYTES_MAX]).decode("ascii"),
        "truncated": len(data) > CONSOLE_VALUE_SIZE_BYTES_MAX,
    }
