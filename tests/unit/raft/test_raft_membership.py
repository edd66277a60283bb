"""One membership change at a time, and commands that fail, against the defects of plain pysyncobj (D6, D7)."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from pysyncobj.node import Node as EngineNode

from metasrv.consensus import JoinRequest
from metasrv.model import commands as c
from metasrv.model.entries import RegularEntry
from metasrv.model.errors import (
    ChangeInProgressError,
    JoinEndedError,
    MembershipError,
    NotLeaderError,
    TooLargeError,
    UnknownOutcomeError,
)
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.model.types import Endpoint, LogId, Node
from metasrv.raft.address_changes import at_registered
from metasrv.raft.core.engine import LEADER
from metasrv.raft.core.messages import AppendReply, LeaderPing
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.log.format import INDEX, TERM
from metasrv.raft.membership import _POLL_SECONDS as CATCH_UP_POLL_SECONDS
from metasrv.raft.membership import MembershipChanges
from metasrv.state import command_rules
from tests.support.raft_bench import Bench, elect, make_bench, member, membership, noop
from tests.support.raft_stock import stock_engine
from tests.support.state_bench import NOW_MS
from tests.support.state_bench import Bench as StateBench

pytestmark = pytest.mark.virtual_time

_SILENCE_SECONDS = 3 * 0.6 + 0.1
"""Longer than a holder of an id has to be silent before another directory may take it."""


class _Changes:
    """The leader's changes over a bench; `applied` is moved by the test."""

    def __init__(self, bench: Bench, applied: int) -> None:
        self.bench = bench
        self.applied = applied
        self.proposed: list[c.Command] = []
        self.registered: dict[int, Node] = {}
        self.changes = self.another()

    def another(self) -> MembershipChanges:
        """What a process that came back to lead has: nothing remembered of earlier changes."""
        return MembershipChanges(
            node_id=2,
            clock=self.bench.clock,
            engine=self.bench.engine,
            store=self.bench.store,
            free=self._free,
            append=self.bench.engine.append_as_leader,
            propose=self._propose,
            leader_id=self.bench.engine.leader_id,
            applied_index=lambda: self.applied,
            holders=IdHolders(
                clock=self.bench.clock,
                engine=self.bench.engine,
                registered=self.registered.get,
                directory_of=lambda _node_id: None,
                last_contact=lambda _node_id: None,
                election_timeout_max_seconds=0.6,
            ),
            registered=self.registered.get,
        )

    async def _free(self) -> None:
        return

    async def _propose(self, command: c.Command, _timeout_ms: int) -> c.Reply:
        self.proposed.append(command)
        return c.FeatureReply(())


def _leading(tmp_path: Path) -> _Changes:
    bench = make_bench(tmp_path)
    elect(bench, 1.0)
    assert bench.engine.role() == LEADER
    return _Changes(bench, bench.store.last_index)


# ----------------------------------------------------------------------------- D6


def test_d6_stock_accepts_any_number_of_uncommitted_changes() -> None:
    stock, _ = stock_engine()
    stock._SyncObj__noopIDx = 0
    before = stock.raftLastApplied
    for node_id in ("4", "5", "6"):
        assert stock._SyncObj__changeCluster(("add", node_id, EngineNode(node_id)))
    assert stock.raftLastApplied == before  # none of the three was committed
    assert {node.id for node in stock.otherNodes} == {"1", "3", "4", "5", "6"}


async def test_d6_a_change_waits_for_the_one_before(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    first = asyncio.create_task(leading.changes.leave(3, 5_000))
    for _ in range(10):  # until it waits for its entry to be applied
        await asyncio.sleep(0)
    assert set(leading.bench.engine.membership().voters) == {1, 2}
    for changes in (leading.changes, leading.another()):
        with pytest.raises(ChangeInProgressError):
            await changes.leave(1, 5_000)
    assert set(leading.bench.engine.membership().voters) == {1, 2}

    leading.applied = leading.bench.store.last_index
    await first
    assert leading.proposed == [c.RemoveNode(3)]


async def test_d6_no_change_before_the_leader_s_own_entry_is_applied(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    leading.applied -= 1
    with pytest.raises(ChangeInProgressError):
        await leading.changes.leave(3, 5_000)
    assert set(leading.bench.engine.membership().voters) == {1, 2, 3}


async def test_a_node_whose_address_is_too_long_is_not_admitted(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    node = Node(4, Endpoint("h" * (KEY_SIZE_BYTES_MAX + 1), 1), "", None)
    with pytest.raises(TooLargeError, match="the node's address in bytes"):
        await leading.changes.join(JoinRequest(node, "directory-4", True), 5_000)
    assert leading.proposed == []
    assert set(leading.bench.engine.membership().learners) == set()


# ----------------------------------------------------------------------------- leadership lost meanwhile


async def _waiting_leave(leading: _Changes) -> tuple[asyncio.Task[None], int]:
    """A removal of node 3 that waits for its entry, and the index of that."""
    before = leading.bench.store.last_index
    leaving = asyncio.create_task(leading.changes.leave(3, 5_000))
    await _until(lambda: leading.bench.store.last_index > before)
    return leaving, before + 1


async def test_a_change_whose_place_another_leader_s_entry_took_is_not_done(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    bench = leading.bench
    leaving, index = await _waiting_leave(leading)
    term = bench.engine.term() + 1
    before = bench.store[-2]
    bench.guards.incoming(1, bench.append(term, (before[INDEX], before[TERM]), [(noop(1), index, term)], index), 2.0)
    assert set(bench.engine.membership().voters) == {1, 2, 3}
    leading.applied = index
    with pytest.raises(NotLeaderError, match="took the place of the membership change"):
        await leaving
    assert leading.proposed == []


async def test_a_change_whose_entry_a_snapshot_took_away_is_unknown(tmp_path: Path) -> None:
    """The state is past it, the log no longer holds it, and this node has not led all the while."""
    leading = _leading(tmp_path)
    bench = leading.bench
    leaving, index = await _waiting_leave(leading)
    term = bench.engine.term() + 1
    bench.guards.incoming(1, LeaderPing(term, 0), 2.0)
    bench.engine.install((noop(1), index + 10, term), (noop(1), index + 11, term), membership(1, 2, 3))
    leading.applied = index + 11
    with pytest.raises(UnknownOutcomeError, match="look at the members"):
        await leaving
    assert leading.proposed == []


async def test_a_change_of_a_leader_that_has_purged_its_entry_since_is_done(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    bench = leading.bench
    leaving, index = await _waiting_leave(leading)
    for _ in range(3):
        bench.engine.append_as_leader(noop(2))
    bench.store.purge_to(index + 1)
    assert bench.store.entry_at(index) is None
    leading.applied = bench.store.last_index
    await leaving
    assert leading.proposed == [c.RemoveNode(3)]


# ----------------------------------------------------------------------------- join


async def test_a_learner_that_has_acknowledged_nothing_does_not_vote_also_while_the_log_is_short(tmp_path: Path) -> None:
    """Its vote would be needed at once, and it can give none before it knows that it is a member."""
    leading = _leading(tmp_path)
    bench = leading.bench
    engine = bench.engine
    joining = asyncio.create_task(
        leading.changes.join(JoinRequest(Node(4, member(4).endpoint, "", None), member(4).incarnation, False), 5_000)
    )
    await _until(lambda: 4 in engine.membership().learners)
    made_learner = bench.store.last_index
    leading.applied = made_learner
    for _ in range(5):
        await asyncio.sleep(CATCH_UP_POLL_SECONDS)
    assert 4 not in engine.membership().voters
    bench.guards.incoming(4, AppendReply(engine.term(), made_learner, True, False, 0), 1.0)
    for _ in range(5):
        await asyncio.sleep(CATCH_UP_POLL_SECONDS)
    assert 4 not in engine.membership().voters, "it still lacks the entry that made it a member"
    bench.guards.incoming(4, AppendReply(engine.term(), made_learner + 1, True, False, 0), 1.0)
    await _until(lambda: 4 in engine.membership().voters)
    leading.applied = bench.store.last_index
    await joining


def _join(leading: _Changes, node_id: int, directory: str) -> asyncio.Task[None]:
    node = Node(node_id, member(node_id).endpoint, "", None)
    return asyncio.create_task(leading.changes.join(JoinRequest(node, directory, False), 5_000))


async def _learns(leading: _Changes, node_id: int, directory: str) -> None:
    """Apply changes until the node is a learner with this directory."""

    def is_learner() -> bool:
        leading.applied = leading.bench.store.last_index
        learner = leading.bench.engine.membership().learners.get(node_id)
        return learner is not None and learner.incarnation == directory

    await _until(is_learner)
    leading.applied = leading.bench.store.last_index
    for _ in range(3):  # until the change has seen that it is applied
        await asyncio.sleep(CATCH_UP_POLL_SECONDS)


async def test_a_node_that_never_catches_up_holds_up_no_other_change_and_can_be_removed(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    unreachable = _join(leading, 4, "directory-4")
    await _learns(leading, 4, "directory-4")
    other = _join(leading, 5, "directory-5")
    await _learns(leading, 5, "directory-5")

    leaving = asyncio.create_task(leading.changes.leave(4, 5_000))
    await _until(lambda: 4 not in leading.bench.engine.membership())
    leading.applied = leading.bench.store.last_index
    await leaving
    with pytest.raises(JoinEndedError, match="node 4 was removed while it caught up"):
        await unreachable
    assert not other.done()
    other.cancel()


async def test_a_node_that_lost_its_disk_while_it_caught_up_is_admitted_with_the_new_directory(tmp_path: Path) -> None:
    """The one that asked before is gone, and nobody would end its wait (S14)."""
    leading = _leading(tmp_path)
    lost = _join(leading, 4, "directory-4")
    await _learns(leading, 4, "directory-4")
    leading.bench.clock.advance(_SILENCE_SECONDS)
    again = _join(leading, 4, "another directory")
    await _learns(leading, 4, "another directory")
    with pytest.raises(JoinEndedError, match="or admitted with another data directory"):
        await lost
    again.cancel()


async def test_a_voter_that_asks_to_be_a_learner_is_told_to_leave_first(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    request = JoinRequest(Node(3, member(3).endpoint, "", None), "directory-3", True)
    with pytest.raises(MembershipError, match="node 3 asks to join as a learner, but it votes already"):
        await leading.changes.join(request, 5_000)
    await leading.changes.join(request._replace(learner=False), 5_000)
    assert leading.proposed == []


async def test_an_id_whose_holder_is_heard_is_refused_and_taken_over_once_it_is_silent(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    bench = leading.bench
    bench.clock.advance(60.0)
    bench.guards.incoming(3, AppendReply(bench.engine.term(), 1, False, False, 0), bench.clock.monotonic())
    for _ in range(2):  # also when it asks again
        with pytest.raises(MembershipError, match=r"id 3 is in use by the node at 127\.0\.0\.1:28103.*of its own"):
            await _join(leading, 3, "another directory")
        bench.clock.advance(_SILENCE_SECONDS / 3)
    assert bench.engine.membership().voters[3].incarnation == "directory-3"
    assert leading.proposed == []

    bench.clock.advance(_SILENCE_SECONDS)
    taking = _join(leading, 3, "another directory")
    await _learns(leading, 3, "another directory")
    assert set(bench.engine.membership().voters) == {1, 2}
    taking.cancel()


async def test_a_new_leader_gives_every_holder_of_an_id_time_to_be_heard(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    with pytest.raises(MembershipError, match="id 3 is in use"):
        await _join(leading, 3, "another directory")
    assert set(leading.bench.engine.membership().voters) == {1, 2, 3}


async def test_a_node_that_is_admitted_again_at_another_address_is_registered_and_dialled_there(tmp_path: Path) -> None:
    """Its record was kept, so that it was dialled at the old address for ever (R15)."""
    leading = _leading(tmp_path)
    leading.registered[3] = Node(3, member(3).endpoint, "", None)
    leading.bench.clock.advance(_SILENCE_SECONDS)
    moved = Node(3, Endpoint("127.0.0.1", 30_003), "", None)
    joining = asyncio.create_task(leading.changes.join(JoinRequest(moved, "another directory", False), 5_000))
    await _learns(leading, 3, "another directory")
    assert leading.proposed == [c.AddNode(moved, True)]
    assert leading.bench.engine.membership().learners[3].endpoint == moved.endpoint
    joining.cancel()


async def test_a_learner_that_asks_from_another_address_is_moved_there_and_catches_up(tmp_path: Path) -> None:
    """The first join had a wrong address, and the second one changed nothing (R15)."""
    leading = _leading(tmp_path)
    engine = leading.bench.engine
    first = _join(leading, 4, "directory-4")
    await _learns(leading, 4, "directory-4")
    leading.registered[4] = Node(4, member(4).endpoint, "", None)
    corrected = Node(4, Endpoint("127.0.0.1", 30_004), "", None)
    second = asyncio.create_task(leading.changes.join(JoinRequest(corrected, "directory-4", True), 5_000))
    await _until(lambda: engine.membership().learners[4].endpoint == corrected.endpoint)
    leading.applied = leading.bench.store.last_index
    await second
    assert leading.proposed[-1] == c.AddNode(corrected, True)
    leading.registered[4] = corrected
    entries = leading.bench.store.last_index
    await leading.changes.join(JoinRequest(corrected, "directory-4", True), 5_000)
    assert leading.bench.store.last_index == entries, "asking once more changes nothing"
    first.cancel()


async def test_a_leave_waits_for_a_change_of_addresses_instead_of_failing(tmp_path: Path) -> None:
    leading = _leading(tmp_path)
    engine = leading.bench.engine
    nodes = {3: Node(3, Endpoint("127.0.0.1", 30_003), "", None)}
    moving = asyncio.create_task(leading.changes.move(lambda now: at_registered(now, nodes), 5_000))
    await _until(lambda: engine.membership().voters[3].endpoint == nodes[3].endpoint)
    assert engine.membership().voters[1] == member(1), "who is not registered stays where he is"
    leaving = asyncio.create_task(leading.changes.leave(1, 5_000))
    await asyncio.sleep(0)
    leading.applied = leading.bench.store.last_index
    await moving
    await _until(lambda: 1 not in engine.membership())
    leading.applied = leading.bench.store.last_index
    await leaving


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(CATCH_UP_POLL_SECONDS / 10)
    raise AssertionError("it did not come true")


# ----------------------------------------------------------------------------- D7


def _raises(*_: object, **__: object) -> None:
    raise ValueError("a bug, or a value that nobody thought of")


def test_d7_stock_never_gets_past_a_command_that_raises() -> None:
    stock, _ = stock_engine()
    stock._idToMethod[0] = _raises
    index = stock._SyncObj__raftLog[-1][1] + 1
    regular = b"\x00" + pickle.dumps((0, (), {}))
    stock._SyncObj__raftLog.add(regular, index, 1)
    stock._SyncObj__raftCommitIndex = index
    stock._SyncObj__raftLastApplied = index - 1
    for _ in range(2):
        with pytest.raises(ValueError, match="nobody thought of"):
            stock._SyncObj__applyLogEntries()
        assert stock.raftLastApplied == index - 1


def test_d7_a_command_that_fails_is_answered_and_the_next_one_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = StateBench(tmp_path)

    put = c.Upsert("key", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"value")
    with monkeypatch.context() as patch:
        patch.setitem(command_rules._APPLY, c.Upsert, _raises)
        failed, flag = bench.machine.apply_entry(
            LogId(1, 1, 1), RegularEntry(NOW_MS, 1, (put, c.SetFeature(c.KNOWN_FEATURES[0], True)))
        )
    assert type(failed) is c.ErrorReply
    assert "ValueError" in failed.text
    assert flag == c.FeatureReply((c.KNOWN_FEATURES[0],))
    assert bench.machine.last_applied.index == 1
    (reply,) = bench.machine.apply_entry(LogId(1, 2, 1), RegularEntry(NOW_MS, 1, (put,)))
    assert type(reply) is c.UpsertReply
    assert bench.machine.key_count == 1
    bench.machine.close()
