"""The engine and everything around it read one clock: a raw clock of its own let heartbeats come late."""

from __future__ import annotations

from pathlib import Path

from pysyncobj import syncobj as engine_module

from tests.support.raft_bench import elect, make_bench


def test_the_engine_uses_the_clock_it_was_given(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    assert engine_module.monotonicTime == bench.engine._clock.monotonic


def test_a_leader_is_not_late_with_its_heartbeat(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    elect(bench, bench.engine._clock.monotonic())
    bench.engine.replicate()
    before = bench.engine._SyncObj__newAppendEntriesTime - bench.engine._clock.monotonic()
    assert 0.0 < before <= 0.1 + 1e-9
