"""The steady loads: what is sent, to which node, by how many clients, and what one turn of it measured.

Each turn checks by the store's own counter that its requests were writes. Knows contenders by their interface alone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.compared.contender import Call, Contender, request, target
from benchmarks.compared.raw_load import Request, drive_raw
from benchmarks.load import KEY, VALUE_SIZE_BYTES, LoadError, Measurement, drive
from benchmarks.process_usage import processor_seconds

VALUE = b"v" * VALUE_SIZE_BYTES
CALIBRATION_REQUESTS = 200
REQUESTS_MIN = 10
SPREAD_KEYS = 100_000
TRANSACTION_PUTS = 10
READS_OF_TEN = 9
LIST_PREFIX = "benchmark/list/"
LIST_KEYS = 10_000
KEYS_PER_TRANSACTION = 100
"""etcd takes at most 128 operations in one."""


class RequestsPerClient(NamedTuple):
    """Requests on each connection, so that a turn measures them and not the opening of connections."""

    to_calibrate: int
    least: int


REQUESTS_PER_CLIENT = RequestsPerClient(to_calibrate=8, least=20)
LIST_REQUESTS_PER_CLIENT = RequestsPerClient(to_calibrate=1, least=4)


class Turn(NamedTuple):
    """What one contender did in one turn."""

    per_second: float
    p50_ms: float
    p99_ms: float
    leader_microseconds: float
    """Processor time of the leader for each request."""
    follower_microseconds: float
    """The same for the other nodes together."""


Drive = Callable[[int, int], Measurement]
"""From the number of clients and of requests."""
Prepare = Callable[[Contender], Awaitable[tuple[Drive, int]]]
"""What drives the contender, and by how much its counter grows with each request (0 for reads, -1 where it varies)."""


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the comparison, for each of some numbers of clients."""

    name: str
    title: str
    clients: Sequence[int]
    prepare: Prepare


async def _write_hot(contender: Contender) -> tuple[Drive, int]:
    return _h2load(contender, await contender.leader(), contender.put(KEY, VALUE)), 1


async def _write_spread(contender: Contender) -> tuple[Drive, int]:
    leader = await contender.leader()
    chosen = random.Random(1)
    template = request(contender, leader, contender.put(_spread(0), VALUE))
    # All keys have one length, so a request is another one's bytes with the key's digits replaced.
    before, _, after = template.body.partition(_spread(0).encode())

    def next_request() -> Request:
        return Request(template.block, before + _spread(chosen.randrange(SPREAD_KEYS)).encode() + after)

    return lambda clients, requests: drive_raw(contender.endpoint(leader), clients, requests, next_request), 1


async def _read_leader(contender: Contender) -> tuple[Drive, int]:
    return _h2load(contender, await contender.leader(), contender.get(KEY)), 0


async def _read_follower(contender: Contender) -> tuple[Drive, int]:
    return _h2load(contender, await _follower(contender), contender.get(KEY)), 0


async def _transactions(contender: Contender) -> tuple[Drive, int]:
    keys = [f"benchmark/transaction/{number}" for number in range(TRANSACTION_PUTS)]
    call = contender.put_many(keys, VALUE)
    return _h2load(contender, await contender.leader(), call), contender.changes_of_put_many(TRANSACTION_PUTS)


async def _mix(contender: Contender) -> tuple[Drive, int]:
    leader = await contender.leader()
    chosen = random.Random(1)
    read = request(contender, leader, contender.get(KEY))
    write = request(contender, leader, contender.put(KEY, VALUE))

    def next_request() -> Request:
        return read if chosen.randrange(10) < READS_OF_TEN else write

    return lambda clients, requests: drive_raw(contender.endpoint(leader), clients, requests, next_request), -1


async def _lists(contender: Contender) -> tuple[Drive, int]:
    leader = await contender.leader()
    await fill(contender, [f"{LIST_PREFIX}{number:06}" for number in range(LIST_KEYS)])
    only = request(contender, leader, contender.list(LIST_PREFIX))
    return lambda clients, requests: drive_raw(contender.endpoint(leader), clients, requests, lambda: only), 0


async def _lists_after_writes(contender: Contender) -> tuple[Drive, int]:
    """No list shows what an earlier one has shown, so whatever a store keeps of lists does not count."""
    return await _lists_and_writes(contender, f"{LIST_PREFIX}{0:06}")


async def _lists_beside_writes(contender: Contender) -> tuple[Drive, int]:
    return await _lists_and_writes(contender, KEY)


async def _lists_and_writes(contender: Contender, written_key: str) -> tuple[Drive, int]:
    leader = await contender.leader()
    await fill(contender, [f"{LIST_PREFIX}{number:06}" for number in range(LIST_KEYS)])
    put = request(contender, leader, contender.put(written_key, VALUE))
    turns = itertools.cycle((put, request(contender, leader, contender.list(LIST_PREFIX))))
    return lambda clients, requests: drive_raw(contender.endpoint(leader), clients, requests, lambda: next(turns)), -1


def _h2load(contender: Contender, node: int, call: Call) -> Drive:
    where = target(contender, node, call)
    return lambda clients, requests: drive(where, clients, requests)


def _spread(number: int) -> str:
    return f"benchmark/spread/{number:06}"


async def _follower(contender: Contender) -> int:
    leader = await contender.leader()
    return next(node for node in contender.nodes if node != leader)


LOADS = (
    Load("write", "writes of one key", (1, 4, 16, 64, 256, 1000), _write_hot),
    Load("write-spread", "writes over 100,000 keys", (16, 64), _write_spread),
    Load("read-leader", "linearizable reads at the leader", (1, 16, 64, 256, 1000), _read_leader),
    Load("read-follower", "linearizable reads at a follower", (1, 16, 64), _read_follower),
    Load("mix", "nine reads for each write", (16, 64), _mix),
    Load("transaction", "transactions of 10 puts", (1, 16, 64), _transactions),
    Load("list", "lists of 10,000 records", (1, 4), _lists),
    Load("list-after-write", "lists after writes to a listed key", (1, 4), _lists_after_writes),
    Load("list-beside-write", "lists after writes elsewhere", (1, 4), _lists_beside_writes),
)


async def measure(contender: Contender, load: Load, clients: int, seconds: float) -> Turn:
    """One turn that lasts about `seconds`. Raises LoadError."""
    leader = await contender.leader()
    send, growth = await load.prepare(contender)
    each = LIST_REQUESTS_PER_CLIENT if load.name.startswith("list") else REQUESTS_PER_CLIENT
    first = await asyncio.to_thread(send, clients, max(_calibration(load), each.to_calibrate * clients))
    requests = max(int(first.per_second * seconds), each.least * clients, REQUESTS_MIN)
    before = await contender.changes()
    used_before = _used(contender, leader)
    measured = await asyncio.to_thread(send, clients, requests)
    used = [after - earlier for after, earlier in zip(_used(contender, leader), used_before, strict=True)]
    grown = await contender.changes() - before
    if growth >= 0 and grown != growth * requests:
        raise LoadError(f"{contender.name} answered {requests} requests but its counter grew by {grown}")
    microseconds = [part * 1_000_000 / requests for part in used]
    return Turn(measured.per_second, measured.p50_ms, measured.p99_ms, microseconds[0], microseconds[1])


def _calibration(load: Load) -> int:
    return 4 if load.name.startswith("list") else CALIBRATION_REQUESTS


def _used(contender: Contender, leader: int) -> tuple[float, float]:
    """Processor seconds of the leader, and of the others together."""
    others = (node for node in contender.nodes if node != leader)
    return processor_seconds(contender.pid(leader)), sum(processor_seconds(contender.pid(node)) for node in others)


async def fill(contender: Contender, keys: Sequence[str], clients: int = 8) -> None:
    """Write records, in transactions."""
    leader = await contender.leader()
    parts = (keys[start : start + KEYS_PER_TRANSACTION] for start in range(0, len(keys), KEYS_PER_TRANSACTION))
    requests = (request(contender, leader, contender.put_many(part, VALUE)) for part in parts)
    count = -(-len(keys) // KEYS_PER_TRANSACTION)
    await asyncio.to_thread(drive_raw, contender.endpoint(leader), min(clients, count), count, lambda: next(requests))
