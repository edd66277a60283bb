"""Since when a learner learns, and whether it ever caught up: what a status shows of it."""

from __future__ import annotations

from pathlib import Path

from metasrv.model.types import Endpoint, Member, Membership
from metasrv.raft.core.messages import AppendReply, LeaderPing
from metasrv.raft.learners import CATCH_UP_LAG_ENTRIES, Learners
from tests.support.raft_bench import Bench, elect, make_bench, member, membership, regular

WITH_LEARNER = membership(1, 2, 3, learners=(4,))


class _Leading:
    """Node 2 leads; node 4 is a learner."""

    def __init__(self, directory: Path) -> None:
        self.raft: Bench = make_bench(directory)
        elect(self.raft, 1.0)
        self.learners = Learners(self.raft.clock, self.raft.engine, self.raft.store)
        self.adopt(WITH_LEARNER)

    def adopt(self, members: Membership) -> None:
        self.raft.engine.adopt(members)
        self.learners.look()

    def acknowledges(self, index: int) -> None:
        engine = self.raft.engine
        reply = AppendReply(engine.term(), index + 1, True, False, 0)
        self.raft.guards.incoming(4, reply, self.raft.clock.monotonic())
        self.learners.look()

    def write(self, count: int) -> None:
        for number in range(count):
            self.raft.engine.append_as_leader(regular(number))
        self.learners.look()


def test_a_learner_has_an_age_and_voters_have_none(tmp_path: Path) -> None:
    leading = _Leading(tmp_path)
    leading.raft.clock.advance(12.5)
    assert leading.learners.learns_for_ms(4) == 12_500
    assert leading.learners.learns_for_ms(3) is None
    leading.adopt(membership(1, 2, 3, 4))
    assert leading.learners.learns_for_ms(4) is None
    assert leading.learners.caught_up(4) is None


def test_it_has_caught_up_once_it_had_nearly_all_and_stays_so(tmp_path: Path) -> None:
    leading = _Leading(tmp_path)
    assert leading.learners.caught_up(4) is False, "also while the log is short: it has acknowledged nothing"
    leading.write(2 * CATCH_UP_LAG_ENTRIES)
    last = leading.raft.store.last_index
    leading.acknowledges(last - CATCH_UP_LAG_ENTRIES - 1)
    assert leading.learners.caught_up(4) is False
    leading.acknowledges(last - CATCH_UP_LAG_ENTRIES)
    assert leading.learners.caught_up(4) is True
    leading.write(2 * CATCH_UP_LAG_ENTRIES)
    assert leading.learners.caught_up(4) is True


def test_another_directory_and_another_leadership_begin_anew(tmp_path: Path) -> None:
    leading = _Leading(tmp_path)
    leading.acknowledges(leading.raft.store.last_index)
    leading.raft.clock.advance(5.0)
    leading.adopt(membership(1, 2, 3, learners=(4, 5)))
    assert (leading.learners.learns_for_ms(4), leading.learners.caught_up(4)) == (5_000, True)
    assert (leading.learners.learns_for_ms(5), leading.learners.caught_up(5)) == (0, False)

    leading.raft.guards.incoming(1, LeaderPing(leading.raft.engine.term() + 1, 0), 9.0)
    leading.learners.look()
    assert leading.learners.caught_up(4) is None, "only a leader knows"
    assert leading.learners.learns_for_ms(4) == 5_000
    elect(leading.raft, 10.0)
    leading.learners.look()
    assert leading.learners.caught_up(4) is False

    other = Member(Endpoint("127.0.0.1", 28104), "another directory")
    leading.adopt(Membership({i: member(i) for i in (1, 2, 3)}, {4: other}))
    assert leading.learners.learns_for_ms(4) == 0
