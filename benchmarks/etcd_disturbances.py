"""What `disturbances.py` does to a leader, done to etcd: the same sizes, counts and pauses by etcd's own requests.

Where etcd has no such request, the nearest one stands in: a put for an upsert in JSON, `Snapshot` for a snapshot that a
node keeps and for an export, `Defragment` for a compaction.
"""

from __future__ import annotations

import asyncio
import random
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from benchmarks.compared.etcd_cluster import PUT, TXN
from benchmarks.compared.wire import field
from benchmarks.raw_client import RawClient
from metasrv.model.types import Endpoint

DELETE_RANGE = "/etcdserverpb.KV/DeleteRange"
SNAPSHOT, DEFRAGMENT = "/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Maintenance/Defragment"

Disturb = Callable[[], Awaitable[Any]]


def put_message(key: str, value: bytes) -> bytes:
    """PutRequest: key is 1, value is 2."""
    return field(1, key.encode()) + field(2, value)


def puts_message(keys: Sequence[str], value: bytes) -> bytes:
    """TxnRequest: success is 2; RequestOp: request_put is 2."""
    return b"".join(field(2, field(2, put_message(key, value))) for key in keys)


def below_message(prefix: str) -> bytes:
    """DeleteRangeRequest: key is 1, range_end is 2."""
    start = prefix.encode()
    return field(1, start) + field(2, start[:-1] + bytes((start[-1] + 1,)))


def deleted_count(reply: bytes) -> int:
    """DeleteRangeResponse: header is 1, deleted is 2."""
    position = 2 + reply[1] if reply[:1] == b"\x0a" else 0  # the header is shorter than 128 bytes
    if reply[position : position + 1] != b"\x10":
        return 0
    count, shift = 0, 0
    for byte in reply[position + 1 :]:
        count |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return count


class EtcdDisturber:
    """One client of etcd's leader."""

    def __init__(self, client: RawClient, endpoint: Endpoint, value: Callable[[int], bytes]) -> None:
        self._client = client
        self._endpoint = endpoint
        self._value = value

    def put(self, key: str, size_bytes: int) -> Disturb:
        message = put_message(key, self._value(size_bytes))
        return lambda: self._client.call(PUT, message)

    def puts(self, keys: Sequence[str], size_bytes: int) -> Disturb:
        message = puts_message(keys, self._value(size_bytes))
        return lambda: self._client.call(TXN, message)

    def scattered(self, keys: Callable[[int], str], count: int, size_bytes: int) -> Disturb:
        """Puts of random ones of the first `count` keys."""
        value = self._value(size_bytes)
        return lambda: self._client.call(
            TXN, puts_message([keys(number) for number in random.sample(range(count), 20)], value)
        )

    def snapshot(self) -> Disturb:
        return lambda: self._client.drain(SNAPSHOT, b"")

    def defragment(self) -> Disturb:
        return lambda: self._client.call(DEFRAGMENT, b"")

    def profile(self, seconds: int, timeout_seconds: float) -> Disturb:
        url = f"http://{self._endpoint}/debug/pprof/heap?seconds={seconds}"

        def ask() -> None:
            with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:
                answer.read()

        return lambda: asyncio.to_thread(ask)

    async def deletion(self, prefixes: Iterator[str], expected: int, pause_seconds: float) -> None:
        """Delete everything below the next prefix; rest when there is none."""
        prefix = next(prefixes, None)
        if prefix is None:
            await asyncio.sleep(pause_seconds)
            return
        deleted = deleted_count(await self._client.call(DELETE_RANGE, below_message(prefix)))
        if deleted != expected:
            raise RuntimeError(f"{deleted} keys were deleted instead of {expected}")
