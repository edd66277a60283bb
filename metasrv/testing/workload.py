"""Writers and readers that remember what they were told, and the verdict on what they find afterwards.

Each client appends to its own log, where lost, doubled and invented records show. With a few neighbours it works on a
register, a counter and a group of keys under transactions; their histories go through the linearizability checker. Leases
that expire change the state between the writes. Runs on an event loop; knows stores, not nodes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.testing.history import UNKNOWN_OUTCOME, Operation
from metasrv.testing.linearizability import Violation, check
from metasrv.testing.models import CounterModel, Guarded, Model, RegisterModel, Step, TransactionModel
from metasrv.testing.store import Store, Written

CLIENTS_PER_KEY = 4
"""Clients that share a register, a counter and a group; more make the check expensive."""
KEYS_PER_GROUP = 3
LEASE_MS_MIN = 200
LEASE_MS_MAX = 1_500
OPERATIONS_PER_KEY_MAX = 400
"""Operations after which clients go on with a new key, as they do after an unknown outcome."""
BACK_OFF_SECONDS = 0.02
LOG_PREFIX = "log/"
READS = frozenset({"read", "read_all"})

MODELS: dict[str, Model] = {"register": RegisterModel(), "counter": CounterModel(), "group": TransactionModel()}
"""The kind of object that a key names, by its first part."""

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Record:
    """What all clients of a workload did and were told."""

    operations: list[Operation] = field(default_factory=list)
    """Operations on registers, counters and groups."""
    appended: set[str] = field(default_factory=set)
    """Acknowledged log records."""
    perhaps_appended: set[str] = field(default_factory=set)
    """Log records of unknown outcome."""
    acknowledged_at: list[float] = field(default_factory=list)
    """Monotonic seconds of every acknowledged write."""
    written: list[Written] = field(default_factory=list)
    """Acknowledged writes with their sequence numbers, in any order."""
    leases: int = 0
    unknown: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        return len(self.operations) + len(self.appended) + len(self.perhaps_appended) + self.leases

    def unavailable_seconds(self, since: float, until: float) -> float:
        """The longest time without an acknowledged write."""
        inside = [since, *sorted(at for at in self.acknowledged_at if since <= at <= until), until]
        return max(later - earlier for earlier, later in pairwise(inside))

    def gap_around(self, moment: float) -> float:
        """Seconds between the last acknowledged write before a moment and the first one after it."""
        before = max((at for at in self.acknowledged_at if at <= moment), default=moment)
        after = min((at for at in self.acknowledged_at if at > moment), default=time.monotonic())
        return after - before


class Workload:
    """`async with Workload(stores): ...` keeps one client per store busy; `record` says what they were told."""

    def __init__(self, stores: Sequence[Store], *, seed: int = 0, pause_s: float = 0.0, name: str = "") -> None:
        self.record = Record()
        self._stores = stores
        self._seed = seed
        self._pause_s = pause_s
        self._name = name
        self._epochs: Counter[str] = Counter()
        self._used: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Workload:
        self._tasks = [asyncio.create_task(self._client(number, store)) for number, store in enumerate(self._stores)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self.record.written = [one for store in self._stores for one in store.written]

    async def wait_for_writes(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until `count` more writes are acknowledged; AssertionError at the deadline."""
        target = len(self.record.acknowledged_at) + count
        deadline = time.monotonic() + timeout_s
        while len(self.record.acknowledged_at) < target:
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                missing = target - len(self.record.acknowledged_at)
                raise AssertionError(f"no service: {missing} of {count} writes missing after {timeout_s:g} s")
            await asyncio.sleep(0.01)

    async def _client(self, number: int, store: Store) -> None:
        source = random.Random(f"{self._seed}/{number}")  # noqa: S311 - a repeatable choice, not a secret
        group = number // CLIENTS_PER_KEY
        serial = 0
        while not self._stopping:
            serial += 1
            try:
                await self._append(number, store, f"{self._name}{number}-{serial}")
                await self._on_register(number, store, group, source, serial)
                await self._on_counter(number, store, group, source)
                await self._on_group(number, store, group, source, serial)
                if source.random() < 0.2:
                    await self._lease(number, store, source)
            except NotDoneError:
                self.record.refused += 1
                await asyncio.sleep(BACK_OFF_SECONDS)
            except UnknownOutcomeError:
                self.record.unknown += 1
                await asyncio.sleep(BACK_OFF_SECONDS)
            if self._pause_s:
                await asyncio.sleep(self._pause_s)

    async def _append(self, number: int, store: Store, value: str) -> None:
        try:
            await store.append(f"{LOG_PREFIX}{self._name}{number}/", value)
        except UnknownOutcomeError:
            self.record.perhaps_appended.add(value)
            raise
        self.record.appended.add(value)
        self.record.acknowledged_at.append(time.monotonic())

    async def _on_register(self, number: int, store: Store, group: int, source: random.Random, serial: int) -> None:
        key = self._key("register", group)
        value = f"{number}-{serial}"
        choice = source.random()
        if choice < 0.35:
            await self._record(number, key, "read", None, store.read(key))
        elif choice < 0.65:
            await self._record(number, key, "write", value, store.write(key, value))
        elif choice < 0.7:
            await self._record(number, key, "delete", None, store.delete(key))
        else:
            seen = await self._record(number, key, "read", None, store.read(key))
            await self._record(number, key, "compare_and_set", (seen, value), store.compare_and_set(key, seen, value))

    async def _on_counter(self, number: int, store: Store, group: int, source: random.Random) -> None:
        key = self._key("counter", group)
        delta = source.randint(1, 3)
        await self._record(number, key, "add", delta, store.add(key, delta))

    async def _on_group(self, number: int, store: Store, group: int, source: random.Random, serial: int) -> None:
        """Read all keys at one instant, or change some if one of them still is what it was."""
        base = self._key("group", group)
        keys = tuple(f"{base}/{number}" for number in range(KEYS_PER_GROUP))
        seen = await self._record(number, base, "read_all", keys, store.read_many(keys))
        if source.random() < 0.3:
            return
        guard, first, second = source.sample(range(KEYS_PER_GROUP), KEYS_PER_GROUP)
        value = f"{number}-{serial}"
        then = (
            Step("put", keys[first], value),
            Step("delete", keys[second]) if source.random() < 0.2 else Step("put", keys[second], value),
            Step("get", keys[guard]),
        )
        guarded = Guarded(((keys[guard], seen[guard]),), then, (Step("get", keys[first]),))
        await self._record(number, base, "transaction", guarded, store.transact(guarded))

    async def _lease(self, number: int, store: Store, source: random.Random) -> None:
        ttl_ms = source.randint(LEASE_MS_MIN, LEASE_MS_MAX)
        await store.write(f"lease/{self._name}{number}/{source.randrange(4)}", f"{number}", ttl_ms)
        self.record.leases += 1

    def _key(self, kind: str, group: int) -> str:
        name = f"{kind}/{self._name}{group}"
        if self._used[name] >= OPERATIONS_PER_KEY_MAX:
            self._epochs[name] += 1
            self._used[name] = 0
        self._used[name] += 1
        return f"{name}/{self._epochs[name]}"

    async def _record(self, number: int, key: str, name: str, argument: object, call: Awaitable[Answer]) -> Answer:
        """Await a call and add it to the history, unless it certainly did nothing."""
        called_at = time.monotonic()
        try:
            output = await call
        except UnknownOutcomeError:
            self.record.operations.append(Operation(number, key, name, argument, UNKNOWN_OUTCOME, called_at, None))
            base = key.rpartition("/")[0]
            self._used[base] = OPERATIONS_PER_KEY_MAX  # go on with a new key: unknown outcomes make the check slow
            raise
        returned_at = time.monotonic()
        self.record.operations.append(Operation(number, key, name, argument, output, called_at, returned_at))
        if name not in READS:
            self.record.acknowledged_at.append(returned_at)
        return output


def verdict(record: Record, stored_logs: Mapping[str, bytes]) -> list[str]:
    """Everything that is wrong, one text each; empty when all promises were kept.

    `stored_logs` are the records under `LOG_PREFIX`, read after the workload ended.
    """
    problems = [*wrong_logs(record, stored_logs), *wrong_order(record.written)]
    return [*problems, *map(str, wrong_histories(record.operations))]


def wrong_logs(record: Record, stored_logs: Mapping[str, bytes]) -> list[str]:
    """Appended records that are lost, doubled or invented."""
    found = Counter(value.decode() for value in stored_logs.values())
    problems = [f"acknowledged record {value!r} is missing" for value in sorted(record.appended - found.keys())]
    problems += [f"record {value!r} is stored {count} times" for value, count in found.items() if count > 1]
    invented = found.keys() - record.appended - record.perhaps_appended
    return problems + [f"record {value!r} was refused or never sent, and is stored" for value in sorted(invented)]


def wrong_histories(operations: Sequence[Operation]) -> list[Violation]:
    """Keys whose history is not linearizable."""
    histories: dict[str, list[Operation]] = {}
    for operation in operations:
        histories.setdefault(operation.key.partition("/")[0], []).append(operation)
    return [violation for kind, history in sorted(histories.items()) for violation in check(history, MODELS[kind])]


def wrong_order(written: Sequence[Written]) -> list[str]:
    """Acknowledged writes whose sequence numbers contradict the clients' clocks or each other.

    A write that was acknowledged before another was sent must have the smaller number.
    """
    problems = []
    earliest: Written | None = None
    later: Written | None = None
    for one in sorted(written, key=lambda one: one.seq, reverse=True):
        if later is not None and one.seq == later.seq and one.key != later.key:
            problems.append(f"sequence number {one.seq} was given to {one.key!r} and to {later.key!r}")
        if earliest is not None and one.called_at > earliest.returned_at:
            problems.append(
                f"write {one.seq} of {one.key!r} was sent after write {earliest.seq} of {earliest.key!r} was acknowledged"
            )
        if earliest is None or one.returned_at < earliest.returned_at:
            earliest = one
        later = one
    return problems
