"""Commands of a gateway on their way into the log: what of a frame came together is proposed and answered together.

Where this node leads, all commands of a frame wait with one callback and no task. Elsewhere consensus forwards them, a
task each; traced requests have tasks too. A command is decoded and encoded again, as one that another node forwards: no
gateway can put into the log what an encoder would not write. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from metasrv.consensus import Consensus
from metasrv.gateway.link import Link
from metasrv.gateway.messages import FromNode
from metasrv.model.codec import decode_command, encode_command, encode_reply
from metasrv.model.commands import Command, Reply
from metasrv.model.errors import NotDoneError, OverloadedError
from metasrv.model.failure_reasons import reason_of
from metasrv.process.clock import Clock
from metasrv.raft.consensus import RaftConsensus
from metasrv.tracing.times import CURRENT, RequestEnd, RequestTimes
from metasrv.tracing.watch import RequestWatch

METHOD = "forward"
"""The name of the spans, as of a write that another node forwards."""
AGAIN_SECONDS_MIN = 0.02
"""A write that was not done is proposed again if it has more time left than this."""


class Proposal(NamedTuple):
    """What a gateway asks to have written."""

    number: int
    forwards: bool
    """Whether a node that does not lead forwards it."""
    timeout_ms: int
    encoded: bytes
    trace: tuple[str, str] | None = None
    """`traceparent` and `tracestate` of a request that is traced."""


class _Proposed(NamedTuple):
    proposal: Proposal
    command: Command
    future: asyncio.Future[Reply]


class OwnLog(NamedTuple):
    """The log of a node that may lead, as `RaftConsensus.propose_local` uses it; for many commands at a time."""

    leads: Callable[[], bool]
    """Whether this node leads, and a majority has confirmed it lately."""
    refuse: Callable[[], None]
    """Raises NotDoneError when this node takes no commands."""
    submit: Callable[[Command, bytes, float, float], asyncio.Future[Reply]]
    """Command, its bytes, monotonic time, timeout in seconds. Raises OverloadedError."""
    wake: Callable[[float], None]
    """Have consensus look at what was submitted."""


def own_log_of(consensus: Consensus) -> OwnLog | None:
    """None for consensus without an engine, which tests have."""
    if not isinstance(consensus, RaftConsensus):
        return None
    replica = consensus.replica

    def refuse() -> None:
        consensus.refuse_if_stopping()
        consensus.refuse_if_damaged()

    return OwnLog(
        leads=lambda: replica.leader_id() == replica.node_id,
        refuse=refuse,
        submit=replica.driver.submit,
        wake=replica.driver.wake_for_proposal,
    )


class NodeWrites:
    """The writes of one gateway. `tell` is called before answers leave, `failed` for a write that has failed."""

    def __init__(
        self,
        consensus: Consensus,
        own_log: OwnLog | None,
        clock: Clock,
        watch: RequestWatch,
        link: Link,
        tell: Callable[[], None],
        failed: Callable[[int, Exception], None],
    ) -> None:
        self._consensus = consensus
        self._own_log = own_log
        self._clock = clock
        self._watch = watch
        self._link = link
        self._tell = tell
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.asked = (0, 0)
        """Writes that have a task, and the bytes of their commands."""

    def propose(self, proposals: list[Proposal]) -> None:
        """Propose what came together, in its order; each gets its answer."""
        if self._own_log is not None and self._own_log.leads():
            self._propose_here(self._own_log, proposals)
            return
        for proposal in proposals:
            try:
                command = decode_command(proposal.encoded)
            except Exception as error:
                self._failed(proposal.number, error)
            else:
                self._ask(proposal, command, proposal.timeout_ms)

    def close(self) -> None:
        """Nobody waits for answers any more; what is in the log stays there."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    # ------------------------------------------------------------------------- this node leads

    def _propose_here(self, own_log: OwnLog, proposals: list[Proposal]) -> None:
        try:
            own_log.refuse()
        except NotDoneError as error:
            for proposal in proposals:
                self._failed(proposal.number, error)
            return
        now, submit = self._clock.monotonic(), own_log.submit
        together: list[_Proposed] = []
        for proposal in proposals:
            try:
                command = decode_command(proposal.encoded)
                if proposal.trace is not None:
                    self._ask(proposal, command, proposal.timeout_ms)
                    continue
                future = submit(command, encode_command(command), now, proposal.timeout_ms / 1000)
            except Exception as error:
                self._failed(proposal.number, error)
                continue
            if together and together[-1].proposal.timeout_ms != proposal.timeout_ms:
                self._wait(together, now)
                together = []
            together.append(_Proposed(proposal, command, future))
        if together:
            self._wait(together, now)
            own_log.wake(now)

    def _wait(self, together: list[_Proposed], since: float) -> None:
        """Answer what was proposed together at `since`, with the same time left.

        The first to end says that there is something to answer: the others of its batch have ended in the same step, and
        what shares a deadline misses it together.
        """
        together[0].future.add_done_callback(lambda _first: self._some_ended(together, since))

    def _some_ended(self, together: list[_Proposed], since: float) -> None:
        if not self._closed:
            self._tell()
        left = []
        for proposed in together:
            if proposed.future.done():
                self._one_ended(proposed, since)
            else:
                left.append(proposed)
        if left:
            self._wait(left, since)

    def _one_ended(self, proposed: _Proposed, since: float) -> None:
        proposal, command, future = proposed
        error = future.exception()
        if self._closed:
            return
        if error is None:
            self._answer(proposal.number, future.result())
        elif (left_ms := self._left_ms(proposal, error, since)) > 0:
            self._ask(proposal, command, left_ms)
        elif isinstance(error, Exception):
            self._failed(proposal.number, error)

    def _left_ms(self, proposal: Proposal, error: BaseException, since: float) -> int:
        """For how long to propose it again, as `RaftConsensus.propose` does: it was certainly not executed (D15)."""
        if not proposal.forwards or not isinstance(error, NotDoneError) or isinstance(error, OverloadedError):
            return 0
        left_seconds = since + proposal.timeout_ms / 1000 - self._clock.monotonic()
        return int(left_seconds * 1000) if left_seconds > AGAIN_SECONDS_MIN else 0

    # ------------------------------------------------------------------------- another node leads, or it is traced

    def _ask(self, proposal: Proposal, command: Command, timeout_ms: int) -> None:
        task = self._loop.create_task(self._asked(proposal, command, timeout_ms))
        self._tasks.add(task)
        self._count_asked(1, len(proposal.encoded))
        task.add_done_callback(lambda done: self._asked_ended(done, proposal))

    def _asked_ended(self, task: asyncio.Task[None], proposal: Proposal) -> None:
        self._tasks.discard(task)
        self._count_asked(-1, -len(proposal.encoded))

    def _count_asked(self, writes: int, size_bytes: int) -> None:
        self.asked = (self.asked[0] + writes, self.asked[1] + size_bytes)

    async def _asked(self, proposal: Proposal, command: Command, timeout_ms: int) -> None:
        propose = self._consensus.propose if proposal.forwards else self._consensus.propose_local
        times, outcome = self._begin_trace(proposal.trace), "gateway_gone"
        try:
            reply = await propose(command, timeout_ms)
            outcome = "ok"
        except Exception as error:
            outcome = reason_of(error).value
            self._failed(proposal.number, error)
            return
        finally:
            if times is not None and times.trace is not None:
                times.trace.end(RequestEnd(METHOD, outcome), times, self._clock.monotonic())
        self._tell()
        self._answer(proposal.number, reply)

    def _begin_trace(self, carried: tuple[str, str] | None) -> RequestTimes | None:
        """The stamps of what this task does; the line of a slow request is the gateway's to write."""
        tracer = self._watch.tracer
        if carried is None or tracer is None:
            return None
        times = RequestTimes(self._clock.monotonic())
        times.trace = tracer.begin(METHOD, *carried)
        CURRENT.set(times)
        return times

    def _answer(self, number: int, reply: Reply) -> None:
        encoded = encode_reply(reply)
        self._link.send((FromNode.DONE, number, encoded), len(encoded))
