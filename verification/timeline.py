"""A violation as a picture: one row a client, one bar an operation, time from left to right.

A self-contained SVG, or an HTML page with the explanation below it: no script, no font, nothing from elsewhere. Time
advances one step from each call or return to the next, because real gaps differ a thousandfold; the axis shows seconds.
Pure computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from metasrv.testing.history import Operation
from metasrv.testing.linearizability import Violation

ROW_HEIGHT = 46
BAR_HEIGHT = 18
LEFT = 110
TOP = 64
STEP_WIDTH_MIN = 26
CHARACTER_WIDTH = 6.7
LABEL_CHARACTERS_MAX = 64
OPEN_WIDTH = 70

COLOURS = {"read": "#4c78a8", "unknown": "#9a9a9a", "culprit": "#d62728", "write": "#3a923a"}
LEGEND = (("read", "read"), ("write", "change"), ("unknown", "outcome unknown"), ("culprit", "cannot be explained"))


class _Bar(NamedTuple):
    operation: Operation
    kind: str
    row: int
    first: int
    last: int | None
    """Numbers of the moments at which it begins and ends; None if it never ended."""
    label: str


def timeline_html(violation: Violation) -> str:
    """A page with the picture and the text."""
    title = f"{violation.key} is not linearizable"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>"
        "body{font-family:sans-serif;margin:24px;color:#222;background:#fff}"
        ".picture{overflow-x:auto;border:1px solid #ddd}"
        "pre{background:#f6f6f6;padding:12px;overflow-x:auto;font-size:13px;line-height:1.4}"
        f'</style></head><body><h1 style="font-size:20px">{escape(title)}</h1>'
        f'<div class="picture">{timeline_svg(violation)}</div><pre>{escape(str(violation))}</pre></body></html>\n'
    )


def timeline_svg(violation: Violation) -> str:
    """The picture of the shortest history that shows a violation."""
    operations = sorted(violation.core.operations, key=lambda one: one.called_at)
    moments = sorted({at for one in operations for at in (one.called_at, one.returned_at) if at is not None})
    clients = sorted({one.process for one in operations})
    bars = [_bar(one, violation.culprit, clients, moments) for one in operations]
    positions = _positions(bars, len(moments))
    width = positions[-1] + OPEN_WIDTH + max((len(bar.label) for bar in bars if bar.last is None), default=0) * 4
    height = TOP + len(clients) * ROW_HEIGHT + 44
    states = ", ".join(sorted(map(repr, violation.states)))
    began = ", ".join(sorted(map(repr, violation.core.initial_states)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width:.0f}" height="{height}" fill="#fff"/>',
        *_axis(moments, positions, height),
        *_rows(clients, width),
        *(part for bar in bars for part in _draw(bar, positions, width)),
        f'<text x="8" y="{height - 10}" fill="#444">value at the left edge: {escape(_short(began))} '
        f"· possible before the red answer: {escape(_short(states))}</text>",
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts)


def _bar(one: Operation, culprit: Operation, clients: Sequence[int], moments: Sequence[float]) -> _Bar:
    kind = "write"
    if one is culprit:
        kind = "culprit"
    elif not one.is_known:
        kind = "unknown"
    elif one.name in ("read", "read_all"):
        kind = "read"
    last = None if one.returned_at is None else moments.index(one.returned_at)
    return _Bar(one, kind, clients.index(one.process), moments.index(one.called_at), last, _short(str(one)))


def _positions(bars: Sequence[_Bar], count: int) -> list[float]:
    """The x position of each moment, far enough apart for every label to fit over its bar."""
    widths = [float(STEP_WIDTH_MIN)] * (count - 1)
    for bar in sorted(bars, key=lambda bar: (bar.last is None, bar.last or 0)):
        end = count - 1 if bar.last is None else bar.last
        missing = len(bar.label) * CHARACTER_WIDTH + 8 - sum(widths[bar.first : end])
        if end > bar.first and missing > 0 and bar.last is not None:
            widths[end - 1] += missing
    positions = [float(LEFT)]
    for width in widths:
        positions.append(positions[-1] + width)
    return positions


def _axis(moments: Sequence[float], positions: Sequence[float], height: int) -> list[str]:
    parts = []
    written_until = 0.0
    for at, x in zip(moments, positions, strict=True):
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 30}" stroke="#eee"/>')
        if x >= written_until:
            text = f"{at - moments[0]:.4f} s"
            parts.append(f'<text x="{x:.1f}" y="{TOP - 14}" fill="#777" font-size="10">{text}</text>')
            written_until = x + len(text) * 6.0
    return parts


def _rows(clients: Sequence[int], width: float) -> list[str]:
    parts = []
    for row, client in enumerate(clients):
        y = TOP + row * ROW_HEIGHT + ROW_HEIGHT - BAR_HEIGHT / 2 - 6
        parts.append(f'<text x="8" y="{y + 4:.1f}" fill="#222">client {client}</text>')
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{width:.0f}" y2="{y:.1f}" stroke="#ddd"/>')
    return parts


def _draw(bar: _Bar, positions: Sequence[float], width: float) -> list[str]:
    left = positions[bar.first]
    right = width - 6 if bar.last is None else max(positions[bar.last], left + 4)
    y = TOP + bar.row * ROW_HEIGHT + ROW_HEIGHT - BAR_HEIGHT - 6
    colour = COLOURS[bar.kind]
    dashes = ' stroke-dasharray="5 3"' if bar.last is None else ""
    weight = "bold" if bar.kind == "culprit" else "normal"
    return [
        f'<g><title>{escape(str(bar.operation))}</title><rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" '
        f'height="{BAR_HEIGHT}" rx="3" fill="{colour}" fill-opacity="0.25" stroke="{colour}"{dashes}/>',
        f'<text x="{left + 4:.1f}" y="{y - 4}" fill="{colour}" font-weight="{weight}">{escape(bar.label)}</text></g>',
    ]


def _legend() -> list[str]:
    parts = []
    x = 8
    for kind, text in LEGEND:
        colour = COLOURS[kind]
        parts.append(
            f'<rect x="{x}" y="10" width="14" height="14" rx="3" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>'
            f'<text x="{x + 20}" y="21" fill="#222">{text}</text>'
        )
        x += 40 + int(len(text) * CHARACTER_WIDTH)
    return parts


def _short(text: str) -> str:
    return text if len(text) <= LABEL_CHARACTERS_MAX else text[: LABEL_CHARACTERS_MAX - 1] + "…"
