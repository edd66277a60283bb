"""Requests between nodes: what is asked arrives, and a version that is not known is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from metasrv.consensus import CopyState, JoinRequest, Place, Standing, TransferResult
from metasrv.metrics.counters import FORWARDED
from metasrv.model.commands import KNOWN_FEATURES, AddNode, Command, NodeReply, Reply
from metasrv.model.errors import (
    InvalidRequestError,
    LeaveSelfError,
    NotDoneError,
    NotLeaderError,
    UnknownOutcomeError,
)
from metasrv.model.events import Event
from metasrv.model.summary import CheckResult, NodeSummary, SummaryAnswer, SummaryQuestion, encode_answer
from metasrv.model.types import Endpoint, Node
from metasrv.model.wire import pack, unpack
from metasrv.raft import forwarding
from metasrv.raft.forwarding import Answering, Forwarding
from metasrv.state.scrubbing import RangeDigests

ANSWER = SummaryAnswer(
    NodeSummary(
        node_id=2,
        role="leader",
        term=5,
        leader_id=2,
        version="1.2.3",
        admin_address="127.0.0.1:28101",
        admin_tls=False,
        uptime_ms=12,
        clock_offset_ms=-3,
        last_log_index=70,
        applied_index=69,
        database_bytes=1000,
        log_bytes=2000,
        sync_microseconds=None,
        checks=(CheckResult("leader", True, False, "it leads"),),
        lags=((1, 0),),
        other_clusters=((3, "cafe"),),
        started_at_ms=1_700_000_000_000,
        certificates=(("raft", 1_800_000_000),),
    ),
    "run",
    (Event(8, 1_700_000_000_000, "leader", "info", "node 2 leads in term 5", 5),),
)
NODE = Node(4, Endpoint("127.0.0.1", 28104), "127.0.0.1:9194", None)


class Leader:
    """The consensus of the node that is asked; `members` leave and join, nothing else happens."""

    def __init__(self) -> None:
        self.proposed: list[Command] = []
        self.questions: list[SummaryQuestion] = []
        self.members = {1, 2, 3}
        self.leader_id: int | None = 2

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        del timeout_ms
        self.proposed.append(command)
        return NodeReply(None, NODE)

    async def read_index(self, timeout_ms: int) -> int:
        return 7000 + timeout_ms

    def cluster_id(self) -> str | None:
        return "cluster"

    def standing(self) -> Standing:
        return Standing(2, None, True)

    def wall_ms(self) -> int:
        return 1_700_000_000_123

    async def place(self, node_id: int, incarnation: str, timeout_ms: int) -> Place:
        del timeout_ms
        if self.leader_id != 2:
            raise NotLeaderError(self.leader_id)
        return Place(node_id in self.members, None if incarnation == "gone" else NODE.endpoint)

    def places(self) -> dict[int, Endpoint]:
        return {1: Endpoint("::1", 28103), 2: NODE.endpoint}

    def copy_state(self) -> CopyState:
        return CopyState("a sentence", {64: b"hash", 70: b"newer"})

    async def range_digests(self, bounds: tuple[str, ...]) -> RangeDigests:
        return RangeDigests(70, tuple(2**64 - 1 - at for at, _ in enumerate(bounds)))

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        if self.leader_id != 2:
            raise NotLeaderError(self.leader_id)
        self.leader_id = to_id
        return TransferResult(2, to_id or 0, sorted(self.members))

    async def answer_summary(self, question: SummaryQuestion) -> SummaryAnswer:
        self.questions.append(question)
        return ANSWER

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        del timeout_ms
        self.members.add(request.node.node_id)

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        del timeout_ms
        if node_id == 2:
            raise LeaveSelfError(2)
        self.members.discard(node_id)


class Wire:
    """Takes a request straight to the node that answers it, and remembers what went each way."""

    def __init__(self, leader: Leader) -> None:
        consensus: Any = leader
        self.answering = Answering(consensus, leader, Forwarding(self))
        self.requests: list[bytes] = []
        self.answer: bytes | None = None
        """Comes back whatever the node answers."""

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
        del target, timeout_ms
        self.requests.append(payload)
        answer = await self.answering.answer(method, payload)
        return answer if self.answer is None else self.answer


async def test_every_request_and_its_answer_arrive() -> None:
    leader = Leader()
    asking = Forwarding(Wire(leader))
    assert await asking.propose(2, AddNode(NODE, False), 100) == NodeReply(None, NODE)
    assert leader.proposed == [AddNode(NODE, False)]
    assert await asking.read_index(2, 100) == 7100
    assert await asking.cluster_id(NODE.endpoint, 100) == "cluster"
    assert await asking.standing(NODE.endpoint, 100) == Standing(2, None, True)
    assert await asking.wall_ms(2, 100) == 1_700_000_000_123
    assert await asking.place(2, 1, "directory", 100, hops=1) == Place(True, NODE.endpoint)
    assert await asking.place(2, 9, "gone", 100, hops=1) == Place(False, None)
    places = await asking.places(NODE.endpoint, 100)
    assert list(places.items()) == [(1, Endpoint("::1", 28103)), (2, NODE.endpoint)], "what it says of itself comes last"
    assert await asking.copy_state(2, 100) == CopyState("a sentence", {64: b"hash", 70: b"newer"})
    assert await asking.range_digests(2, ("", "k"), 100) == RangeDigests(70, (2**64 - 1, 2**64 - 2))
    assert await asking.summary(2, SummaryQuestion("run", 7, 3), 100) == ANSWER
    assert leader.questions == [SummaryQuestion("run", 7, 3)]
    assert await asking.features(NODE.endpoint, 100) == frozenset(KNOWN_FEATURES)
    await asking.join(2, JoinRequest(NODE, "directory", False), 100, hops=1)
    await asking.leave(2, 1, 100, hops=1)
    assert leader.members == {2, 3, 4}
    with pytest.raises(LeaveSelfError):
        await asking.leave(2, 2, 100, hops=1)
    await asking.transfer(2, 3, 100)
    assert leader.leader_id == 3
    with pytest.raises(NotLeaderError):
        await asking.transfer(2, 1, 100)


async def test_nodes_of_release_0_2_0_ask_in_their_form_and_are_asked_in_it() -> None:
    leader = Leader()
    wire = Wire(leader)
    asked = await wire.answering.answer(forwarding.SUMMARY, pack((1, "run", 7)))
    assert unpack(asked) == (1, encode_answer(ANSWER, version=1))
    assert leader.questions == [SummaryQuestion("run", 7)]
    report = unpack(await wire.answering.answer(forwarding.REPORT, pack((1,))))[1]
    assert report[:3] == ("1.2.3", "Leader", 5)
    assert len(report) == 12

    class Earlier(Wire):
        async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
            self.requests.append(payload)
            try:
                version, incarnation, number = unpack(payload)
            except ValueError as error:
                raise InvalidRequestError(f"a peer's {method} request is malformed: {error}") from error
            return await super().request(target, method, pack((version, incarnation, number)), timeout_ms)

    earlier = Earlier(Leader())
    told = await Forwarding(earlier).summary(2, SummaryQuestion("run", 7, 0), 100)
    assert told.summary == ANSWER.summary._replace(started_at_ms=None, certificates=())
    assert len(earlier.requests) == 3, "refused once, and asked again in the earlier form"


@pytest.mark.parametrize("method", [forwarding.PROPOSE, forwarding.READ_INDEX, forwarding.CLUSTER_ID, "of the future"])
async def test_a_request_of_an_unknown_version_is_refused_with_a_sentence(method: str) -> None:
    leader = Leader()
    sentence = f"^a request '{method}' in version 9 was refused: the node asked knows version 1$"
    with pytest.raises(NotDoneError, match=sentence) as caught:
        await Wire(leader).answering.answer(method, pack((9, "a shape of the future")))
    assert not isinstance(caught.value, NotLeaderError)
    assert leader.proposed == []


async def test_what_clients_wait_for_is_timed_whether_or_not_the_leader_answers() -> None:
    wire = Wire(Leader())
    forwarded: list[str] = []
    asking = Forwarding(wire, lambda request, seconds: forwarded.append(request) if seconds >= 0 else None)
    await asking.propose(2, AddNode(NODE, False), 100)
    await asking.read_index(2, 100)
    await asking.wall_ms(2, 100)
    wire.answer = b"nonsense"
    with pytest.raises(UnknownOutcomeError):
        await asking.read_index(2, 100)
    assert forwarded == ["propose", "read_index", "read_index"]
    assert set(forwarded) == set(FORWARDED)


async def test_an_asker_of_another_version_hears_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(Leader())
    asked = wire.answering.answer

    async def by_a_node_of_another_version(method: str, payload: bytes) -> bytes:
        with monkeypatch.context() as other:
            other.setattr(forwarding, "REQUEST_VERSION", 2)
            return await asked(method, payload)

    monkeypatch.setattr(wire.answering, "answer", by_a_node_of_another_version)
    with pytest.raises(NotDoneError, match="in version 1 was refused: the node asked knows version 2"):
        await Forwarding(wire).propose(2, AddNode(NODE, False), 100)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            pack((9, "a shape of the future")),
            "^node 2 answered 'propose' in version 9 of requests, this node knows version 1$",
        ),
        (pack((1, b"\x00")), "^the answer of node 2 to 'propose' is not understood: "),
        (pack((1,)), "^the answer of node 2 to 'propose' is not understood: "),
        (b"\xc1", "^the answer of node 2 to 'propose' is not understood: "),
    ],
)
async def test_an_answer_that_is_not_understood_leaves_the_outcome_unknown(answer: bytes, sentence: str) -> None:
    wire = Wire(Leader())
    wire.answer = answer
    with pytest.raises(UnknownOutcomeError, match=sentence):
        await Forwarding(wire).propose(2, AddNode(NODE, False), 100)


@pytest.mark.parametrize(
    "payload", [b"\xc1", pack(1), pack(()), pack((1,)), pack((1, "x", b"")), pack((1, 100, b"\x00"))]
)
async def test_a_malformed_request_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="a peer's propose request is malformed"):
        await Wire(Leader()).answering.answer(forwarding.PROPOSE, payload)


async def test_only_a_leader_says_who_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader()
    wire = Wire(leader)
    leader.leader_id = None
    with pytest.raises(NotLeaderError):
        await Forwarding(wire).place(1, 1, "gone", 100, hops=1)

    leader.leader_id = 3
    asked: list[int | Endpoint] = []

    async def of_the_leader(target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes:
        del timeout_ms
        asked.append(target)
        if target == 3:
            leader.leader_id = 2
        return await wire.answering.answer(method, payload)

    monkeypatch.setattr(wire, "request", of_the_leader)
    assert await Forwarding(wire).place(1, 1, "gone", 100, hops=1) == Place(True, None)
    assert asked == [1, 3], "one hop to the leader"


async def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="a peer asked for 'dance', which this version"):
        await Wire(Leader()).answering.answer("dance", pack((1,)))
