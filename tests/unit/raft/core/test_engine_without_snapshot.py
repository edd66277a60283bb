"""A leader whose follower needs a snapshot that is not ready says so once a round, not for as long as it may send."""

from __future__ import annotations

from pathlib import Path

from metasrv.raft.core.messages import AppendEntries, AppendReply, LeaderPing
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import elect, make_bench, regular


def slow_clock() -> HandClock:
    """A machine on which each look at the clock takes 50 microseconds: a send loop of 4 ms has room for many turns."""
    return HandClock(step_seconds=0.00005)


def test_a_peer_without_a_snapshot_is_told_once(tmp_path: Path) -> None:
    entries = [(regular(index), index, 0) for index in range(2, 12)]
    bench = make_bench(tmp_path, entries=entries, applied_index=11, clock=slow_clock())
    elect(bench, now=1000.0)
    bench.store.purge_to(10)
    bench.take()
    for node_id in (1, 3):
        bench.engine.receive(node_id, _asks_from(2, bench.engine.term()))

    bench.engine.replicate()

    sent = bench.take()
    assert sorted(node_id for node_id, _ in sent) == [1, 3]
    assert all(isinstance(message, LeaderPing) for _, message in sent)
    bench.engine.replicate()
    assert len(bench.take()) == 2, "both peers are still connected in the next round"


def test_the_other_peers_get_their_entries(tmp_path: Path) -> None:
    entries = [(regular(index), index, 0) for index in range(2, 12)]
    bench = make_bench(tmp_path, entries=entries, applied_index=11, clock=slow_clock())
    elect(bench, now=1000.0)
    bench.store.purge_to(10)
    bench.take()
    bench.engine.receive(1, _asks_from(2, bench.engine.term()))

    bench.engine.replicate()

    kinds = {node_id: type(message) for node_id, message in bench.take()}
    assert kinds == {1: LeaderPing, 3: AppendEntries}


def _asks_from(index: int, term: int) -> AppendReply:
    return AppendReply(term, index, success=False, reset=True, round=0)
