"""Quantiles, histograms and bounded labels: order, limits, sums."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.metrics import exposition
from metasrv.metrics.counting import BoundedCounter, Histogram, HistogramByLabel
from metasrv.metrics.exposition import Family, Sample, encode, format_value
from metasrv.metrics.quantiles import SlidingWindow
from metasrv.model.limits import (
    METRICS_LABELS_MAX,
    METRICS_LABELS_REMEMBERED_MAX,
    METRICS_WINDOW_OBSERVATIONS_MAX,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_an_empty_window_knows_nothing() -> None:
    assert all(math.isnan(value) for value in SlidingWindow().quantiles((0, 0.5, 1)))


def test_a_window_keeps_as_many_observations_as_the_limit() -> None:
    window = SlidingWindow()
    for value in range(METRICS_WINDOW_OBSERVATIONS_MAX):
        window.observe(value)
    assert window.quantiles((0, 1)) == [0, METRICS_WINDOW_OBSERVATIONS_MAX - 1]
    window.observe(METRICS_WINDOW_OBSERVATIONS_MAX)
    assert window.quantiles((0, 1)) == [1, METRICS_WINDOW_OBSERVATIONS_MAX]
    assert len(window) == METRICS_WINDOW_OBSERVATIONS_MAX


@given(st.lists(FINITE, min_size=1, max_size=60), st.integers(1, 20))
def test_quantiles_are_in_order_and_of_the_last_values(values: list[float], capacity: int) -> None:
    window = SlidingWindow(capacity)
    for value in values:
        window.observe(value)
    kept = values[-capacity:]
    quantiles = window.quantiles((0, 0.5, 0.9, 0.95, 0.99, 0.999, 1))
    assert quantiles == sorted(quantiles)
    assert (quantiles[0], quantiles[-1]) == (min(kept), max(kept))
    assert set(quantiles) <= set(kept)


def test_a_window_needs_room() -> None:
    with pytest.raises(ValueError, match="room for one"):
        SlidingWindow(0)


def test_a_bound_counts_what_equals_it() -> None:
    histogram = Histogram((1, 2))
    for value in (1, 1.001, 2, 2.001):
        histogram.observe(value)
    assert (histogram.cumulative(), histogram.count) == ([1, 3, 4], 4)
    assert histogram.sum == pytest.approx(6.002)


def test_histograms_add_up() -> None:
    one, other = Histogram((1, 2)), Histogram((1, 2))
    one.observe(1)
    other.observe(5)
    total = one.plus(other)
    assert (total.counts, total.sum, one.counts) == ([1, 0, 1], 6, [1, 0, 0])
    with pytest.raises(ValueError, match="different bounds"):
        one.plus(Histogram((1,)))
    with pytest.raises(ValueError, match="must ascend"):
        Histogram((2, 1))


def test_labels_are_bounded_and_nothing_is_lost() -> None:
    counter: BoundedCounter[str] = BoundedCounter("other")
    for number in range(METRICS_LABELS_MAX):
        counter.add(str(number), 1)
    assert len(counter.values) == METRICS_LABELS_MAX
    assert "other" not in counter.values
    counter.add("one more", 1)
    counter.add("and another", 1)
    assert len(counter.values) <= METRICS_LABELS_MAX + 1
    assert (counter.values["other"], counter.values["one more"]) == (2, 1)
    assert sum(counter.values.values()) == METRICS_LABELS_MAX + 2


def test_histograms_by_label_are_bounded() -> None:
    histograms = HistogramByLabel((1.0,), "other", limit=2)
    for label in ("a", "b", "c", "d", "a"):
        histograms.observe(label, 0.5)
    assert {label: histogram.count for label, histogram in histograms.histograms.items()} == {"a": 2, "b": 1, "other": 2}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2**64, "18446744073709551616"),
        (1.0, "1"),
        (0.000227375, "0.000227375"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (1e300, "1e+300"),
    ],
)
def test_values_are_written_as_the_first_readers_wrote_them(value: float, text: str) -> None:
    assert format_value(value) == text


def test_labels_and_help_are_escaped() -> None:
    family = Family("m", "gauge", 'a "b"\\\n', [Sample("m", (("l", 'x"\\\ny'),), 1)])
    assert encode([family], "text/plain").decode() == (
        '# HELP m a "b"\\\\\\n\n# TYPE m gauge\nm{l="x\\"\\\\\\ny"} 1\n\n# EOF\n'
    )


def test_the_texts_of_labels_are_kept_up_to_their_limit() -> None:
    exposition._labels_text.cache_clear()
    for number in range(METRICS_LABELS_REMEMBERED_MAX + 1):
        exposition._labels_text((("number", str(number)),))
    assert exposition._labels_text.cache_info().currsize == METRICS_LABELS_REMEMBERED_MAX
