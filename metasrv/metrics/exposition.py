"""Metric families and their text form.

Encoded here because prometheus_client cannot print what legacy readers parse: a counter whose sample has the bare name
under its own TYPE line, and a summary with quantiles. A family's name is the one in its TYPE line in the plain format.
Knows nothing of what is counted. Pure functions; runs anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Metric

from metasrv.metrics.counting import Histogram

CONTENT_TYPE_PLAIN = "text/plain; charset=utf-8"
CONTENT_TYPE_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

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
        bounds = [*(repr(float(bound)) for bound in counted.bounds), "+Inf"]
        cumulative = counted.cumulative()
        samples += [
            Sample(f"{name}_bucket", (*labels, ("le", bound)), count)
            for bound, count in zip(bounds, cumulative, strict=True)
        ]
        samples.append(Sample(f"{name}_sum", labels, counted.sum))
        samples.append(Sample(f"{name}_count", labels, cumulative[-1]))
    return Family(name, "histogram", help_text, samples)


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

    Plain text wherever it is accepted, though Prometheus prefers OpenMetrics: only the plain form may carry the bare
    counter names beside those ending in `_total`.
    """
    accepted = (accept or "").lower()
    if "application/openmetrics-text" in accepted and "text/plain" not in accepted and "*/*" not in accepted:
        return CONTENT_TYPE_OPENMETRICS
    return CONTENT_TYPE_PROMETHEUS if "version=0.0.4" in accepted else CONTENT_TYPE_PLAIN


def encode(families: Iterable[Family], content_type: str) -> bytes:
    """The page in the chosen form; families without a sample are left out."""
    openmetrics = content_type == CONTENT_TYPE_OPENMETRICS
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.name
        if openmetrics and family.kind == "counter":
            if not name.endswith("_total"):
                continue
            name = name.removesuffix("_total")
        lines.append(f"# HELP {name} {_escape_help(family.help, openmetrics)}")
        lines.append(f"# TYPE {name} {family.kind}")
        lines += [_line(sample) for sample in family.samples]
        if not openmetrics:
            lines.append("")
    lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def format_value(value: float) -> str:
    """Print whole numbers without a point, as on the legacy page."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _line(sample: Sample) -> str:
    value = format_value(sample.value)
    if not sample.labels:
        return f"{sample.name} {value}"
    labels = ",".join(f'{name}="{_escape_label(text)}"' for name, text in sample.labels)
    return f"{sample.name}{{{labels}}} {value}"


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped
