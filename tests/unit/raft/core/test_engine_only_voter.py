"""An only voter elects itself within one tick; what it then writes counts only once it is on its disk (D4)."""

from __future__ import annotations

from pathlib import Path

from metasrv.raft.core.engine import LEADER
from tests.support.raft_bench import Bench, make_bench, noop


def only_voter(directory: Path) -> Bench:
    bench = make_bench(directory, voters=(2,))
    bench.engine.set_election_deadline(0.0)
    bench.engine.doTick(0)
    return bench


def test_its_first_entry_is_not_committed_before_it_is_written(tmp_path: Path) -> None:
    bench = only_voter(tmp_path)
    assert bench.engine.role() == LEADER
    assert bench.store.dirty
    assert bench.store.last_index == 2
    assert bench.engine.commit_index() == 1
    assert bench.applied == []


def test_it_is_committed_afterwards(tmp_path: Path) -> None:
    bench = only_voter(tmp_path)
    bench.store.noop_content = noop(2)
    bench.store.take_pending()
    bench.engine.doTick(0)
    assert bench.engine.commit_index() == 2
    assert [(index, term) for _, index, term in bench.applied] == [(2, 1)]
