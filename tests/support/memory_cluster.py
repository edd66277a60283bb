"""A cluster in memory on a test's event loop: the contract's model behind the interface that recipes use.

Time is the loop's, so a test on virtual time plays days in no time. A client can be told what becomes of its writes:
answers that are lost, writes that are lost, writes that are executed late, a connection that is gone.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncGenerator, Callable, Sequence

from metasrv.client.answers import WatchEvent
from metasrv.client.transaction import Transaction
from metasrv.grpc_api.requests import transaction_from
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.state_model import Model, expiry_of

BASE_MS = 1_795_000_000_000
LATENCY_SECONDS = 0.001
CALL_SECONDS = 5.0


class Fate(enum.Enum):
    """What becomes of one write."""

    DONE = "done"
    ANSWER_LOST = "executed, and the client is not told"
    LOST = "not executed, and the client is not told"
    LATE = "executed long after the client was told that nobody knows"
    REFUSED = "certainly not executed"


class RefusedByTestError(NotDoneError):
    """A write that was certainly not executed."""

    def __init__(self) -> None:
        super().__init__("refused by the test")


class MemoryCluster:
    """The state, the time, and who watches."""

    def __init__(self) -> None:
        self.model = Model()
        self.fast_seconds = 0.0
        """How far the cluster's clock is ahead of real time."""
        self.transactions = 0
        self._watchers: set[_Watcher] = set()
        self._delivered = 0
        self._alarm: asyncio.TimerHandle | None = None

    def now_ms(self) -> int:
        return BASE_MS + round((asyncio.get_running_loop().time() + self.fast_seconds) * 1000)

    def apply(self, command: c.Command) -> c.Reply:
        (reply,) = self.model.apply(self.now_ms(), (command,))
        for key, prev, current in self.model.events[self._delivered :]:
            for watcher in self._watchers:
                watcher.hear(key, prev, current)
        self._delivered = len(self.model.events)
        self._set_alarm()
        return reply

    def _set_alarm(self) -> None:
        """Expiry in an idle cluster: a tick when the next key is due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = [expiry for record in self.model.records.values() if (expiry := expiry_of(record)) is not None]
        if due:
            seconds = max((min(due) + 1 - self.now_ms()) / 1000, 0.001)
            self._alarm = asyncio.get_running_loop().call_later(seconds, self.apply, c.TICK)

    def reset_watches(self) -> None:
        """Every watch ends, as when its node takes over a snapshot."""
        for watcher in tuple(self._watchers):
            watcher.queue.put_nowait(None)
            self._watchers.discard(watcher)

    def put(self, key: str, value: bytes) -> int:
        """Write at once, from nowhere; returns the sequence number."""
        self.apply(transaction_from(Transaction().put(key, value).request))
        return self.model.records[key].seq

    def delete(self, key: str) -> None:
        self.apply(transaction_from(Transaction().delete(key).request))

    def present(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self.model.records if key.startswith(prefix))

    def client(self, seed: int = 0) -> MemoryClient:
        return MemoryClient(self, seed)

    def subscribe(self, watcher: _Watcher) -> None:
        self._watchers.add(watcher)

    def unsubscribe(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)


class _Watcher:
    def __init__(self, key: str, key_end: str | None, kind: pb.WatchRequest.FilterType) -> None:
        self._key = key
        self._key_end = key_end
        self._kind = kind
        self.queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()

    def covers(self, key: str) -> bool:
        return key == self._key if self._key_end is None else self._key <= key < self._key_end

    def hear(self, key: str, prev: SeqV | None, current: SeqV | None) -> None:
        deletes_only = self._kind == pb.WatchRequest.DELETE
        if self.covers(key) and not (deletes_only and current is not None):
            self.queue.put_nowait(WatchEvent(key, prev, current, False))


class MemoryClient:
    """One program's client. `fate` chooses what becomes of each write; a client that is `cut_off` reaches nobody."""

    def __init__(self, cluster: MemoryCluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.fate: Callable[[pb.TxnRequest], Fate] = lambda _: Fate.DONE
        self.cut_off = False
        self.lists = 0
        self.watches = 0
        self.late_seconds = 3.0

    async def get(self, key: str) -> SeqV | None:
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[str]) -> list[SeqV | None]:
        await self._reach()
        self.cluster.apply(c.TICK)
        return [self.cluster.model.records.get(key) for key in keys]

    async def list_prefix(self, prefix: str, *, limit: int | None = None) -> list[tuple[str, SeqV]]:
        await self._reach()
        self.lists += 1
        self.cluster.apply(c.TICK)
        return [(key, self.cluster.model.records[key]) for key in self.cluster.present(prefix)][:limit]

    async def transaction(
        self, transaction: Transaction | pb.TxnRequest, *, timeout_ms: int | None = None
    ) -> c.TransactionReply:
        request = pb.TxnRequest()
        request.CopyFrom(transaction.request if isinstance(transaction, Transaction) else transaction)
        await self._reach(CALL_SECONDS if timeout_ms is None else timeout_ms / 1000)
        fate = self.fate(request)
        if fate is Fate.REFUSED:
            raise RefusedByTestError
        command = transaction_from(request)
        if fate is Fate.LATE:
            asyncio.get_running_loop().call_later(self.late_seconds, self.cluster.apply, command)
        if fate in (Fate.LOST, Fate.LATE):
            raise UnknownOutcomeError("lost by the test")
        self.cluster.transactions += 1
        reply = self.cluster.apply(command)
        await asyncio.sleep(LATENCY_SECONDS)
        if fate is Fate.ANSWER_LOST:
            raise UnknownOutcomeError("the answer was lost by the test")
        assert isinstance(reply, c.TransactionReply)
        return reply

    async def watch(
        self,
        key: str,
        key_end: str | None = None,
        *,
        filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
        initial_flush: bool = False,
        require_leader: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        assert require_leader, "a watch that may go silent"
        await self._reach()
        self.watches += 1
        watcher = _Watcher(key, key_end, filter_type)
        self.cluster.apply(c.TICK)
        if initial_flush:
            for each in self.cluster.present():
                if watcher.covers(each):
                    watcher.queue.put_nowait(WatchEvent(each, None, self.cluster.model.records[each], True))
            watcher.queue.put_nowait(WatchEvent("", None, None, False, True))
        self.cluster.subscribe(watcher)
        try:
            while (event := await watcher.queue.get()) is not None:
                yield event
        finally:
            self.cluster.unsubscribe(watcher)
        raise NotDoneError("the watch was reset by the test")

    async def _reach(self, seconds: float = CALL_SECONDS) -> None:
        if self.cut_off:
            await asyncio.sleep(seconds)
            if self.cut_off:
                raise NotDoneError("nobody answers this client")
        await asyncio.sleep(LATENCY_SECONDS)


def any_fate(client: MemoryClient, share: float) -> Callable[[pb.TxnRequest], Fate]:
    """Writes that fare badly in all ways, as often as `share` says."""

    def choose(_: pb.TxnRequest) -> Fate:
        if client.random.random() >= share:
            return Fate.DONE
        return client.random.choice([Fate.ANSWER_LOST, Fate.LOST, Fate.LATE, Fate.REFUSED])

    return choose
