"""Reads of one key, the most frequent calls: from the frame to the answer without a task for each of them.

Reads that arrive within one turn of the loop wait for one read barrier, which begins after the last of them, and are
answered together; what is ready for one connection leaves in one write. Only what is usual is taken here: a plain GetKV
of a caller whose token needs no question to another node. `begin` leaves everything else to the dispatcher's way, which
says what is wrong with it, and has no effect then. Runs on the event loop; this is the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from copy import copy
from functools import partial
from time import perf_counter

from metasrv.grpc_api.calls import metadata_value, timeout_ms_of
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.ended_requests import ended_request
from metasrv.grpc_api.failures import Failure, failure_reason
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.http2.call import ServerCall
from metasrv.grpc_api.http2.output import Output
from metasrv.grpc_api.items import stream_item
from metasrv.grpc_api.kv_json import key_of_usual_get
from metasrv.grpc_api.leader import LeaderHint
from metasrv.grpc_api.quick_admission import QuickAdmission
from metasrv.grpc_api.rights import require
from metasrv.model.errors import MetasrvError, RequestError
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.limits import GRPC_STREAMS_PER_CONNECTION_MAX
from metasrv.model.loop_work import LoopWork
from metasrv.model.users import Right, User
from metasrv.protocol.methods import KV_READ_V1
from metasrv.state.validate import validate_key
from metasrv.tracing.request_ids import begin_request
from metasrv.tracing.times import CURRENT, RequestTimes

ANSWERING_SECONDS = 0.002
"""How long answers are made before the rest of the loop has its turn."""
TIMEOUT_STEP_MS = 50
"""Reads whose timeouts differ by less wait together, for the least of them."""
TIMEOUT_ALONE_MS_MAX = 500
"""With a timeout up to this, only reads of the very same wait together."""


class QuickRead:
    """One read that waits; implements `route.Waiting`."""

    __slots__ = ("call", "data", "ended", "key", "owner", "peer", "round", "started_at", "user")

    def __init__(
        self, owner: QuickReads, call: ServerCall, data: bytes, key: str, user: User | None, peer: str, started_at: float
    ) -> None:
        self.owner = owner
        self.call = call
        self.data = data
        self.key = key
        self.user = user
        self.peer = peer
        self.started_at = started_at
        self.ended = False
        self.round: Round

    def done(self) -> bool:
        return self.ended

    def cancel(self) -> None:
        if not self.ended:
            self.owner.gone(self)


class Round:
    """Reads that wait for the same barrier."""

    __slots__ = ("left", "reads", "task", "timeout_ms", "times")

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self.reads: list[QuickRead] = []
        self.left = 0
        """Reads that have not ended."""
        self.times: RequestTimes | None = None
        """The barrier's stamps, which all of them share; None while nothing watches requests, or before it begins."""
        self.task: asyncio.Task[None]


class QuickReads:
    """See the module. `streams` counts streaming calls under way by the client's address, `status_of` names a failure."""

    def __init__(
        self,
        context: GrpcContext,
        admission: QuickAdmission,
        authenticator: Authenticator,
        hint: LeaderHint,
        streams: dict[str, int],
        status_of: Callable[[Exception], Failure],
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._clock = context.clock.monotonic
        self._watch = context.watch
        self._admission = admission
        self._authenticator = authenticator
        self._hint = hint
        self._streams = streams
        self._status_of = status_of
        self._open: dict[int, Round] = {}
        """Rounds whose barrier has not begun, by timeout."""
        self._rounds: set[Round] = set()

    def begin(self, data: bytes, call: ServerCall) -> QuickRead | None:
        """Take a read; None for what is not usual, which has had no effect then."""
        key = key_of_usual_get(data)
        if key is None:
            return None
        recognized = self._admission.recognize(call)
        if recognized is None:
            return None
        user, peer = recognized.user, call.peer()
        under_way = self._streams.get(peer, 0)
        if under_way >= GRPC_STREAMS_PER_CONNECTION_MAX:
            return None
        try:
            validate_key(key)
            if user is not None:
                require(user, Right.READ, key)
        except MetasrvError:
            return None
        call.prove()
        self._streams[peer] = under_way + 1
        self._metrics.call_received(len(data))
        read = QuickRead(self, call, data, key, user, peer, self._clock())
        self._join(read, timeout_ms_of(call))
        return read

    def _join(self, read: QuickRead, timeout_ms: int) -> None:
        if timeout_ms > TIMEOUT_ALONE_MS_MAX:
            timeout_ms -= timeout_ms % TIMEOUT_STEP_MS
        joined = self._open.get(timeout_ms)
        if joined is None:
            joined = self._open[timeout_ms] = Round(timeout_ms)
            self._rounds.add(joined)
            # The task's first step is in the next turn of the loop, so what else arrives in this one joins.
            joined.task = asyncio.get_running_loop().create_task(self._confirm(joined))
        read.round = joined
        joined.reads.append(read)
        joined.left += 1

    def gone(self, read: QuickRead) -> None:
        """The client of a read that waits is gone, or does not wait longer."""
        self._end(read, FailureReason.CLIENT_GONE)
        if not read.round.left:
            self._leave(read.round)

    def end(self, error: RequestError) -> None:
        """End every read that waits with this error."""
        for round_ in tuple(self._rounds):
            self._fail(round_, error)
            self._leave(round_)

    def _leave(self, round_: Round) -> None:
        """Ask for nobody no longer."""
        self._close(round_)
        self._rounds.discard(round_)
        round_.task.cancel()

    def _close(self, round_: Round) -> None:
        if self._open.get(round_.timeout_ms) is round_:
            del self._open[round_.timeout_ms]

    # ------------------------------------------------------------------------- a round

    async def _confirm(self, round_: Round) -> None:
        """Wait for the barrier and answer the reads of the round."""
        self._close(round_)
        begin_request(self._watch.node_id, partial(metadata_value, round_.reads[0].call))
        if self._watch.on:
            round_.times = RequestTimes(round_.reads[0].started_at)
            CURRENT.set(round_.times)
        try:
            await self._context.consensus.read_barrier(round_.timeout_ms)
            answered = self._answer(round_.reads, 0)
            while answered < len(round_.reads):
                await asyncio.sleep(0)
                answered = self._answer(round_.reads, answered)
        except Exception as error:
            self._fail(round_, error)
        finally:
            self._rounds.discard(round_)

    def _answer(self, reads: list[QuickRead], start: int) -> int:
        """Answer reads from position `start` on while there is time; returns the position of the next one."""
        began_at = perf_counter()
        until = began_at + ANSWERING_SECONDS
        get, metadata = self._context.machine.get, self._hint.metadata()
        answered: list[QuickRead] = []
        joined: list[Output] = []
        sent_bytes, position = 0, start
        for position in range(start, len(reads)):
            read = reads[position]
            if read.ended:
                continue
            try:
                if read.user is not None:
                    require(self._authenticator.current(read.user), Right.READ, read.key)
                message = stream_item(read.key, get(read.key, 0))
                read.ended = True  # the call may end itself where its client takes nothing
                read.call.answer(message, metadata, joined)
            except Exception as error:
                self._refuse(read, error)
                continue
            answered.append(read)
            sent_bytes += len(message)
            if perf_counter() > until:
                break
        for output in joined:
            output.flush()
        self._count(answered, sent_bytes)
        self._metrics.step_took(LoopWork.GRPC_CALL, perf_counter() - began_at)
        return position + 1

    def _count(self, answered: list[QuickRead], sent_bytes: int) -> None:
        """Count reads that were answered just now."""
        ended_at, slow_seconds, streams = self._clock(), self._watch.slow_seconds, self._streams
        took = []
        for read in answered:
            read.round.left -= 1
            seconds = ended_at - read.started_at
            took.append(seconds)
            under_way = streams[read.peer] - 1
            if under_way:
                streams[read.peer] = under_way
            else:
                del streams[read.peer]
            if seconds >= slow_seconds:
                copy_context().run(self._tell, read, ended_at, None)
        self._metrics.gets_answered(KV_READ_V1, took, sent_bytes)

    # ------------------------------------------------------------------------- failures

    def _fail(self, round_: Round, error: Exception) -> None:
        """End what waits with this error."""
        for read in round_.reads:
            if not read.ended:
                self._refuse(read, error)

    def _refuse(self, read: QuickRead, error: Exception) -> None:
        copy_context().run(self._refuse_marked, read, error)

    def _refuse_marked(self, read: QuickRead, error: Exception) -> None:
        """Runs in a context of its own, so that lines of the log have the id of this read."""
        begin_request(self._watch.node_id, partial(metadata_value, read.call))
        failure = self._status_of(error)
        self._end(read, failure_reason(error))
        read.call.end(failure.code, failure.text, failure.metadata)

    def _end(self, read: QuickRead, failed: FailureReason) -> None:
        read.ended = True
        read.round.left -= 1
        self._streams[read.peer] -= 1
        if not self._streams[read.peer]:
            del self._streams[read.peer]
        ended_at = self._clock()
        self._metrics.rpc_finished(failed, ended_at - read.started_at, KV_READ_V1)
        if ended_at - read.started_at >= self._watch.slow_seconds:
            copy_context().run(self._tell, read, ended_at, failed)

    def _tell(self, read: QuickRead, ended_at: float, failed: FailureReason | None) -> None:
        """Write the line of a slow read; runs in a context of its own."""
        begin_request(self._watch.node_id, partial(metadata_value, read.call))
        times = RequestTimes(0.0) if read.round.times is None else copy(read.round.times)
        times.started_at = read.started_at
        told = partial(ended_request, KV_READ_V1, read.data, read.call, read.user, failed)
        self._watch.end(times, ended_at, told)
