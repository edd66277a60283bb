"""The results of a comparison as JSON, as a Markdown table and as pictures. Pure functions but for `write`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.compared.loads import Turn

OURS = "metasrv"
WIDTH, ROW_HEIGHT, LABEL_WIDTH, FULL_RATIO = 720, 18, 250, 2.0
COLOURS = ("#2563eb", "#d97706")


@dataclass(slots=True)
class Row:
    """One load at one number of clients: every turn of every contender, in the order in which they took turns."""

    load: str
    title: str
    clients: int
    turns: dict[str, list[Turn]]

    def median(self, name: str, figure: str) -> float:
        values: list[float] = [getattr(turn, figure) for turn in self.turns[name]]
        return statistics.median(values)

    def ratio(self, peer: str) -> float:
        """Ours to a peer's requests a second: the median of neighbouring turns' ratios; a slow minute hardly moves it."""
        pairs = zip(self.turns[OURS], self.turns[peer], strict=True)
        return statistics.median(ours.per_second / theirs.per_second for ours, theirs in pairs)

    def spread(self, peer: str) -> tuple[float, float]:
        """The smallest and the largest of these ratios."""
        pairs = [a.per_second / b.per_second for a, b in zip(self.turns[OURS], self.turns[peer], strict=True)]
        return min(pairs), max(pairs)


@dataclass(slots=True)
class Results:
    """Everything that one run measured."""

    machine: str
    date: str
    load_average: float
    """When the run began: figures of a busy machine say little."""
    peers: list[str]
    rows: list[Row] = field(default_factory=list)
    events: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By title, contender and figure."""


def markdown(results: Results) -> str:
    """The tables for people."""
    lines = [f"{results.date}, {results.machine}, load average {results.load_average:.1f} at the start.", ""]
    lines += [
        "| load | clients | metasrv | "
        + " | ".join(f"{peer} | ratio (spread)" for peer in results.peers)
        + " | p99 ms | leader, followers µs each |",
        "|---|---|---|" + "---|---|" * len(results.peers) + "---|---|",
    ]
    for row in results.rows:
        cells = [row.title, str(row.clients), f"{row.median(OURS, 'per_second'):,.0f}/s"]
        for peer in results.peers:
            low, high = row.spread(peer)
            cells += [f"{row.median(peer, 'per_second'):,.0f}/s", f"**{row.ratio(peer):.2f}** ({low:.2f}–{high:.2f})"]
        everyone = (OURS, *results.peers)
        cells.append(" / ".join(f"{row.median(name, 'p99_ms'):.1f}" for name in everyone))
        cells.append(
            " / ".join(
                f"{row.median(name, 'leader_microseconds'):.0f}, {row.median(name, 'follower_microseconds'):.0f}"
                for name in everyone
            )
        )
        lines.append("| " + " | ".join(cells) + " |")
    if results.events:
        lines += [
            "",
            "| what | " + " | ".join((OURS, *results.peers)) + " |",
            "|---|" + "---|" * (1 + len(results.peers)),
        ]
    for title, by_contender in results.events.items():
        cells = [title]
        for name in (OURS, *results.peers):
            cells.append(figures_text(by_contender.get(name)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figures_text(figures: Mapping[str, float] | None) -> str:
    """As `p50 1.2 ms, worst 3 ms`."""
    if figures is None:
        return "not measured"
    parts = []
    for name, value in figures.items():
        what, _, unit = name.rpartition("_")
        parts.append(f"{what.replace('_', ' ')} {value:,.0f} MiB" if unit == "mib" else f"{what} {value:.3g} {unit}")
    return ", ".join(parts)


def ratios_picture(results: Results) -> str:
    """An SVG of bars: how many times a peer's requests a second we do, a line at 1."""
    height = ROW_HEIGHT * (len(results.rows) * len(results.peers) + 3)
    unit = (WIDTH - LABEL_WIDTH - 60) / FULL_RATIO
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="{ROW_HEIGHT}">requests a second, as a multiple of etcd\'s; {escape(results.date)}</text>',
    ]
    one, top = LABEL_WIDTH + unit, ROW_HEIGHT * 1.5
    bottom = ROW_HEIGHT * (2 + len(results.rows) * len(results.peers))
    parts.append(f'<line x1="{one}" y1="{top}" x2="{one}" y2="{bottom}" stroke="#111827" stroke-dasharray="4 3"/>')
    y = ROW_HEIGHT * 2
    for row in results.rows:
        parts.append(f'<text x="8" y="{y + 12}">{escape(f"{row.title}, {row.clients}")}</text>')
        for number, peer in enumerate(results.peers):
            ratio = row.ratio(peer)
            colour, width = COLOURS[number % len(COLOURS)], unit * min(ratio, FULL_RATIO)
            parts += [
                f'<rect x="{LABEL_WIDTH}" y="{y + 2}" width="{width:.1f}" height="{ROW_HEIGHT - 4}" fill="{colour}">',
                f"<title>{escape(peer)}: {ratio:.2f}</title></rect>",
                f'<text x="{LABEL_WIDTH + width + 4:.1f}" y="{y + 12}" stroke="#ffffff" stroke-width="4"'
                f' paint-order="stroke">{ratio:.2f}</text>',
            ]
            y += ROW_HEIGHT
    for number, peer in enumerate(results.peers):
        x, colour = LABEL_WIDTH + 150 * number, COLOURS[number % len(COLOURS)]
        parts.append(f'<text x="{x}" y="{y + 14}" fill="{colour}">{escape(peer)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(results: Results, directory: Path) -> Sequence[Path]:
    """Three files, by the run's date; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    name = "comparison-" + results.date.replace(" ", "-").replace(":", "")
    contents = {
        "json": json.dumps(asdict(results), indent=1),
        "md": markdown(results),
        "svg": ratios_picture(results),
    }
    paths = []
    for suffix, text in contents.items():
        path = directory / f"{name}.{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
