"""What `beside.py` does to a leader while it measures small writes: one kind of large work, again and again.

Runs in a process of its own, because making a request of 50 MB holds this program's loop as well, and the writes are
measured elsewhere. Says `ready` once its requests are made, waits for a line, disturbs for `--seconds`, then prints how
often it did so and what the slowest took.

    benchmarks/disturbances.py KIND --grpc HOST:PORT --admin HOST:PORT --seconds 8
    benchmarks/disturbances.py KIND --grpc HOST:PORT --etcd --seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.etcd_disturbances import Disturb, EtcdDisturber
from benchmarks.raw_client import RawClient
from metasrv.model.types import Endpoint
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.node_client import NodeClient

MIB = 1024 * 1024
PAUSE_SECONDS = 0.2
"""Between two disturbances of a kind."""
REMOVED_KEYS = 20_000
"""Keys that one delete_by_prefix deletes."""
ROUNDS = 3
"""Such deletions, whose keys are written before the time begins."""
MANY_KEYS = [f"many/{number:04}" for number in range(1_000)]
KEYS_PER_TRANSACTION = 500
PROFILE_SECONDS = 3
CALL_SECONDS_MAX = 60.0
TEXT_SIZE_BYTES_MAX = 31 * MIB


class Disturber:
    """One client of the leader."""

    def __init__(self, client: NodeClient, admin: Endpoint, keys: int) -> None:
        self._client = client
        self._admin = admin
        self._keys = keys

    async def prepare(self, kind: str) -> tuple[Disturb, float]:
        """What to do again and again, its requests made; and the pause in between."""
        if kind == "nothing":
            return nothing, PAUSE_SECONDS
        if kind.startswith("json-"):
            return self._call(json_upsert(int(kind.removeprefix("json-")) * MIB)), PAUSE_SECONDS
        if kind.startswith("put-"):
            return self._call(puts(["large/put"], int(kind.removeprefix("put-")) * MIB)), PAUSE_SECONDS
        if kind == "transactions":
            return self._call(puts(MANY_KEYS, 100)), PAUSE_SECONDS / 4
        if kind == "delete":
            return await self._deletion(), PAUSE_SECONDS
        if kind == "checkpoints":
            return self._scattered, 0.02
        if kind == "compact":
            return lambda: asyncio.to_thread(self._ask, "/v1/ctrl/compact", "POST"), 2.0
        paths = {"snapshot": "/v1/ctrl/trigger_snapshot", "heap": f"/debug/mem/pprof/profile?seconds={PROFILE_SECONDS}"}
        return lambda: asyncio.to_thread(self._ask, paths[kind]), 2.0 if kind == "snapshot" else PAUSE_SECONDS

    def _call(self, request: Any) -> Disturb:
        if isinstance(request, pb.RaftRequest):
            return lambda: self._client.kv_api(request)
        return lambda: self._client.transaction(request)

    async def _deletion(self) -> Disturb:
        """The keys are written before the time begins, enough for a few rounds."""
        rounds = iter(range(ROUNDS))
        for keys in removed_keys():
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

    def _ask(self, path: str, method: str = "GET") -> None:
        request = urllib.request.Request(f"http://{self._admin}{path}", headers={"X-Metasrv-Action": "1"}, method=method)
        with urllib.request.urlopen(request, timeout=CALL_SECONDS_MAX) as answer:
            answer.read()


def filled_key(number: int) -> str:
    return f"tenant/{number % 100:03}/table/{number:08}"


def removed_keys() -> Iterator[list[str]]:
    """All keys that are deleted later, in parts for one transaction each."""
    for number in range(ROUNDS):
        for start in range(0, REMOVED_KEYS, KEYS_PER_TRANSACTION):
            yield [f"removed/{number}/{key:06}" for key in range(start, start + KEYS_PER_TRANSACTION)]


def value_of(size_bytes: int) -> bytes:
    return (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]


def puts(keys: Sequence[str], size_bytes: int) -> pb.TxnRequest:
    """One transaction that writes a value of this size to each of the keys."""
    value = value_of(size_bytes)
    operations = [pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value)) for key in keys]
    return pb.TxnRequest(if_then=operations)


def json_upsert(size_bytes: int) -> pb.RaftRequest:
    """A KvApi request whose value has this size; its text is twice to four times as long, at most the 32 MiB allowed."""
    largest = 256 if 4 * size_bytes < TEXT_SIZE_BYTES_MAX else 10
    numbers = ",".join(str(number % largest) for number in range(256))
    data = ",".join([numbers] * (size_bytes // 256))
    return pb.RaftRequest(
        data=f'{{"UpsertKV":{{"key":"large/json","seq":{{"GE":0}},"value":{{"Update":[{data}]}},"value_meta":null}}}}'
    )


async def prepare_etcd(disturber: EtcdDisturber, kind: str, keys: int) -> tuple[Disturb, float]:
    """As `Disturber.prepare`, by etcd's requests."""
    name, _, size = kind.partition("-")
    if name in ("json", "put"):
        return disturber.put(f"large/{name}", int(size) * MIB), PAUSE_SECONDS
    if kind == "delete":
        for part in removed_keys():
            await disturber.puts(part, 100)()
        prefixes = iter([f"removed/{number}/" for number in range(ROUNDS)])
        return lambda: disturber.deletion(prefixes, REMOVED_KEYS, PAUSE_SECONDS), PAUSE_SECONDS
    chosen: dict[str, tuple[Disturb, float]] = {
        "nothing": (nothing, PAUSE_SECONDS),
        "transactions": (disturber.puts(MANY_KEYS, 100), PAUSE_SECONDS / 4),
        "checkpoints": (disturber.scattered(filled_key, keys, 100), 0.02),
        "snapshot": (disturber.snapshot(), 2.0),
        "compact": (disturber.defragment(), 2.0),
        "heap": (disturber.profile(PROFILE_SECONDS, CALL_SECONDS_MAX), PAUSE_SECONDS),
    }
    return chosen[kind]


async def nothing() -> None:
    return


async def disturb_for(disturb: Disturb, pause_seconds: float, seconds: float) -> list[float]:
    """Wait for a line, then disturb until `seconds` are over; what each time took, in seconds."""
    took: list[float] = []
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + seconds
    while (started := time.monotonic()) < until:
        await disturb()
        took.append(time.monotonic() - started)
        await asyncio.sleep(pause_seconds)
    return took


async def run(options: argparse.Namespace) -> None:
    endpoint = Endpoint.parse(options.grpc)
    if options.etcd:
        async with RawClient(endpoint, {}, CALL_SECONDS_MAX) as etcd:
            work = await prepare_etcd(EtcdDisturber(etcd, endpoint, value_of), options.kind, options.keys)
            took = await disturb_for(*work, options.seconds)
    else:
        async with NodeClient(endpoint, CALL_SECONDS_MAX) as client:
            await client.handshake()
            work = await Disturber(client, Endpoint.parse(options.admin), options.keys).prepare(options.kind)
            took = await disturb_for(*work, options.seconds)
    print(f"{len(took)} times, {max(took) * 1000:.0f} ms at most")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="disturbances", description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--admin", help="of a node of metasrv")
    parser.add_argument("--etcd", action="store_true", help="the leader is etcd's")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--keys", type=int, default=200_000)
    asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
