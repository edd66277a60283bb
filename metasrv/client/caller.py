"""Calls with retries: which endpoint, how often, until when (invariant 4).

Only a call that certainly changed nothing is sent again; an unknown outcome is raised. Knows no method's meaning.
Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import Message

from metasrv.client.connection import CallFailedError, ClusterPin, Connection, Credentials
from metasrv.client.endpoints import Endpoints
from metasrv.client.level_watch import level_stream
from metasrv.client.outcomes import ClientClosedError, OtherClusterError, Outcome, TokenRefusedError
from metasrv.model.errors import (
    InvalidRequestError,
    MetasrvError,
    NotDoneError,
    RequestError,
    UnknownOutcomeError,
    WriteRefusedError,
)
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

if TYPE_CHECKING:
    from metasrv.client.spans import CallSpans

PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 0.3
TRY_SECONDS_MIN = 0.05
"""With less time left, nothing is sent again: the deadline would turn a write that is not done into one with an unknown
outcome."""
READ_ATTEMPTS_PER_CALL = 3
"""A read waits for one endpoint for this fraction of its time, so that a node that hangs does not use up all of it."""
MEMBERS_SECONDS = 30.0
"""Age at which the list of members is read again."""

Extra = tuple[tuple[str, str], ...]


class CallObserver(Protocol):
    """Hears of a client's calls, for instance to count them (`observing.py`); must not raise."""

    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        """With all its attempts. `outcome`: `success`, `not_done`, `unknown_outcome`, `invalid`, `cancelled`, `error`."""
        ...

    def sent_again(self, method: str, endpoint: str) -> None:
        """The attempt at this endpoint certainly changed nothing, and another one is made."""
        ...


class _NobodyObserves:
    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        del method, outcome, seconds

    def sent_again(self, method: str, endpoint: str) -> None:
        del method, endpoint


def _word_for(error: BaseException) -> str:
    if isinstance(error, UnknownOutcomeError):
        return "unknown_outcome"
    if isinstance(error, InvalidRequestError):
        return "invalid"
    if isinstance(error, NotDoneError):
        return "not_done"
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "error"


class Caller:
    """The connections of one client."""

    def __init__(
        self,
        endpoints: Sequence[str],
        credentials: Credentials,
        timeout_ms: int,
        cluster_id: str | None = None,
        tracer: Any = None,
        observer: CallObserver | None = None,
    ) -> None:
        """`tracer` is an `opentelemetry.trace.Tracer`; without one nothing of OpenTelemetry is loaded."""
        self._observer: CallObserver = observer or _NobodyObserves()
        self.endpoints = Endpoints(endpoints)
        self.cluster = ClusterPin(cluster_id)
        self._credentials = credentials
        self._timeout_seconds = timeout_ms / 1000
        self._connections: dict[str, Connection] = {}
        self._refresh: asyncio.Task[None] | None = None
        self._members_at = monotonic()
        self._closed = False
        self._spans: CallSpans | None = None
        if tracer is not None:
            from metasrv.client.spans import CallSpans

            self._spans = CallSpans(tracer)

    async def close(self) -> None:
        self._closed = True
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)
            self._refresh = None
        connections = list(self._connections.values())
        self._connections.clear()
        for connection in connections:
            await connection.close()

    # ------------------------------------------------------------------------- calls

    async def unary(self, method: m.Method, request: Message, timeout_seconds: float | None = None) -> Any:
        """One reply, from the first endpoint that gives one before the deadline, by default the client's own."""
        with self._observed(method):
            if self._spans is None:
                return await self._unary(method, request, timeout_seconds)
            with self._spans.call(method) as metadata:
                return await self._unary(method, request, timeout_seconds, metadata)

    async def _unary(
        self, method: m.Method, request: Message, timeout_seconds: float | None, metadata: Extra = ()
    ) -> Any:
        retries = _Retries(self.endpoints, self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        while True:
            connection = self._connection()
            try:
                answer = await connection.unary(method, request, retries.seconds(method), metadata)
            except CallFailedError as error:
                await retries.pause_or_raise(connection, error)
                self._observer.sent_again(method.name, connection.endpoint)
                continue
            self._learn(answer.leader_address)
            return answer.message

    async def collect(
        self, method: m.Method, request: Message, metadata: Extra = (), limit: int | None = None
    ) -> list[Any]:
        """All replies of a stream of reads, at most `limit`; a stream that breaks is read again from the start."""
        with self._observed(method):
            if self._spans is None:
                return await self._collect(method, request, metadata, limit)
            with self._spans.call(method) as traced:
                return await self._collect(method, request, (*metadata, *traced), limit)

    async def _collect(self, method: m.Method, request: Message, metadata: Extra, limit: int | None) -> list[Any]:
        retries = _Retries(self.endpoints, self._timeout_seconds)
        while True:
            connection = self._connection()
            messages: list[Any] = []
            leader: str | None = None
            try:
                answers = connection.stream(method, request, retries.left(), metadata, retries.seconds(method))
                async with aclosing(answers) as stream:
                    async for answer in stream:
                        messages.append(answer.message)
                        leader = answer.leader_address
                        if len(messages) == limit:
                            break
            except CallFailedError as error:
                await retries.pause_or_raise(connection, error)
                self._observer.sent_again(method.name, connection.endpoint)
                continue
            self._learn(leader)
            return messages

    async def stream(
        self, method: m.Method, request: Message, metadata: Extra = (), *, keep_level: bool = False
    ) -> AsyncGenerator[Any, None]:
        """All replies of a stream without a deadline; only its start is retried.

        With `keep_level` the stream ends when its node cannot show that it keeps up with the leader (`level_watch.py`).
        """
        with self._observed(method):
            async with aclosing(self._stream(method, request, metadata, keep_level=keep_level)) as replies:
                async for reply in replies:
                    yield reply

    @contextmanager
    def _observed(self, method: m.Method) -> Iterator[None]:
        """Tell how the call within the block ends."""
        started, outcome = monotonic(), "success"
        try:
            yield
        except BaseException as error:
            outcome = _word_for(error)
            raise
        finally:
            self._observer.call_ended(method.name, outcome, monotonic() - started)

    async def _stream(
        self, method: m.Method, request: Message, metadata: Extra, *, keep_level: bool
    ) -> AsyncGenerator[Any, None]:
        retries = _Retries(self.endpoints, self._timeout_seconds)
        started = False
        while True:
            connection = self._connection()
            seconds = retries.seconds(method)
            try:
                if keep_level:
                    answers = level_stream(connection, method, request, seconds)
                else:
                    answers = connection.stream(method, request, None, metadata, start_seconds=seconds)
                async with aclosing(answers) as stream:
                    async for answer in stream:
                        started = True
                        yield answer.message
                return
            except CallFailedError as error:
                if started:
                    raise error.outcome.error from error
                await retries.pause_or_raise(connection, error)
                self._observer.sent_again(method.name, connection.endpoint)

    # ------------------------------------------------------------------------- endpoints

    def _connection(self) -> Connection:
        if self._closed:
            raise ClientClosedError
        endpoint = self.endpoints.current
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = Connection(endpoint, self._credentials, self.endpoints.reached, self.cluster)
            self._connections[endpoint] = connection
        return connection

    def _learn(self, leader_address: str | None) -> None:
        if leader_address is not None:
            self.endpoints.prefer(leader_address)
        if monotonic() - self._members_at >= MEMBERS_SECONDS and self._refresh is None and not self._closed:
            self._refresh = asyncio.create_task(self._refresh_members(), name="client-members")

    async def _refresh_members(self) -> None:
        """Ask one node who the members are; keep the known ones if it does not answer."""
        try:
            connection = self._connection()
            answer = await connection.unary(m.MEMBER_LIST, pb.MemberListRequest(), self._timeout_seconds)
            self.endpoints.replace(list(answer.message.data))
        except MetasrvError:
            return
        finally:
            self._members_at = monotonic()
            self._refresh = None


class _Retries:
    """The attempts of one call."""

    def __init__(self, endpoints: Endpoints, timeout_seconds: float) -> None:
        self._endpoints = endpoints
        self._timeout_seconds = timeout_seconds
        self._deadline = monotonic() + timeout_seconds
        self._pause_seconds = PAUSE_SECONDS_MIN
        self._redirects = 0
        self._reason: RequestError | None = None

    def left(self) -> float:
        """Seconds until the deadline of all attempts."""
        return max(self._deadline - monotonic(), 0.001)

    def seconds(self, method: m.Method) -> float:
        """How long the next attempt may take; for a stream, until its first answer."""
        left = self.left()
        if method.write:
            return left
        return min(left, max(self._timeout_seconds / READ_ATTEMPTS_PER_CALL, 0.5))

    async def pause_or_raise(self, connection: Connection, error: CallFailedError) -> None:
        """Choose the next endpoint and wait a little, or raise the error for the caller."""
        outcome = error.outcome
        if isinstance(outcome.error, UnknownOutcomeError):
            # The node may hang; later writes go elsewhere.
            self._endpoints.move_on(connection.endpoint)
            raise outcome.error from error
        if isinstance(outcome.error, InvalidRequestError | WriteRefusedError):
            raise outcome.error from error
        if isinstance(outcome.error, OtherClusterError):
            # Said to the caller, who must know; the next call goes elsewhere.
            self._endpoints.move_on(connection.endpoint)
            raise outcome.error from error
        if isinstance(outcome.error, TokenRefusedError):
            connection.forget_token()
        pause = self._choose(connection, outcome)
        if not outcome.silent or self._reason is None:
            self._reason = outcome.error
        if self._deadline - monotonic() - pause < TRY_SECONDS_MIN:
            # A reason that a server gave earlier is more useful than the silence of the last one.
            raise self._reason from error
        await asyncio.sleep(pause)

    def _choose(self, connection: Connection, outcome: Outcome) -> float:
        if outcome.leader_address is not None and outcome.leader_address != connection.endpoint:
            found = self._endpoints.prefer(outcome.leader_address)
            if not found:
                self._endpoints.move_on(connection.endpoint)
            self._redirects += 1
            if found and self._redirects <= 2:
                return 0.0  # at once; but pause when two nodes point at each other
        elif not isinstance(outcome.error, TokenRefusedError):
            self._endpoints.move_on(connection.endpoint)
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, PAUSE_SECONDS_MAX)
        return pause
