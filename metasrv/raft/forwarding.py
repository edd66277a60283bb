"""Requests between nodes: forwarded writes, read indexes, joins and leaves, one hop each.

Encodes what one node asks another over `transport.request`, and answers what others ask. A request that may have been
executed is never sent twice (D15). Runs on the event loop.

    request   [version, field, ...]     fields of its method
    answer    [version, value]          or an error, which the transport carries (`peers/wire_errors.py`)
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol, TypeVar

from metasrv.consensus import Consensus, CopyState, JoinRequest, Place, Standing
from metasrv.model.codec import decode_command, decode_reply, encode_command, encode_reply, node_from_tree
from metasrv.model.commands import KNOWN_FEATURES, Command, Reply
from metasrv.model.errors import (
    CodecError,
    InvalidRequestError,
    NotDoneError,
    NotLeaderError,
    UnknownOutcomeError,
)
from metasrv.model.summary import (
    WITHOUT_EVENTS,
    SummaryAnswer,
    SummaryQuestion,
    decode_answer,
    encode_answer,
    first_question_fields,
    first_report,
    question_fields,
    question_in,
)
from metasrv.model.types import Endpoint
from metasrv.model.wire import byte_string, pack, string, unpack, unsigned
from metasrv.raft.forwarded_writes import ForwardedWrites, TracedRequests
from metasrv.state.scrubbing import RangeDigests

T = TypeVar("T")

REQUEST_VERSION = 1
"""Raised with every change of a request or an answer, the encoding of commands and replies in them included."""

PROPOSE = "propose"
PROPOSE_TRACED = "propose_traced"
"""As `propose`, with where its trace stands; releases before it refuse the request (`forwarded_writes.py`)."""
READ_INDEX = "read_index"
CLUSTER_ID = "cluster_id"
STANDING = "standing"
CLOCK = "clock"
PLACE = "place"
PLACES = "places"
STATE_HASHES = "state_hashes"
RANGE_DIGESTS = "range_digests"
SUMMARY = "summary"
FEATURES = "features"
JOIN = "join"
LEAVE = "leave"
TRANSFER = "transfer"
REPORT = "report"
"""Asked by nodes of release 0.2.0 alone; answered from a summary."""


class Requester(Protocol):
    """The part of the transport that asks."""

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes: ...


class LocalAnswers(Protocol):
    """What this node answers by itself: its cluster and standing, its clock, where it knows nodes to be.

    When it leads, also a read index, and who is a member.
    """

    async def read_index(self, timeout_ms: int) -> int: ...

    def cluster_id(self) -> str | None: ...

    def standing(self) -> Standing: ...

    def wall_ms(self) -> int: ...

    async def place(self, node_id: int, incarnation: str, timeout_ms: int) -> Place: ...

    def places(self) -> dict[int, Endpoint]: ...

    def copy_state(self) -> CopyState: ...

    async def range_digests(self, bounds: tuple[str, ...]) -> RangeDigests: ...

    async def answer_summary(self, question: SummaryQuestion) -> SummaryAnswer: ...


class Forwarding:
    """Asks other nodes. What they answer in a version or a shape that is not known here is an unknown outcome."""

    def __init__(
        self, requester: Requester, forwarded: Callable[[str, float], None] = lambda _request, _seconds: None
    ) -> None:
        """`forwarded` hears how many seconds each request of a client took that the leader answered, or did not."""
        self._requester = requester
        self._traces = TracedRequests(PROPOSE_TRACED)
        self._forwarded = forwarded

    async def propose(
        self, leader_id: int, command: Command, timeout_ms: int, trace: tuple[str, str] | None = None
    ) -> Reply:
        """`trace` is a `traceparent` and a `tracestate`; a leader whose release knows none is asked without them."""
        started = perf_counter()
        try:
            return await self._propose(leader_id, command, timeout_ms, trace)
        finally:
            self._forwarded(PROPOSE, perf_counter() - started)

    async def _propose(self, leader_id: int, command: Command, timeout_ms: int, trace: tuple[str, str] | None) -> Reply:
        fields = (timeout_ms, encode_command(command))
        if trace is not None and self._traces.known(leader_id):
            try:
                return await self._ask(leader_id, PROPOSE_TRACED, (*fields, *trace), timeout_ms, decode_reply)
            except InvalidRequestError as error:  # certainly not executed
                if not self._traces.refused(leader_id, str(error)):
                    raise
        return await self._ask(leader_id, PROPOSE, fields, timeout_ms, decode_reply)

    async def read_index(self, leader_id: int, timeout_ms: int) -> int:
        started = perf_counter()
        try:
            return await self._ask(leader_id, READ_INDEX, (timeout_ms,), timeout_ms, unsigned)
        finally:
            self._forwarded(READ_INDEX, perf_counter() - started)

    async def cluster_id(self, target: int | Endpoint, timeout_ms: int) -> str | None:
        """The cluster that the other node belongs to, None when it belongs to none yet."""
        return await self._ask(target, CLUSTER_ID, (), timeout_ms, _cluster_id_in)

    async def standing(self, target: Endpoint, timeout_ms: int) -> Standing:
        """Whether the other node belongs to a cluster, and whether it would begin one."""
        return await self._ask(target, STANDING, (), timeout_ms, _standing_in)

    async def wall_ms(self, node_id: int, timeout_ms: int) -> int:
        """The other node's wall clock, in milliseconds since the epoch. Releases before it refuse the question."""
        return await self._ask(node_id, CLOCK, (), timeout_ms, unsigned)

    async def place(self, target: int | Endpoint, node_id: int, incarnation: str, timeout_ms: int, hops: int) -> Place:
        """Whether the leader of the other node's cluster counts this node, with this data directory, as a member."""
        return await self._ask(target, PLACE, (timeout_ms, hops, node_id, incarnation), timeout_ms, _place_in)

    async def places(self, target: int | Endpoint, timeout_ms: int) -> dict[int, Endpoint]:
        """Where the other node is, and where the members that it is connected to are; earlier releases refuse."""
        return await self._ask(target, PLACES, (), timeout_ms, _places_in)

    async def copy_state(self, target: int, timeout_ms: int) -> CopyState:
        """The hashes of the other node's state, and what is wrong with it."""
        return await self._ask(target, STATE_HASHES, (), timeout_ms, _copy_state_in)

    async def range_digests(self, target: int, bounds: tuple[str, ...], timeout_ms: int) -> RangeDigests:
        """What the other node's records between these keys add up to."""
        return await self._ask(target, RANGE_DIGESTS, (bounds,), timeout_ms, _range_digests_in)

    async def summary(self, target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        """What the other node tells of itself; releases before 0.2.0 refuse the question."""
        try:
            return await self._ask(target, SUMMARY, question_fields(question), timeout_ms, _summary_in)
        except InvalidRequestError:  # release 0.2.0 takes a question that names no version
            return await self._ask(target, SUMMARY, first_question_fields(question), timeout_ms, _summary_in)

    async def features(self, target: int | Endpoint, timeout_ms: int) -> frozenset[str]:
        """The features of a cluster that the other node's release knows. Releases before it refuse the question."""
        return await self._ask(target, FEATURES, (), timeout_ms, lambda names: frozenset(map(string, names)))

    async def join(self, target: int | Endpoint, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        fields = (timeout_ms, hops, request.node, request.incarnation, request.learner)
        await self._ask(target, JOIN, fields, timeout_ms, _nothing_in)

    async def leave(self, target: int | Endpoint, node_id: int, timeout_ms: int, hops: int) -> None:
        await self._ask(target, LEAVE, (timeout_ms, hops, node_id), timeout_ms, _nothing_in)

    async def transfer(self, leader_id: int, to_id: int, timeout_ms: int) -> None:
        """Have the leader begin to hand leadership to `to_id`; releases before it refuse the request."""
        await self._ask(leader_id, TRANSFER, (to_id,), timeout_ms, _nothing_in)

    async def _ask(
        self,
        target: int | Endpoint,
        method: str,
        fields: tuple[Any, ...],
        timeout_ms: int,
        build: Callable[[Any], T],
    ) -> T:
        answer = await self._requester.request(target, method, pack((REQUEST_VERSION, *fields)), timeout_ms)
        who = target if isinstance(target, Endpoint) else f"node {target}"
        try:
            version, *values = unpack(answer)
            if version == REQUEST_VERSION:
                (value,) = values
                return build(value)
        except (CodecError, TypeError, ValueError) as error:
            raise UnknownOutcomeError(f"the answer of {who} to {method!r} is not understood: {error}") from error
        raise UnknownOutcomeError(
            f"{who} answered {method!r} in version {version!r:.40} of requests, this node knows version {REQUEST_VERSION}"
        )


class Answering:
    """Answers other nodes."""

    def __init__(
        self, consensus: Consensus, local: LocalAnswers, forwarding: Forwarding, watched: ForwardedWrites | None = None
    ) -> None:
        self._consensus = consensus
        self._watched = watched or ForwardedWrites(consensus)
        self._local = local
        self._forwarding = forwarding

    async def answer(self, method: str, payload: bytes) -> bytes:
        """The answer to one request; raises RequestError, which the transport sends back as such."""
        try:
            version, *fields = unpack(payload)
            if version == REQUEST_VERSION:
                return pack((REQUEST_VERSION, await self._value(method, fields)))
        except (CodecError, TypeError, ValueError) as error:
            raise InvalidRequestError(f"a peer's {method} request is malformed: {error}") from error
        # Another node may lead soon, one that knows the version, so the request may be sent again.
        raise NotDoneError(
            f"a request {method!r} in version {version!r:.40} was refused: the node asked knows version {REQUEST_VERSION}"
        )

    async def _value(self, method: str, fields: list[Any]) -> Any:
        if method in (PROPOSE, PROPOSE_TRACED):
            timeout_ms, encoded, *trace = fields
            parent, state = map(string, trace) if method == PROPOSE_TRACED else ("", "")
            if method == PROPOSE and trace:
                raise TypeError("two fields were expected")
            command = decode_command(encoded)
            return encode_reply(await self._watched.propose(command, unsigned(timeout_ms), parent, state))
        if method == READ_INDEX:
            (timeout_ms,) = fields
            return await self._local.read_index(unsigned(timeout_ms))
        if method == CLUSTER_ID:
            return self._local.cluster_id()
        if method == STANDING:
            return tuple(self._local.standing())
        if method == CLOCK:
            return self._local.wall_ms()
        if method == PLACE:
            timeout_ms, hops, node_id, incarnation = fields
            place = await self._place(unsigned(node_id), string(incarnation), unsigned(timeout_ms), unsigned(hops))
            return (place.member, None if place.holder is None else tuple(place.holder))
        if method == PLACES:
            return tuple((node_id, *endpoint) for node_id, endpoint in self._local.places().items())
        if method == STATE_HASHES:
            damage, hashes = self._local.copy_state()
            return damage, list(hashes.items())
        if method == RANGE_DIGESTS:
            (bounds,) = fields
            return tuple(await self._local.range_digests(tuple(map(string, bounds))))
        if method == SUMMARY:
            question, version = question_in(fields)
            return encode_answer(await self._local.answer_summary(question), version)
        if method == FEATURES:
            return KNOWN_FEATURES
        if method == JOIN:
            timeout_ms, hops, node, incarnation, learner = fields
            request = JoinRequest(node_from_tree(node), string(incarnation), bool(learner))
            return await self._join(request, unsigned(timeout_ms), unsigned(hops))
        if method == LEAVE:
            timeout_ms, hops, node_id = fields
            return await self._leave(unsigned(node_id), unsigned(timeout_ms), unsigned(hops))
        if method == TRANSFER:
            (to_id,) = fields
            await self._consensus.transfer_leadership(unsigned(to_id))
            return None
        if method == REPORT:
            return first_report((await self._local.answer_summary(WITHOUT_EVENTS)).summary)
        raise InvalidRequestError(f"a peer asked for {method!r}, which this version of metasrv does not know")

    async def _place(self, node_id: int, incarnation: str, timeout_ms: int, hops: int) -> Place:
        try:
            return await self._local.place(node_id, incarnation, timeout_ms)
        except NotLeaderError as error:
            if hops == 0 or error.leader_id is None:
                raise
            return await self._forwarding.place(error.leader_id, node_id, incarnation, timeout_ms, hops - 1)

    async def _join(self, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        try:
            await self._consensus.join(request, timeout_ms)
        except NotLeaderError as error:
            if hops == 0 or error.leader_id is None:
                raise
            await self._forwarding.join(error.leader_id, request, timeout_ms, hops - 1)

    async def _leave(self, node_id: int, timeout_ms: int, hops: int) -> None:
        try:
            await self._consensus.leave(node_id, timeout_ms)
        except NotLeaderError as error:
            if hops == 0 or error.leader_id is None:
                raise
            await self._forwarding.leave(error.leader_id, node_id, timeout_ms, hops - 1)


async def no_summary(_question: SummaryQuestion) -> SummaryAnswer:
    """The answer of a node that is being built. Raises NotDoneError."""
    raise NotDoneError("this node has just been started")


def _cluster_id_in(tree: Any) -> str | None:
    return None if tree is None else string(tree)


def _standing_in(tree: Any) -> Standing:
    node_id, cluster_id, begins = tree
    return Standing(unsigned(node_id), _cluster_id_in(cluster_id), bool(begins))


def _place_in(tree: Any) -> Place:
    member, holder = tree
    if type(member) is not bool:
        raise TypeError("a boolean was expected")
    if holder is None:
        return Place(member, None)
    addr, port = holder
    return Place(member, Endpoint(string(addr), unsigned(port)))


def _places_in(tree: Any) -> dict[int, Endpoint]:
    return {unsigned(node_id): Endpoint(string(addr), unsigned(port)) for node_id, addr, port in tree}


def _copy_state_in(tree: Any) -> CopyState:
    damage, hashes = tree
    return CopyState(string(damage), {unsigned(index): byte_string(found) for index, found in hashes})


def _range_digests_in(tree: Any) -> RangeDigests:
    index, digests = tree
    return RangeDigests(unsigned(index), tuple(map(unsigned, digests)))


def _summary_in(tree: Any) -> SummaryAnswer:
    return decode_answer(byte_string(tree))


def _nothing_in(tree: Any) -> None:
    if tree is not None:
        raise TypeError("nothing was expected")
