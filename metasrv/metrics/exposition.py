"""Metric families and their text form.

Encoded here because prometheus_client cannot print what legacy readers parse: a counter whose sample has the bare name
under its own TYPE line, and a summary with quantiles. A family's name is the one in its TYPE line in the plain format.
Knows nothing of what is counted. Pure functions; runs anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Metric

from metasrv.metrics.counting import Histogram
from metasrv.model.limits import METRICS_LABELS_REMEMBERED_MAX

CONTENT_TYPE_PLAIN = "text/plain; charset=utf-8"
CONTENT_TYPE_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

HISTOGRAM_BOUNDS_REMEMBERED_MAX = 64
"""Sets of bounds whose text is kept; there are about ten."""

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One line: a full name, its labels in order, a value."""

    name: str
    labels: Labels
    value: float


class Family(NamedTuple):
    """Everything under one TYPE line."""

    name: str
    kind: str
    """`counter`, `gauge`, `histogram` or `summary`."""
    help: str
    samples: Sequence[Sample]


# ----------------------------------------------------------------------------- making families


def gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, "gauge", help_text, (Sample(name, (), value),))


def counter(name: str, help_text: str, value: float) -> Family:
    """`name` is the sample's name: with `_total` for current readers, bare for legacy ones."""
    return Family(name, "counter", help_text, (Sample(name, (), value),))


def labelled(name: str, kind: str, help_text: str, values: Mapping[Labels, float]) -> Family:
    """A gauge or a counter with one sample for each label set."""
    return Family(name, kind, help_text, [Sample(name, labels, value) for labels, value in values.items()])


def histogram(name: str, help_text: str, by_labels: Mapping[Labels, Histogram]) -> Family:
    samples: list[Sample] = []
    for labels, counted in by_labels.items():
        bounds = _bounds_texts(counted.bounds)
        cumulative = counted.cumulative()
        samples += [
            Sample(f"{name}_bucket", (*labels, ("le", bound)), count)
            for bound, count in zip(bounds, cumulative, strict=True)
        ]
        samples.append(Sample(f"{name}_sum", labels, counted.sum))
        samples.append(Sample(f"{name}_count", labels, cumulative[-1]))
    return Family(name, "histogram", help_text, samples)


@lru_cache(maxsize=HISTOGRAM_BOUNDS_REMEMBERED_MAX)
def _bounds_texts(bounds: tuple[float, ...]) -> list[str]:
    return [*(repr(float(bound)) for bound in bounds), "+Inf"]


def summary(name: str, help_text: str, quantiles: Mapping[str, float], total: float, count: int) -> Family:
    samples = [Sample(name, (("quantile", quantile),), value) for quantile, value in quantiles.items()]
    samples += [Sample(f"{name}_sum", (), total), Sample(f"{name}_count", (), count)]
    return Family(name, "summary", help_text, samples)


def family_of(metric: Metric) -> Family:
    """Convert a family of prometheus_client, such as its process collector's."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    kind = metric.type if metric.type in ("counter", "gauge") else "gauge"
    samples = [
        Sample(sample.name, tuple(sample.labels.items()), sample.value)
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]
    return Family(name, kind, metric.documentation, samples)


# ----------------------------------------------------------------------------- text


def choose_content_type(accept: str | None) -> str:
    """The content type for a reader that sent this `Accept` header.

    OpenMetrics for readers that name it and do not name plain text. Prometheus names both and prefers OpenMetrics, but
    only the plain form may carry the bare counter names beside those ending in `_total`; `scrape_protocols` in its
    configuration makes it name OpenMetrics alone.
    """
    named = {kind for kind, quality in _accepted(accept or "") if quality > 0.0}
    if "application/openmetrics-text" in named and "text/plain" not in named:
        return CONTENT_TYPE_OPENMETRICS
    return CONTENT_TYPE_PROMETHEUS if "version=0.0.4" in (accept or "").lower() else CONTENT_TYPE_PLAIN


def _accepted(accept: str) -> Iterator[tuple[str, float]]:
    """Each media type of an `Accept` header with its quality, 1.0 where none is given or none can be read."""
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            yield kind, float(quality)
        except ValueError:
            yield kind, 1.0


def encode(families: Iterable[Family], content_type: str) -> bytes:
    """The page in the chosen form."""
    openmetrics = content_type == CONTENT_TYPE_OPENMETRICS
    return page_of(line for family in families for line in lines_of(family, openmetrics))


def lines_of(family: Family, openmetrics: bool) -> list[str]:
    """The lines of one family; none where it has no sample, or no place in this form."""
    if not family.samples:
        return []
    name = family.name
    if openmetrics and family.kind == "counter":
        if not name.endswith("_total"):
            return []
        name = name.removesuffix("_total")
    lines = [f"# HELP {name} {_escape_help(family.help, openmetrics)}", f"# TYPE {name} {family.kind}"]
    for sample, labels, value in family.samples:
        number = str(value) if type(value) is int else format_value(value)
        lines.append(f"{sample}{_labels_text(labels)} {number}" if labels else f"{sample} {number}")
    if not openmetrics:
        lines.append("")
    return lines


def page_of(lines: Iterable[str]) -> bytes:
    """The whole page from the lines of its families."""
    return "\n".join((*lines, "# EOF\n")).encode()


def format_value(value: float) -> str:
    """Print whole numbers without a point, as on the legacy page."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


@lru_cache(maxsize=METRICS_LABELS_REMEMBERED_MAX)
def _labels_text(labels: Labels) -> str:
    """The labels in braces; a page has the same ones as the page before it."""
    return "{" + ",".join(f'{name}="{_escape_label(text)}"' for name, text in labels) + "}"


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped
