"""The history and what fills it: rings with gaps, differences of counters, quantiles of buckets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.config.model import Config, RaftConfig
from metasrv.console.history import POINTS_MAX, SERIES, STEP_MS, History, Point
from metasrv.console.sampling import HistogramDelta, PeerRates, Sampler, quantile
from metasrv.metrics.counting import Histogram
from metasrv.node.context import NodeContext
from metasrv.protocol.methods import TRANSACTION
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status
from metasrv.testing.hand_clock import HandClock


@pytest.fixture
def context(tmp_path: Path) -> Iterator[NodeContext]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    made, _ = fake_context(machine, Config(raft_config=RaftConfig(raft_dir=str(tmp_path))), sample_status(), HandClock())
    yield made
    machine.close()


def test_a_history_keeps_fifteen_minutes() -> None:
    history = History()
    assert history.view(77) == {"step_ms": 2000, "start_ms": 77, "series": {name: [] for name in SERIES}}
    for number in range(POINTS_MAX + 5):
        history.add(Point(number * STEP_MS, {"watchers": number}), number * STEP_MS / 1000)
    view = history.view(0)
    assert view["series"]["watchers"] == list(range(5, POINTS_MAX + 5))
    assert view["start_ms"] == 5 * STEP_MS
    assert {len(series) for series in view["series"].values()} == {POINTS_MAX}
    assert set(view["series"]["sync_ms"]) == {None}


def test_what_was_not_sampled_is_unknown_and_keeps_its_place() -> None:
    history = History()
    history.add(Point(10_000, {"watchers": 1}), 10.0)
    history.add(Point(16_050, {"watchers": 2}), 16.05)
    view = history.view(0)
    assert view["series"]["watchers"] == [1, None, None, 2]
    assert view["start_ms"] == 10_050
    history.add(Point(9_000_000, {"watchers": 3}), 90_000.0)
    assert len(history.view(0)["series"]["watchers"]) == POINTS_MAX, "a long pause costs no more than the ring"


def test_quantiles_lie_within_their_bucket() -> None:
    assert quantile((1, 2, 4), [0, 0, 0, 0], 0.5) is None
    assert quantile((1, 2, 4), [0, 10, 0, 0], 0.5) == 1.5
    assert quantile((1, 2, 4), [2, 0, 2, 0], 0.5) == 1.0
    assert quantile((1, 2, 4), [0, 0, 0, 3], 0.99) == 4, "past the last bound"


def test_a_difference_counts_only_what_is_new() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(0.5)
    delta = HistogramDelta(lambda: histogram)
    delta.look()
    assert (delta.count, delta.mean(), delta.quantile(0.5)) == (0, None, None)
    histogram.observe(1.5)
    histogram.observe(1.5)
    delta.look()
    assert (delta.count, delta.mean(), delta.quantile(0.5)) == (2, 1.5, 1.5)


def test_a_point_has_every_series_and_rates_from_the_second_look_on(context: NodeContext) -> None:
    clock, metrics = context.clock, context.metrics
    assert isinstance(clock, HandClock)
    sampler = Sampler(context)
    first = sampler.take(sample_status()).values
    assert set(first) == set(SERIES)
    assert (first["writes_per_second"], first["write_p50_ms"], first["sync_ms"]) == (None, None, None)
    for _ in range(10):
        metrics.rpc_finished(None, 0.0015, TRANSACTION)
    metrics.log_synced(0.002, 1)
    metrics.batch_applied(0.001, 5)
    context.loop_lag_peak_ms = 12.0
    clock.advance(2.0)
    second = sampler.take(sample_status()).values
    assert (second["writes_per_second"], second["reads_per_second"]) == (5.0, 0.0)
    assert (second["write_p50_ms"], second["sync_ms"], second["batch_commands"]) == (1.5, 2.0, 5.0)
    assert (second["loop_lag_ms"], context.loop_lag_peak_ms) == (12.0, 0.0)
    assert (second["database_bytes"], second["log_bytes"], second["connections"]) == (70_000, 30_000, 0)


def test_rates_of_peers_are_unknown_until_there_were_two_looks(context: NodeContext) -> None:
    rates = PeerRates(context)
    rates.look(2.0)
    assert rates.sent(2) is None
    context.metrics.sent_bytes(2, 100)
    context.metrics.received_bytes("127.0.0.1:28104", 50)
    rates.look(2.0)
    assert rates.sent(2) is None
    context.metrics.sent_bytes(2, 500)
    rates.look(2.0)
    assert (rates.sent(2), rates.received("127.0.0.1:28104"), rates.sent(3)) == (250.0, 0.0, None)
