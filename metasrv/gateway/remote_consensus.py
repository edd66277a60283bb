"""The node's consensus as its gateway sees it: implements `metasrv.consensus.ClientConsensus` over the link.

All reads that arrive before a turn's messages leave share one barrier. What waits for the node is bounded, and every wait
has an end, even if the node never answers: a write that was sent is then an unknown outcome (invariant 4).
Runs on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromGateway
from metasrv.gateway.statuses import status_in
from metasrv.model.codec import decode_reply, encode_command
from metasrv.model.commands import Command, Reply
from metasrv.model.errors import CodecError, NotDoneError, OverloadedError, RequestError, UnknownOutcomeError
from metasrv.model.limits import PROPOSALS_WAITING_BYTES_MAX, PROPOSALS_WAITING_MAX, READ_WAITERS_MAX
from metasrv.model.types import RaftStatus
from metasrv.model.wire import byte_string, unsigned
from metasrv.process.clock import Clock, SystemClock
from metasrv.tracing.times import CURRENT

T = TypeVar("T")

GRACE_SECONDS = 2.0
"""How much longer than the node a gateway waits: the node says better what became of a request."""
STATUS_TIMEOUT_MS = 5_000

UntilRead = Callable[[int], Awaitable[None]]
"""Returns once the state of the file with this number is the one that is read."""


class _Barrier(NamedTuple):
    """A barrier that has not left yet."""

    number: int
    timeout_ms: int


class RemoteConsensus:
    """See the module. Set `until_read` before the first read."""

    def __init__(self, link: Link, numbers: Iterator[int], status: RaftStatus, processes: int) -> None:
        """`numbers` are those of all requests of this gateway."""
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._clock: Clock = SystemClock()
        self._status = status
        self._numbers = numbers
        self._proposals: dict[int, asyncio.Future[bytes]] = {}
        self._proposals_size_bytes = 0
        self._proposals_max = max(1, PROPOSALS_WAITING_MAX // processes)
        self._proposals_size_bytes_max = PROPOSALS_WAITING_BYTES_MAX // processes
        self._reads: dict[int, list[asyncio.Future[int]]] = {}
        """Those that wait for a barrier, or for the file to be current, by its number."""
        self._reads_waiting = 0
        self._reads_max = max(1, READ_WAITERS_MAX // processes)
        self._joinable: dict[bool, _Barrier] = {}
        """Barriers that have not left, by whether a follower asks the leader."""
        self._asked_status: dict[int, asyncio.Future[RaftStatus]] = {}
        self.until_read: UntilRead = _at_once
        self.check_link: Callable[[], None] = _nothing
        """Raises NotDoneError while there is no link, where one may end and another begin."""
        self.forwards_all = False
        """Whether what only a leader does is forwarded as well: for clients that are to know no node."""
        link.before_write = self.leaves

    def leaves(self) -> None:
        """This turn's messages leave now: nothing may join one of them afterwards."""
        self._joinable.clear()

    # ------------------------------------------------------------------------- ClientConsensus

    def status(self) -> RaftStatus:
        """What the node told last; `fresh_status` asks."""
        return self._status

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        return await self._propose(command, timeout_ms, forwards=True)

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        return await self._propose(command, timeout_ms, forwards=self.forwards_all)

    async def read_barrier(self, timeout_ms: int) -> None:
        await self._barrier(timeout_ms, forwards=True)

    async def read_barrier_local(self, timeout_ms: int) -> None:
        await self._barrier(timeout_ms, forwards=self.forwards_all)

    # ------------------------------------------------------------------------- more that a gateway asks

    async def fresh_status(self) -> RaftStatus:
        """The node's status now. Raises NotDoneError."""
        self.check_link()
        number, future = next(self._numbers), self._loop.create_future()
        self._asked_status[number] = future
        self._link.send((FromGateway.STATUS, number))
        try:
            return await self._answer(future, STATUS_TIMEOUT_MS, NotDoneError("the node did not tell its status in time"))
        finally:
            self._asked_status.pop(number, None)

    async def until_current(self, timeout_ms: int = STATUS_TIMEOUT_MS) -> None:
        """Return once the state file that is read has everything that the node has applied. Raises NotDoneError."""
        await self.until_read(await self.current_file(timeout_ms))

    async def current_file(self, timeout_ms: int = STATUS_TIMEOUT_MS) -> int:
        """Have the node write what it has applied to the state file; returns the number of that file."""
        number = next(self._numbers)
        self._reads[number] = []
        self._link.send((FromGateway.CURRENT, number))
        return await self._wait_for_read(number, timeout_ms)

    # ------------------------------------------------------------------------- what the node says

    def done(self, number: Any, reply: Any) -> None:
        future = self._proposals.get(unsigned(number))
        if future is not None and not future.done():
            future.set_result(byte_string(reply))

    def failed(self, number: int, error: RequestError) -> None:
        future = self._proposals.get(number)
        if future is not None and not future.done():
            future.set_exception(error)
        for waiter in self._reads.pop(number, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def is_current(self, number: Any, installs: Any) -> None:
        for waiter in self._reads.pop(unsigned(number), ()):
            if not waiter.done():
                waiter.set_result(unsigned(installs))

    def told_status(self, number: Any, tree: Any) -> None:
        self._status = status_in(tree)
        future = self._asked_status.get(unsigned(number))
        if future is not None and not future.done():
            future.set_result(self._status)

    def take_status(self, status: RaftStatus) -> None:
        """A node has told its status without a number."""
        self._status = status

    def lost(self, not_done: RequestError, unknown: RequestError) -> None:
        """The link has ended: reads end with `not_done`, writes that were sent with `unknown`."""
        self._joinable.clear()
        for number in tuple(self._reads):
            self.failed(number, not_done)
        for proposal in self._proposals.values():
            if not proposal.done():
                proposal.set_exception(unknown)
        for asked in self._asked_status.values():
            if not asked.done():
                asked.set_exception(not_done)

    # ------------------------------------------------------------------------- inside

    async def _propose(self, command: Command, timeout_ms: int, *, forwards: bool) -> Reply:
        self.check_link()
        data = encode_command(command)
        size_bytes = len(data)
        if len(self._proposals) >= self._proposals_max:
            raise OverloadedError(f"{len(self._proposals)} writes of this gateway wait already, the limit")
        if self._proposals and self._proposals_size_bytes + size_bytes > self._proposals_size_bytes_max:
            raise OverloadedError(f"the writes of this gateway that wait take {self._proposals_size_bytes} bytes already")
        number, future = next(self._numbers), self._loop.create_future()
        self._proposals[number] = future
        self._proposals_size_bytes += size_bytes
        times = CURRENT.get()
        trace = () if times is None or times.trace is None else times.trace.forwarded(self._status.node_id)
        self._link.send((FromGateway.PROPOSE, number, forwards, timeout_ms, data, *trace), size_bytes)
        late = UnknownOutcomeError(f"the node did not say within {timeout_ms} ms what became of this write")
        try:
            reply = await self._answer(future, timeout_ms, late)
        finally:
            del self._proposals[number]
            self._proposals_size_bytes -= size_bytes
        try:
            return decode_reply(reply)
        except CodecError as error:
            raise UnknownOutcomeError(f"the node's answer is not understood: {error}") from error

    async def _barrier(self, timeout_ms: int, *, forwards: bool) -> None:
        self.check_link()
        barrier = self._joinable.get(forwards)
        if barrier is None or timeout_ms > barrier.timeout_ms:
            barrier = self._joinable[forwards] = _Barrier(next(self._numbers), timeout_ms)
            self._reads[barrier.number] = []
            self._link.send((FromGateway.BARRIER, barrier.number, forwards, timeout_ms))
        installs = await self._wait_for_read(barrier.number, timeout_ms)
        await self.until_read(installs)

    async def _wait_for_read(self, number: int, timeout_ms: int) -> int:
        if self._reads_waiting >= self._reads_max:
            raise OverloadedError(f"{self._reads_waiting} reads of this gateway wait already, the limit")
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._reads[number].append(waiter)
        self._reads_waiting += 1
        try:
            late = NotDoneError(f"the node did not confirm this read within {timeout_ms} ms")
            return await self._answer(waiter, timeout_ms, late)
        finally:
            self._reads_waiting -= 1

    async def _answer(self, future: asyncio.Future[T], timeout_ms: int, late: RequestError) -> T:
        times = CURRENT.get()
        if times is not None:  # to a gateway its node is one that it forwards to
            now = self._clock.monotonic()
            times.asked_at = times.asked_at or now
            times.forward(now, self._status.node_id)
        # A timer of its own costs a tenth of `asyncio.timeout`, and every request of a client ends here.
        timer = self._loop.call_later(timeout_ms / 1000 + GRACE_SECONDS, _give_up, future, late)
        try:
            answer = await future
        finally:
            timer.cancel()
        if times is not None:
            times.answered_at = self._clock.monotonic()
        return answer


def _give_up(future: asyncio.Future[Any], late: RequestError) -> None:
    if not future.done():
        future.set_exception(late)


async def _at_once(_installs: int) -> None:
    """There is one file only."""


def _nothing() -> None:
    """The link lasts as long as this process."""
