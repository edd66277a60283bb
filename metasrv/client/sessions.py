"""A session: a key that lives as long as this program and its connection to the cluster, and work done once in it.

    async with client.session(ttl_ms=10_000) as session:
        ...
        if session.lost.is_set(): ...

The key has a time to live and is renewed three times in it. Only a renewal that was acknowledged counts, from the moment
at which it was *sent*: the cluster adds the time to live to a later moment. The session is lost `margin_ms` before that
time is over, by a clock that nobody sets, so before the cluster can give what was held in it to somebody else. What
this assumes: from one leader to the next, the members' clocks do not run ahead by more than the margin. What it cannot
do: stop a program that is paused between the question and the deed. A fencing token can (`Transaction.fenced_by`).

Knows no recipe. Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

from metasrv.client.boot_clock import boot_seconds
from metasrv.client.interface import KeyValueClient
from metasrv.client.loss import Loss, SessionLostError
from metasrv.client.outcomes import ClientClosedError
from metasrv.client.session_record import NO_WORK, Finding, SessionRecord, Work
from metasrv.client.transaction import Transaction
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.limits import SESSION_DELETE_KEYS_MAX
from metasrv.protocol.proto import meta_pb2 as pb

TTL_MS_DEFAULT = 10_000
TTL_MS_MIN = 1_000
SESSION_PREFIX_DEFAULT = "sessions/"
MARGIN_OF_TTL = 0.2
RENEWALS_PER_TTL = 3
ATTEMPTS_PER_TTL = 5
"""A call that renews waits for one node for this fraction of the time to live."""
PAUSE_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""Longest time between two looks at the session's clock, which goes on while the event loop's stands still."""
Result = TypeVar("Result")


class Executed(NamedTuple):
    """A transaction that was executed exactly once."""

    success: bool
    """Whether its conditions held."""
    responses: tuple[c.OperationResponse, ...] | None
    """Answers to its operations; None when they were lost, and only the outcome is known."""


class AsyncSession:
    """One session, open between `open` and `close`, or in `async with`. Any number of recipes may stand on it."""

    def __init__(
        self,
        client: KeyValueClient,
        *,
        ttl_ms: int = TTL_MS_DEFAULT,
        margin_ms: int | None = None,
        prefix: str = SESSION_PREFIX_DEFAULT,
        name: str = "",
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """`margin_ms` is by default a fifth of `ttl_ms`. The key is `prefix` and a random id, so `name`, which operators
        see in its value, need not be unique. `clock` gives seconds that nobody sets."""
        if ttl_ms < TTL_MS_MIN:
            raise ValueError(f"ttl_ms is {ttl_ms}, at least {TTL_MS_MIN} is needed")
        margin = ttl_ms * MARGIN_OF_TTL if margin_ms is None else margin_ms
        if not 0 <= margin <= ttl_ms / 2:
            raise ValueError(f"margin_ms is {margin:g}, between 0 and half of ttl_ms is possible")
        if "\n" in prefix or "\n" in name:
            raise ValueError("a session's prefix and name have no line breaks")
        self.client = client
        self.id = uuid4().hex
        self.key = prefix + self.id
        self.ttl_ms = ttl_ms
        self._life_seconds = (ttl_ms - margin) / 1000
        self._clock = clock
        self._record = SessionRecord(self.key, name, ttl_ms)
        self._turn = asyncio.Lock()
        self._renewed_at = clock()
        self._seq = 0
        self._last = NO_WORK
        self._number = 0
        self._unsettled = False
        """Whether the outcome of the work with the newest number is unknown."""
        self._opened = False
        self._keys: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost = Loss(self._is_overdue, "no renewal was acknowledged in time")
        """Set when the session is over; the module says by which rule."""

    # ------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Write the session's key and keep it alive from now on. Raises as a write of the client does."""
        if self._opened:
            raise RuntimeError("a session is opened once")
        self._opened = True
        begun_at = self._clock()
        while True:
            sent_at = self._clock()
            try:
                reply = await self.client.transaction(self._record.opening())
            except UnknownOutcomeError:  # again: the key is this session's alone, and nothing stands on it yet
                if self._clock() - begun_at > self._life_seconds:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            break
        # An earlier attempt may have written the key: it lives from then on.
        self._renewed_at = sent_at if reply.success else begun_at
        self._seq = self._record.seq_of(reply)
        self._start(self._keep_alive(), "session-keep-alive")
        self._start(self._watch_clock(), "session-clock")

    async def close(self) -> None:
        """End the session: its key and what was held in it go, at the latest when the time to live is over."""
        self.lost.set("the session was closed")
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._opened:
            return
        keys = sorted(self._keys)
        self._keys.clear()
        until = self._renewed_at + self.ttl_ms / 1000
        for first in range(0, max(len(keys), 1), SESSION_DELETE_KEYS_MAX):
            ending = self._record.ending(keys[first : first + SESSION_DELETE_KEYS_MAX])
            while not await self._is_done(ending) and self._clock() < until:  # noqa: ASYNC110 - time passes by itself
                await asyncio.sleep(PAUSE_SECONDS)

    async def _is_done(self, transaction: Transaction) -> bool:
        try:
            await self.client.transaction(transaction, timeout_ms=self._attempt_ms())
        except ClientClosedError:
            return True  # nothing can be sent any more
        except (NotDoneError, UnknownOutcomeError):
            return False
        return True

    def _is_overdue(self) -> bool:
        return self._clock() - self._renewed_at >= self._life_seconds

    def _attempt_ms(self) -> int:
        return max(self.ttl_ms // ATTEMPTS_PER_TTL, 200)

    async def _watch_clock(self) -> None:
        while not self.lost.is_set():
            left = self._renewed_at + self._life_seconds - self._clock()
            await asyncio.sleep(min(max(left, 0.001), LOOK_SECONDS))

    async def _keep_alive(self) -> None:
        """Renew in time. Ends with the session."""
        interval = self.ttl_ms / 1000 / RENEWALS_PER_TTL
        while not self.lost.is_set():
            wait = self._renewed_at + interval - self._clock()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            try:
                async with self._turn:
                    await self._renew()
            except (NotDoneError, UnknownOutcomeError):
                await asyncio.sleep(PAUSE_SECONDS)
            except SessionLostError:
                return

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------------------- work

    async def execute_once(self, transaction: Transaction) -> Executed:
        """Execute a transaction exactly once, also when its answer is lost, while the session lives.

        One at a time; each renews the session. Raises SessionLostError (executed or not: only the session's end keeps
        the outcome unknown), and what a write of the client raises when it certainly was not executed.
        """
        async with self._turn:
            await self._settle()
            self._number += 1
            self._unsettled = True
            while True:
                self.lost.check()
                executed = await self._attempt(transaction)
                if executed is not None:
                    return executed

    async def _attempt(self, transaction: Transaction) -> Executed | None:
        """One call, and whatever it takes to know its outcome; None when it was not executed and may be sent again."""
        sent_at = self._clock()
        request = self._record.wrapped(transaction, self._number, self._seq)
        try:
            reply = await self.client.transaction(request, timeout_ms=self._attempt_ms())
        except UnknownOutcomeError:
            finding = await self._settle()
            if finding is Finding.NOT_DONE:
                self._unsettled = True  # the same number is sent again
                return None
            return Executed(finding is Finding.THEN, None)
        except NotDoneError:
            self._unsettled = False
            raise
        self._seq = self._record.seq_of(reply)
        if self._record.was_moved(reply):
            if self._seq == 0:
                self.lost.set("the cluster ended the session")
            return None
        self._settled(Work(self._number, reply.success))
        self._renewed_at = max(self._renewed_at, sent_at)
        return Executed(reply.success, reply.responses[:-1])

    async def _settle(self) -> Finding:
        """Make sure of the outcome of the newest work. Raises SessionLostError."""
        while self._unsettled:
            self.lost.check()
            try:
                return await self._renew()
            except (NotDoneError, UnknownOutcomeError):
                await asyncio.sleep(PAUSE_SECONDS)
        return Finding.NOT_DONE

    async def _renew(self) -> Finding:
        """Renew the key, which tells the outcome of work. Raises as a write of the client does, and SessionLostError."""
        sent_at = self._clock()
        request: pb.TxnRequest = self._record.renewal(self._last, self._number)
        reply = await self.client.transaction(request, timeout_ms=self._attempt_ms())
        finding = self._record.found(reply)
        if finding is Finding.NO_SESSION:
            self.lost.set("the cluster ended the session")
            self.lost.check()
        self._seq = self._record.seq_of(reply)
        self._renewed_at = max(self._renewed_at, sent_at)
        if finding is Finding.NOT_DONE:
            self._unsettled = False
        else:
            self._settled(Work(self._number, finding is Finding.THEN))
        return finding

    def _settled(self, work: Work) -> None:
        self._last = work
        self._unsettled = False

    # ------------------------------------------------------------------------- keys that belong to the session

    def attach(self, key: str) -> None:
        """Delete this key with the session, if it is there then."""
        self.lost.check()
        self._keys.add(key)

    async def detach(self, key: str) -> None:
        """Delete a key of the session. Cancelled meanwhile, it goes on in the background while the session lives."""
        task = self.detach_later(key)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def detach_later(self, key: str) -> asyncio.Task[None]:
        """The same in the background, for whoever is cancelled and cannot wait."""
        return self.execute_later(Transaction().delete(key), key)

    def execute_later(self, transaction: Transaction, key: str | None = None) -> asyncio.Task[None]:
        """Execute a transaction in the background while the session lives, behind all that was sent before it."""

        async def execute() -> None:
            while not self.lost.is_set():
                try:
                    await self.execute_once(transaction)
                except NotDoneError:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                except SessionLostError:
                    return
                if key is not None:
                    self._keys.discard(key)
                return

        return self._start(execute(), "session-later")

    async def while_alive(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`; SessionLostError as soon as the session is over."""
        task = asyncio.create_task(work, name="session-work")
        loss = asyncio.create_task(self.lost.wait(), name="session-loss")
        try:
            await asyncio.wait((task, loss), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.lost.check()
            return await task
        finally:
            for each in (task, loss):
                each.cancel()
            await asyncio.gather(task, loss, return_exceptions=True)
