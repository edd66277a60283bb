"""What `beside.py` does to a leader while it measures small writes: one kind of large work, again and again.

Runs in a process of its own, because making a request of 50 MB holds this program's loop as well, and the writes are
measured elsewhere. Says `ready` once its requests are made, waits for a line, disturbs for `--seconds`, then prints how
often it did so and what the slowest took.

    benchmarks/disturbances.py KIND --grpc HOST:PORT --admin HOST:PORT --seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metasrv.model.types import Endpoint
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.node_client import NodeClient

MIB = 1024 * 1024
PAUSE_SECONDS = 0.2
"""Between two disturbances of a kind."""
REMOVED_KEYS = 20_000
"""Keys that one delete_by_prefix deletes."""
KEYS_PER_TRANSACTION = 500
PROFILE_SECONDS = 3
CALL_SECONDS_MAX = 60.0
TEXT_SIZE_BYTES_MAX = 31 * MIB

Disturb = Callable[[], Awaitable[Any]]


class Disturber:
    """One client of the leader."""

    def __init__(self, client: NodeClient, admin: Endpoint, keys: int) -> None:
        self._client = client
        self._admin = admin
        self._keys = keys

    async def prepare(self, kind: str) -> tuple[Disturb, float]:
        """What to do again and again, its requests made; and the pause in between."""
        if kind == "nothing":
            return self._nothing, PAUSE_SECONDS
        if kind.startswith("json-"):
            return self._call(json_upsert(int(kind.removeprefix("json-")) * MIB)), PAUSE_SECONDS
        if kind.startswith("put-"):
            return self._call(puts(["large/put"], int(kind.removeprefix("put-")) * MIB)), PAUSE_SECONDS
        if kind == "transactions":
            return self._call(puts([f"many/{number:04}" for number in range(1_000)], 100)), PAUSE_SECONDS / 4
        if kind == "delete":
            return await self._deletion(), PAUSE_SECONDS
        if kind == "checkpoints":
            return self._scattered, 0.02
        paths = {"snapshot": "/v1/ctrl/trigger_snapshot", "heap": f"/debug/mem/pprof/profile?seconds={PROFILE_SECONDS}"}
        return lambda: asyncio.to_thread(self._ask, paths[kind]), 2.0 if kind == "snapshot" else PAUSE_SECONDS

    async def _nothing(self) -> None:
        return

    def _call(self, request: Any) -> Disturb:
        if isinstance(request, pb.RaftRequest):
            return lambda: self._client.kv_api(request)
        return lambda: self._client.transaction(request)

    async def _deletion(self) -> Disturb:
        """The keys are written before the time begins, enough for a few rounds."""
        rounds = iter(range(3))
        for number in range(3):
            for start in range(0, REMOVED_KEYS, KEYS_PER_TRANSACTION):
                keys = [f"removed/{number}/{key:06}" for key in range(start, start + KEYS_PER_TRANSACTION)]
                await self._client.transaction(puts(keys, 100))

        async def remove() -> None:
            number = next(rounds, None)
            if number is None:
                await asyncio.sleep(PAUSE_SECONDS)
                return
            deletion = pb.TxnDeleteByPrefixRequest(prefix=f"removed/{number}/")
            reply = await self._client.transaction(pb.TxnRequest(if_then=[pb.TxnOp(delete_by_prefix=deletion)]))
            if reply.responses[0].delete_by_prefix.count != REMOVED_KEYS:
                raise RuntimeError("the keys to delete were not there")

        return remove

    async def _scattered(self) -> None:
        """Records all over the state: each writes a page to its write-ahead log, which soon has to begin anew."""
        numbers = random.sample(range(self._keys), 20)
        await self._client.transaction(puts([filled_key(number) for number in numbers], 100))

    def _ask(self, path: str) -> None:
        with urllib.request.urlopen(f"http://{self._admin}{path}", timeout=CALL_SECONDS_MAX) as answer:
            answer.read()


def filled_key(number: int) -> str:
    return f"tenant/{number % 100:03}/table/{number:08}"


def puts(keys: Sequence[str], size_bytes: int) -> pb.TxnRequest:
    """One transaction that writes a value of this size to each of the keys."""
    value = bytes(range(256)) * (size_bytes // 256 + 1)
    operations = [pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value[:size_bytes])) for key in keys]
    return pb.TxnRequest(if_then=operations)


def json_upsert(size_bytes: int) -> pb.RaftRequest:
    """A KvApi request whose value has this size; its text is twice to four times as long, at most the 32 MiB allowed."""
    largest = 256 if 4 * size_bytes < TEXT_SIZE_BYTES_MAX else 10
    numbers = ",".join(str(number % largest) for number in range(256))
    data = ",".join([numbers] * (size_bytes // 256))
    return pb.RaftRequest(
        data=f'{{"UpsertKV":{{"key":"large/json","seq":{{"GE":0}},"value":{{"Update":[{data}]}},"value_meta":null}}}}'
    )


async def run(options: argparse.Namespace) -> None:
    took: list[float] = []
    async with NodeClient(Endpoint.parse(options.grpc), CALL_SECONDS_MAX) as client:
        await client.handshake()
        disturber = Disturber(client, Endpoint.parse(options.admin), options.keys)
        disturb, pause_seconds = await disturber.prepare(options.kind)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        until = time.monotonic() + options.seconds
        while (started := time.monotonic()) < until:
            await disturb()
            took.append(time.monotonic() - started)
            await asyncio.sleep(pause_seconds)
    print(f"{len(took)} times, {max(took) * 1000:.0f} ms at most")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="disturbances", description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--admin", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--keys", type=int, default=200_000)
    asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
