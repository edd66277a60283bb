"""Forwarded writes carry their trace to a leader that knows traces, and nothing new to one that does not."""

from __future__ import annotations

import pytest

from metasrv.model.commands import AddNode, Command, NodeReply, Reply
from metasrv.model.errors import InvalidRequestError, NotLeaderError
from metasrv.model.types import Endpoint, Node
from metasrv.model.wire import unpack
from metasrv.raft.forwarded_writes import ForwardedWrites
from metasrv.raft.forwarding import Answering, Forwarding
from metasrv.testing.hand_clock import HandClock
from metasrv.tracing.times import ASKED_BY, CURRENT
from metasrv.tracing.watch import RequestWatch

COMMAND = AddNode(Node(4, Endpoint("127.0.0.1", 28104), "127.0.0.1:9194", None), False)
TRACE = (f"00-{'ab' * 16}-{'cd' * 8}-01", "vendor=1")


class Leader:
    """The leader's consensus and the wire to it; `old` makes it one of release 0.2.0, which knows no traces."""

    def __init__(self, *, old: bool = False, error: Exception | None = None) -> None:
        self.old = old
        self.error = error
        self.asked: list[tuple[str, int]] = []
        self.traces: list[str] = []
        self.clock = HandClock()
        watch = RequestWatch(1, lambda: 5)
        watch.set_slow_ms(1000)
        self.writes = ForwardedWrites(self, watch, self.clock)  # type: ignore[arg-type]
        self.answering = Answering(self, self, self, self.writes)  # type: ignore[arg-type]

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        times = CURRENT.get()
        assert times is not None
        times.submit(self.clock.now)
        self.clock.advance(2.0)
        if self.error is not None:
            raise self.error
        return NodeReply(None, COMMAND.node)

    async def request(self, target: object, method: str, payload: bytes, timeout_ms: int) -> bytes:
        self.asked.append((method, len(unpack(payload))))
        if self.old and method == "propose_traced":
            raise InvalidRequestError(f"a peer asked for {method!r}, which this version of metasrv does not know")
        ASKED_BY.set(2)
        return await self.answering.answer(method, payload)


async def test_a_leader_of_this_release_gets_the_trace() -> None:
    leader = Leader()
    reply = await Forwarding(leader).propose(1, COMMAND, 5_000, TRACE)
    assert reply == NodeReply(None, COMMAND.node)
    assert leader.asked == [("propose_traced", 5)]


async def test_without_a_trace_the_request_is_that_of_release_0_2_0() -> None:
    leader = Leader()
    await Forwarding(leader).propose(1, COMMAND, 5_000)
    assert leader.asked == [("propose", 3)]


async def test_a_leader_of_release_0_2_0_is_asked_again_without_it_and_from_then_on() -> None:
    leader = Leader(old=True)
    forwarding = Forwarding(leader)
    for _ in range(2):
        assert await forwarding.propose(1, COMMAND, 5_000, TRACE) == NodeReply(None, COMMAND.node)
    assert leader.asked == [("propose_traced", 5), ("propose", 3), ("propose", 3)]


async def test_what_the_leader_refuses_for_another_reason_is_not_asked_again() -> None:
    leader = Leader(error=InvalidRequestError("the write does not know its place"))
    with pytest.raises(InvalidRequestError, match="its place"):
        await Forwarding(leader).propose(1, COMMAND, 5_000, TRACE)
    assert len(leader.asked) == 1


async def test_a_slow_forwarded_write_has_its_line_on_the_leader(caplog: pytest.LogCaptureFixture) -> None:
    await Forwarding(Leader()).propose(1, COMMAND, 5_000)
    with pytest.raises(NotLeaderError):
        await Forwarding(Leader(error=NotLeaderError(3))).propose(1, COMMAND, 5_000)
    assert caplog.messages == ["a request took 2,000 ms, 2,000 of them in batch"] * 2
    done, failed = (vars(record) for record in caplog.records)
    assert (done["method"], done["from_node"], done["outcome"]) == ("forward", 2, "ok")
    assert failed["outcome"] == "not_leader"
