"""The guards, against the defects of plain pysyncobj that they answer (D1, D9, D12, D13, D14)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pysyncobj.node import Node as EngineNode

from metasrv.raft.core.engine import CANDIDATE, FOLLOWER, LEADER
from metasrv.raft.core.messages import (
    AppendReply,
    HigherTerm,
    LeaderPing,
    LeaderSeen,
    PreVote,
    PreVoteGranted,
    RequestVote,
    TimeoutNow,
    VoteGranted,
)
from tests.support.raft_bench import change, elect, make_bench, membership, noop, regular
from tests.support.raft_stock import stock_engine

# ----------------------------------------------------------------------------- D1


def test_d1_stock_commits_an_unverified_tail_during_a_snapshot_transfer() -> None:
    stock, leader = stock_engine((b"\x01", 2, 1), (b"\x01", 3, 1))
    message = {"type": "append_entries", "term": 5, "commit_index": 3, "serialized": None}
    stock._SyncObj__onMessageReceived(leader, message)
    assert stock.raftCommitIndex == 3  # entries of a deposed leader, never matched against the new one


def test_d1_nothing_is_committed_from_the_old_log_while_a_snapshot_comes(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, entries=[(regular(2), 2, 1), (regular(3), 3, 1)])
    bench.receiving = True
    bench.guards.incoming(1, LeaderPing(5, 9), 10.0)
    bench.guards.incoming(1, bench.append(5, (3, 1), [], commit=3), 10.0)
    bench.engine.doTick(0)
    assert bench.engine.commit_index() == 1
    assert bench.applied == []
    assert [message for _, message in bench.take()] == [LeaderSeen(5, 9), LeaderSeen(5, 0)]


# ----------------------------------------------------------------------------- D9


def test_d9_an_acknowledgement_of_an_older_term_does_not_count(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, 1.0)
    term, last = bench.engine.term(), bench.store.last_index
    bench.guards.incoming(1, AppendReply(term - 1, last + 1, True, False, 0), 2.0)
    assert bench.engine.match_index(1) == 0
    bench.guards.incoming(1, AppendReply(term, last + 1, True, False, 0), 2.0)
    assert bench.engine.match_index(1) == last


def test_an_acknowledgement_beyond_the_leaders_log_does_not_count(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, 1.0)
    bench.guards.incoming(1, AppendReply(bench.engine.term(), bench.store.last_index + 5, True, False, 0), 2.0)
    assert bench.engine.match_index(1) == 0


def test_an_acknowledgement_from_a_stranger_does_not_count(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, 1.0)
    bench.guards.incoming(7, AppendReply(bench.engine.term(), 2, True, False, 0), 2.0)
    assert bench.engine.match_index(7) == 0


# ----------------------------------------------------------------------------- D12


def test_d12_stock_deletes_entries_that_agree() -> None:
    stock, leader = stock_engine((b"\x01", 2, 1), (b"\x01", 3, 1), (b"\x01", 4, 1))
    heartbeat = {
        "type": "append_entries", "term": 1, "commit_index": 1, "entries": [], "prevLogIdx": 2, "prevLogTerm": 1,
    }  # fmt: skip
    stock._SyncObj__onMessageReceived(leader, heartbeat)
    assert stock._SyncObj__raftLog[-1][1] == 2


def test_d12_entries_that_agree_stay(tmp_path: Path) -> None:
    entries = [(regular(i), i, 1) for i in (2, 3, 4)]
    bench = make_bench(tmp_path, entries=entries, term=1)
    bench.guards.incoming(1, bench.append(1, (2, 1), [], commit=4), 1.0)
    assert bench.store.last_index == 4
    assert bench.engine.commit_index() == 2  # only what the message proves to match
    assert bench.take()[-1] == (1, AppendReply(1, 3, True, False, 0))
    bench.guards.incoming(1, bench.append(1, (1, 0), entries[:2], commit=4), 1.0)
    assert (bench.store.last_index, bench.engine.commit_index()) == (4, 3)


def test_a_conflicting_tail_is_replaced(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, entries=[(regular(i), i, 1) for i in (2, 3, 4)], term=1)
    bench.guards.incoming(1, bench.append(2, (2, 1), [(noop(1), 3, 2)], commit=3), 1.0)
    assert bench.indexes() == [(1, 0), (2, 1), (3, 2)]
    assert bench.take()[-1] == (1, AppendReply(2, 4, True, False, 0))


def test_a_missing_predecessor_is_asked_for(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=1)
    bench.guards.incoming(1, bench.append(1, (9, 1), [(regular(10), 10, 1)]), 1.0)
    assert bench.take()[-1] == (1, AppendReply(1, 2, False, True, 0))
    assert bench.store.last_index == 1


def test_a_membership_that_was_never_committed_is_taken_back(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=1)
    three, four = membership(1, 2, 3), membership(1, 2, 3, learners=(4,))
    bench.guards.incoming(1, bench.append(1, (1, 0), [(change(three, four), 2, 1)]), 1.0)
    assert bench.engine.membership() == four
    bench.guards.incoming(3, bench.append(2, (1, 0), [(noop(3), 2, 2)]), 1.0)
    assert bench.engine.membership() == three


# ----------------------------------------------------------------------------- D13: pre-vote, stickiness


def test_d13_stock_is_deposed_by_any_vote_request_of_a_higher_term() -> None:
    stock, _ = stock_engine()
    stock._SyncObj__onBecomeLeader()
    message = {"type": "request_vote", "term": 9, "last_log_index": 0, "last_log_term": 0}
    stock._SyncObj__onMessageReceived(EngineNode("3"), message)
    assert not stock._isLeader()


def test_d13_a_leader_with_a_quorum_ignores_vote_requests(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, bench.clock.monotonic())
    term = bench.engine.term()
    bench.guards.incoming(3, RequestVote(term + 5, 99, term + 4, False), bench.clock.monotonic())
    assert (bench.engine.role(), bench.engine.term()) == (LEADER, term)


def test_d13_a_follower_of_a_live_leader_ignores_votes_and_pre_votes(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.guards.incoming(1, bench.append(1, (1, 0), []), 10.0)
    bench.take()
    bench.guards.incoming(3, RequestVote(7, 9, 6, False), 10.3)
    bench.guards.incoming(3, PreVote(7, 9, 6), 10.3)
    assert (bench.take(), bench.engine.term()) == ([], 1)
    bench.guards.incoming(3, PreVote(7, 9, 6), 10.5)
    assert bench.take() == [(3, PreVoteGranted(7))]


def test_a_transfer_is_voted_for_although_the_leader_lives(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.guards.incoming(1, bench.append(1, (1, 0), []), 10.0)
    bench.take()
    bench.guards.incoming(3, RequestVote(2, 1, 0, True), 10.1)
    assert bench.take() == [(3, VoteGranted(2))]


def test_no_campaign_and_no_new_term_without_a_majority_in_reach(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=4)
    bench.reachable = set()
    now = bench.clock.monotonic() + 5
    for step in range(50):
        bench.guards.before_tick(now + step * 0.1)
        bench.engine.doTick(0)
    assert (bench.engine.term(), bench.engine.role(), bench.guards.electing) == (4, FOLLOWER, True)
    assert bench.take() == []


def test_a_campaign_follows_a_majority_of_pre_votes(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=4)
    bench.engine.peer_ready(1, True)
    now = bench.clock.monotonic() + 5
    bench.guards.before_tick(now)
    assert bench.take() == [(1, PreVote(5, 1, 0)), (3, PreVote(5, 1, 0))]
    bench.guards.incoming(7, PreVoteGranted(5), now)  # no voter
    bench.guards.incoming(3, PreVoteGranted(4), now)  # another question
    bench.guards.before_tick(now + 0.01)
    bench.engine.doTick(0)
    assert bench.engine.term() == 4
    bench.guards.incoming(3, PreVoteGranted(5), now)
    bench.guards.before_tick(now + 0.02)
    bench.engine.doTick(0)
    assert (bench.engine.role(), bench.engine.term()) == (CANDIDATE, 5)
    assert RequestVote(5, 1, 0, False) in [message for _, message in bench.take()]


def test_a_node_that_is_out_neither_campaigns_nor_votes(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=4)
    bench.guards.silent = True
    now = bench.clock.monotonic() + 5
    bench.guards.before_tick(now)
    bench.guards.incoming(1, PreVote(5, 9, 4), now)
    bench.guards.incoming(1, RequestVote(5, 9, 4, True), now)
    assert bench.take() == []
    assert not bench.guards.electing


def test_a_part_of_a_large_message_of_the_leader_counts_as_a_heartbeat(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    start = bench.clock.monotonic()
    assert not bench.guards.leader_sends(1, start, answers=True), "no leader is known"
    bench.guards.incoming(1, LeaderPing(1, 7), start)
    bench.take()
    assert not bench.guards.leader_sends(1, start + 0.05, answers=True), "heard a moment ago"
    assert not bench.guards.leader_sends(3, start + 0.4, answers=True), "not the leader"
    for turn in range(1, 8):
        assert bench.guards.leader_sends(1, start + 0.4 * turn, answers=turn != 7)
        assert bench.take() == ([(1, LeaderSeen(1, 7))] if turn != 7 else []), "an answer needs the term on disk"
        assert bench.engine.election_deadline() >= start + 0.4 * turn + 0.4
        assert bench.guards.hears_leader(start + 0.4 * turn + 0.3)
    bench.guards.incoming(1, TimeoutNow(1), start + 3.0)
    assert not bench.guards.leader_sends(1, start + 3.4, answers=True), "the leader asks this node to stand"


def test_a_leader_and_a_node_that_looks_for_one_take_no_part_of_a_message_for_a_heartbeat(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    start = bench.clock.monotonic()
    bench.guards.incoming(1, LeaderPing(1, 7), start)
    bench.guards.before_tick(start + 5)
    bench.take()
    assert bench.guards.electing
    assert not bench.guards.leader_sends(1, start + 5.1, answers=True)
    elect(bench, start + 6)
    bench.take()
    assert not bench.guards.leader_sends(1, start + 9, answers=True)
    assert bench.take() == []


def test_a_pause_of_this_process_is_not_the_leaders_silence(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=4)
    now = bench.clock.monotonic()
    bench.guards.before_tick(now)
    bench.guards.before_tick(now + 30.0)  # nothing ran in between
    assert bench.take() == []
    assert not bench.guards.electing


def test_a_vote_counts_once(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, voters=(1, 2, 3, 4, 5))
    bench.engine.set_election_deadline(0.0)
    bench.engine.peer_ready(1, True)
    bench.engine.doTick(0)
    term = bench.engine.term()
    bench.guards.incoming(1, VoteGranted(term), 1.0)
    bench.guards.incoming(1, VoteGranted(term), 1.0)
    bench.guards.incoming(9, VoteGranted(term), 1.0)
    assert bench.engine.role() == CANDIDATE
    bench.guards.incoming(3, VoteGranted(term), 1.0)
    assert bench.engine.role() == LEADER


def test_a_node_that_never_joined_or_was_wiped_does_not_vote(tmp_path: Path) -> None:
    for number, voters in enumerate(((), (1, 2, 3))):
        (tmp_path / str(number)).mkdir()
        bench = make_bench(tmp_path / str(number), voters=voters)
        bench.guards._incarnation = "a new directory"
        bench.guards.incoming(3, RequestVote(2, 9, 1, False), 100.0)
        bench.guards.incoming(3, PreVote(2, 9, 1), 100.0)
        bench.engine.set_election_deadline(0.0)
        bench.guards.before_tick(100.0)
        bench.engine.doTick(0)
        assert (bench.take(), bench.engine.term(), bench.engine.role()) == ([], 0, FOLLOWER)


def test_messages_of_an_older_term_are_answered_with_the_newer_one(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, term=6)
    bench.guards.incoming(1, bench.append(3, (1, 0), []), 1.0)
    assert bench.take() == [(1, HigherTerm(6))]


def test_a_leader_that_hears_of_a_higher_term_steps_down_without_voting(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, bench.clock.monotonic())
    term = bench.engine.term()
    bench.guards.incoming(3, HigherTerm(term + 3), bench.clock.monotonic())
    assert (bench.engine.role(), bench.engine.term()) == (FOLLOWER, term + 3)
    assert bench.store.getVotedForNodeId() is None
    assert bench.take() == []


def test_a_node_that_must_not_lead_hesitates_once_and_still_campaigns(tmp_path: Path) -> None:
    """It may be the only one that has a committed entry."""
    bench = make_bench(tmp_path, term=4)
    bench.engine.peer_ready(1, True)
    bench.guards.reluctant = True
    now = bench.clock.monotonic() + 5
    bench.guards.before_tick(now)
    waits = bench.engine.election_deadline() - now
    assert bench.take() == []
    assert waits > 3 * bench.engine.random_timeout() / 2
    for step in range(int(waits / 0.05) + 2):
        bench.guards.before_tick(now + step * 0.05)
    assert bench.take() == [(1, PreVote(5, 1, 0)), (3, PreVote(5, 1, 0))]
    bench.guards.incoming(1, bench.append(5, (1, 0), []), now + waits + 0.1)  # a leader is heard
    bench.take()
    again = now + waits + 0.15
    bench.engine.set_election_deadline(again - 0.01)
    bench.guards.before_tick(again)
    assert bench.engine.election_deadline() - again > 3 * bench.engine.random_timeout() / 2
    assert bench.take() == [], "it hesitates again"


def test_transfer_campaigns_at_once_and_says_so(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.guards.incoming(1, bench.append(1, (1, 0), []), 1.0)
    bench.take()
    bench.guards.incoming(3, TimeoutNow(1), 1.0)  # not the leader
    assert not bench.engine.transfer_asked()
    bench.guards.incoming(1, TimeoutNow(1), 1.0)
    bench.engine.peer_ready(1, True)
    bench.guards.before_tick(bench.clock.monotonic())
    bench.engine.doTick(0)
    assert RequestVote(2, 1, 0, True) in [message for _, message in bench.take()]


# ----------------------------------------------------------------------------- D14


def test_d14_a_leader_without_answers_knows_that_it_has_no_quorum(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    now = bench.clock.monotonic()
    elect(bench, now)
    assert bench.guards.leads_with_quorum(now)
    assert not bench.guards.leads_with_quorum(now + 0.5)


@pytest.mark.parametrize("answering", [1, 3])
def test_one_answer_of_three_voters_is_a_quorum(tmp_path: Path, answering: int) -> None:
    bench = make_bench(tmp_path)
    elect(bench, bench.clock.monotonic())
    later = bench.clock.monotonic() + 0.5
    bench.guards.incoming(answering, LeaderSeen(bench.engine.term(), 0), later)
    assert bench.guards.leads_with_quorum(later + 0.1)


# ----------------------------------------------------------------------------- a disk that stalls


def test_a_node_whose_disk_stalls_does_not_stand_but_votes(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.guards.may_stand = lambda: False
    bench.engine.set_election_deadline(bench.clock.now - 0.1)
    bench.guards.before_tick(bench.clock.now)
    assert bench.take() == []
    assert bench.engine.election_deadline() > bench.clock.now
    bench.guards.incoming(1, PreVote(1, 1, 0), bench.clock.now)
    assert bench.take() == [(1, PreVoteGranted(1))]


def test_a_node_whose_disk_stalls_does_not_take_over(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.guards.incoming(1, bench.append(1, (1, 0), []), bench.clock.now)
    bench.guards.may_stand = lambda: False
    bench.guards.incoming(1, TimeoutNow(1), bench.clock.now)
    assert not bench.engine.transfer_asked()
    bench.guards.may_stand = lambda: True
    bench.guards.incoming(1, TimeoutNow(1), bench.clock.now)
    assert bench.engine.transfer_asked()
    bench.guards.may_stand = lambda: False
    bench.guards.before_tick(bench.clock.now)
    assert not bench.engine.transfer_asked(), "nor when the disk stalls right afterwards, or is well again later"


def test_the_only_voter_stands_whatever_its_disk_does(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, voters=(2,))
    bench.guards.may_stand = lambda: False
    bench.engine.set_election_deadline(0.0)
    bench.guards.before_tick(bench.clock.now)
    assert bench.engine.election_deadline() == 0.0
