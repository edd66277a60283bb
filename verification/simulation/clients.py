"""Clients of the simulated cluster: what they ask, through which node, and what they were told.

Each client works on its own record log, and shares registers and counters with the others. Every write has a value of
its own, so that lost, doubled and invented writes all show. Runs in the world's loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from metasrv.grpc_api.get_many import answer_at_one_instant
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError, WriteRefusedError
from metasrv.model.limits import EXPRESSION_DEPTH_MAX
from metasrv.model.types import SeqV
from metasrv.testing.history import UNKNOWN_OUTCOME, Operation
from verification.simulation.cluster import SimulatedCluster, WrongAnswerError
from verification.simulation.machine import Process

REQUEST_TIMEOUT_MS = 1_500
CLIENT_TIMEOUT_SECONDS = 2.0
"""A client waits a little longer than the node does."""
BACK_OFF_SECONDS = 0.05
_UNKNOWN_PER_KEY_MAX = 2
"""Unknown outcomes after which a key is no longer used: each doubles what the checker has to try."""


@dataclass(slots=True)
class Told:
    """What all clients did and were told."""

    operations: list[Operation] = field(default_factory=list)
    """On registers and counters."""
    done: set[str] = field(default_factory=set)
    """Tags of acknowledged writes."""
    perhaps: set[str] = field(default_factory=set)
    not_done: set[str] = field(default_factory=set)
    reads: int = 0


def _taken(reply: c.Reply) -> c.Reply:
    """The answer to a write that was taken, as the client port gives it (`grpc_api/kv.py`)."""
    if isinstance(reply, c.RefusedReply):
        raise WriteRefusedError(reply.text)
    return reply


def _pair(number: int) -> tuple[str, str]:
    """Two keys that are written together, and never apart."""
    return f"pair/{number}/x", f"pair/{number}/y"


class Clients:
    """`count` clients; each does `operations` operations with a mean pause of `pause_seconds`."""

    def __init__(self, cluster: SimulatedCluster, seed: str, count: int, operations: int, pause_seconds: float) -> None:
        self.told = Told()
        self._cluster = cluster
        self._seed = seed
        self._count = count
        self._operations = operations
        self._pause_seconds = pause_seconds
        self._epochs: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self._stopping = False
        self._stopped = asyncio.Event()
        self._probes = 0
        self._extra: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Return when all clients have finished or were told to stop."""
        await asyncio.gather(*(self._client(number) for number in range(self._count)))
        while not self._stopping or self._extra:
            extra, self._extra = self._extra, []
            await asyncio.gather(*extra, self._until_stopped(0.05))

    async def _until_stopped(self, seconds_max: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._stopped.wait()

    def stop(self) -> None:
        self._stopping = True
        self._stopped.set()

    def probe(self, reads_from: int, writes_to: int) -> None:
        """An extra client writes through one node, and another reads the same register through a different node."""
        self._probes += 1
        serial = self._probes
        if serial % 4 == 1:
            tag = f"log/500/{serial}"
            self._besides(500, self._write(500, writes_to, self._key("register", 0), tag))
        self._besides(501, self.read(501, reads_from, self._key("register", 0)))

    def write(self, node_id: int) -> None:
        """An extra client writes through a node now and waits for the answer, however long that takes."""
        self._probes += 1
        tag = f"log/502/{self._probes}"
        command = c.Transaction((), (), (c.Put(tag, b"1"),), ())
        self._besides(502, self._tagged(502, node_id, "tags", "put", tag, tag, command, lambda reply: reply.success))

    def _besides(self, client: int, work: Awaitable[object]) -> None:
        async def one() -> None:
            try:
                await work
            except (NotDoneError, UnknownOutcomeError):
                self._cluster.note(f"client {client} was refused")

        self._extra.append(asyncio.create_task(one()))

    def keys_used(self) -> list[tuple[str, str]]:
        """Kind and current name of every key that was used."""
        return [(name.split("/")[0], f"{name}/{epoch}") for name, epoch in sorted(self._epochs.items())]

    async def _client(self, number: int) -> None:
        source = random.Random(f"{self._seed}/client {number}")
        for serial in range(self._operations):
            if self._stopping:
                return
            await asyncio.sleep(self._pause_seconds * source.random() * 2)
            try:
                await self._one(number, serial, source)
            except (NotDoneError, UnknownOutcomeError):
                await asyncio.sleep(BACK_OFF_SECONDS)

    async def _one(self, number: int, serial: int, source: random.Random) -> None:
        nodes = sorted(self._cluster.machines)
        node_id = nodes[source.randrange(len(nodes))]
        key = source.choice((0, 0, 1))
        tag = f"log/{number}/{serial}"
        match source.randrange(12):
            case 0 | 1:
                await self.read(number, node_id, self._key("register", key))
            case 2:
                await self.read_counter(number, node_id, self._key("counter", key))
            case 3 | 4:
                await self._write(number, node_id, self._key("register", key), tag)
            case 8:
                await self._lease(node_id, key, source.choice((20, 100, 500)))
            case 9:
                await self._impossible(node_id)
            case 10:
                await self._write_pair(node_id, key, tag)
            case 11:
                await self._read_pair(node_id, key, source.choice((0.0, 0.005, 0.05)))
            case 5:
                await self._swap(number, node_id, self._key("register", key), tag)
            case _:
                await self._add(number, node_id, self._key("counter", key), tag, source.randint(1, 3))

    def _key(self, kind: str, number: int) -> str:
        name = f"{kind}/{number}"
        epoch = self._epochs.setdefault(name, 0)
        if self._unknown.get(f"{name}/{epoch}", 0) >= _UNKNOWN_PER_KEY_MAX:
            epoch = self._epochs[name] = epoch + 1
        return f"{name}/{epoch}"

    # ------------------------------------------------------------------ operations

    async def read(self, client: int, node_id: int, key: str) -> str | None:
        """A linearizable read through any node, leader or not."""

        async def call(process: Process) -> str | None:
            await process.consensus.read_barrier(REQUEST_TIMEOUT_MS)
            record = process.data.machine.get(key, 0)
            return None if record is None else record.data.decode()

        self.told.reads += 1
        value: str | None = await self._recorded(client, node_id, key, "read", None, call)
        return value

    async def read_counter(self, client: int, node_id: int, key: str) -> int:
        async def call(process: Process) -> int:
            await process.consensus.read_barrier(REQUEST_TIMEOUT_MS)
            record = process.data.machine.get(key, 0)
            return 0 if record is None else int(record.data)

        self.told.reads += 1
        value: int = await self._recorded(client, node_id, key, "read", None, call)
        return value

    async def _write(self, client: int, node_id: int, key: str, tag: str) -> None:
        operations = (c.Put(key, tag.encode()), c.Put(tag, b"1"))
        await self._tagged(client, node_id, key, "write", tag, tag, c.Transaction((), (), operations, ()), lambda _: None)

    async def _swap(self, client: int, node_id: int, key: str, tag: str) -> None:
        seen = await self.read(client, node_id, key)
        if seen is None:
            condition = c.Condition(key, c.Target.SEQ, 0, c.Comparison.EQ)
        else:
            condition = c.Condition(key, c.Target.VALUE, seen.encode(), c.Comparison.EQ)
        operations = (c.Put(key, tag.encode()), c.Put(tag, b"1"))
        command = c.Transaction((), (condition,), operations, (c.Put(tag, b"0"),))
        await self._tagged(
            client, node_id, key, "compare_and_set", (seen, tag), tag, command, lambda reply: reply.success
        )

    async def _add(self, client: int, node_id: int, key: str, tag: str, delta: int) -> None:
        operations = (c.FetchIncrease(key, delta), c.Put(tag, b"1"))

        def after(reply: c.TransactionReply) -> int:
            match reply.responses:
                case (c.FetchIncreaseResponse() as response, *_):
                    return response.after
            raise WrongAnswerError(reply)

        await self._tagged(client, node_id, key, "add", delta, tag, c.Transaction((), (), operations, ()), after)

    async def _lease(self, node_id: int, number: int, ttl_ms: int) -> None:
        """Write a record that expires; all nodes must agree when, whatever their clocks say."""

        async def call(process: Process) -> object:
            command = c.Upsert(f"lease/{number}", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"1", ttl_ms=ttl_ms)
            return await process.consensus.propose(command, REQUEST_TIMEOUT_MS)

        await self._cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)

    async def _impossible(self, node_id: int) -> None:
        """A command that no node can apply: it must be answered, and nothing else must happen (D7)."""
        predicate = c.Expression(c.Combine.AND, (), ())
        for _ in range(EXPRESSION_DEPTH_MAX + 1):
            predicate = c.Expression(c.Combine.AND, (predicate,), ())
        command = c.BranchTransaction((c.Branch(predicate, ()),))

        async def call(process: Process) -> c.Reply:
            return await process.consensus.propose(command, REQUEST_TIMEOUT_MS)

        reply = await self._cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)
        if not isinstance(reply, c.ErrorReply):
            self._cluster.witness.violation(f"a command that cannot be applied was answered with {reply}")

    async def _write_pair(self, node_id: int, number: int, tag: str) -> None:
        """Write two records in one transaction."""
        operations = tuple(c.Put(key, tag.encode()) for key in _pair(number))

        async def call(process: Process) -> object:
            return await process.consensus.propose(c.Transaction((), (), operations, ()), REQUEST_TIMEOUT_MS)

        await self._cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)

    async def _read_pair(self, node_id: int, number: int, seconds_between: float) -> None:
        """Ask for both records in one KvGetMany call, the second a little later: they must never differ."""
        found: list[bytes | None] = []

        async def keys() -> AsyncIterator[str]:
            for key in _pair(number):
                yield key
                await asyncio.sleep(seconds_between)

        async def send(_key: str, record: SeqV | None) -> None:
            found.append(None if record is None else record.data)

        async def call(process: Process) -> None:
            await process.consensus.read_barrier(REQUEST_TIMEOUT_MS)
            await answer_at_one_instant(process.data.machine, keys(), 0, send)

        await self._cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)
        self._cluster.witness.count("pairs read")
        if found[0] != found[1]:
            self._cluster.witness.violation(
                f"one call found {found[0]!r} and {found[1]!r} in two records that are written together"
            )

    async def mark(self, node_id: int) -> None:
        """Write a record nobody reads: does the node accept writes? Raises NotDoneError, UnknownOutcomeError."""

        async def call(process: Process) -> object:
            command = c.Upsert("mark", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"1")
            return _taken(await process.consensus.propose(command, REQUEST_TIMEOUT_MS))

        await self._cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)

    # ------------------------------------------------------------------ bookkeeping

    async def _tagged(
        self,
        client: int,
        node_id: int,
        key: str,
        name: str,
        argument: Any,
        tag: str,
        command: c.Transaction,
        output: Callable[[c.TransactionReply], Any],
    ) -> None:
        """A write that leaves its tag behind, in the same transaction."""

        async def call(process: Process) -> Any:
            reply = _taken(await process.consensus.propose(command, REQUEST_TIMEOUT_MS))
            if not isinstance(reply, c.TransactionReply):
                raise WrongAnswerError(reply)
            return output(reply)

        try:
            await self._recorded(client, node_id, key, name, argument, call)
        except NotDoneError:
            self.told.not_done.add(tag)
            raise
        except UnknownOutcomeError:
            self.told.perhaps.add(tag)
            raise
        self.told.done.add(tag)

    async def _recorded(
        self,
        client: int,
        node_id: int,
        key: str,
        name: str,
        argument: Any,
        call: Callable[[Process], Awaitable[Any]],
    ) -> Any:
        cluster = self._cluster
        called_at = cluster.scheduler.now
        try:
            output = await cluster.ask(node_id, call, CLIENT_TIMEOUT_SECONDS)
        except UnknownOutcomeError:
            if name != "read":
                self._unknown[key] = self._unknown.get(key, 0) + 1
                self.told.operations.append(Operation(client, key, name, argument, UNKNOWN_OUTCOME, called_at, None))
            raise
        except WrongAnswerError as error:
            cluster.witness.violation(f"client {client} asked for {name} {key} and was answered {error}")
            raise UnknownOutcomeError("the answer is to another question") from error
        self.told.operations.append(Operation(client, key, name, argument, output, called_at, cluster.scheduler.now))
        cluster.note(f"client {client} {name} {key} {argument} -> {output}")
        return output
