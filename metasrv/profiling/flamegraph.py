"""A flame graph as one self-contained SVG: no script, no font and no file from elsewhere.

Every box carries its text as a tooltip; widths are shares of the total. Boxes too narrow to be seen are left out, so
that the picture stays small. Pure; runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

from metasrv.profiling.stacks import Frame, StackSample

WIDTH_PIXELS = 1200
MARGIN_PIXELS = 10
ROW_PIXELS = 17
HEADER_PIXELS = 40
CHARACTER_PIXELS = 7.0
BOX_WIDTH_PIXELS_MIN = 0.3
DEPTH_MAX = 256
"""Rows; deeper frames count toward the last row."""


@dataclass(slots=True)
class _Box:
    """A frame at one place of the tree and the values of all stacks through it."""

    value: int = 0
    children: dict[Frame, _Box] = field(default_factory=dict)


def encode_flamegraph(
    title: str, samples: Iterable[StackSample], describe: Callable[[int], str], value_index: int = 0
) -> bytes:
    """The picture of one value of the samples; `describe` gives a value with its unit, for the tooltips."""
    root = _tree(samples, value_index)
    boxes = list(_boxes(root, root.value, describe))
    rows = max((depth for depth, _ in boxes), default=0) + 1
    height = HEADER_PIXELS + rows * ROW_PIXELS + MARGIN_PIXELS
    head = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" version="1.1" '
        f'width="{WIDTH_PIXELS}" height="{height}" viewBox="0 0 {WIDTH_PIXELS} {height}" '
        f'font-family="monospace" font-size="12">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{WIDTH_PIXELS / 2}" y="24" text-anchor="middle" font-size="16">{escape(title)}</text>\n'
    )
    empty = "" if root.value else f'<text x="{MARGIN_PIXELS}" y="{HEADER_PIXELS + 12}">No samples.</text>\n'
    return (head + empty + "".join(text for _, text in boxes) + "</svg>\n").encode()


def _tree(samples: Iterable[StackSample], value_index: int) -> _Box:
    root = _Box()
    for sample in samples:
        value = sample.values[value_index]
        if value <= 0:
            continue
        box = root
        box.value += value
        for frame in sample.frames[:DEPTH_MAX]:
            box = box.children.setdefault(frame, _Box())
            box.value += value
    return root


def _boxes(root: _Box, total: int, describe: Callable[[int], str]) -> Iterator[tuple[int, str]]:
    """Every visible box with its row, roots above their callees."""
    if not total:
        return
    scale = (WIDTH_PIXELS - 2 * MARGIN_PIXELS) / total
    waiting: list[tuple[Frame, _Box, int, float]] = [(Frame("all"), root, 0, float(MARGIN_PIXELS))]
    while waiting:
        frame, box, depth, left = waiting.pop()
        width = box.value * scale
        if width < BOX_WIDTH_PIXELS_MIN:
            continue
        tooltip = f"{frame}: {describe(box.value)}, {100 * box.value / total:.2f} %"
        yield depth, _draw(frame, tooltip, depth, left, width)
        for child_frame, child in sorted(box.children.items(), key=lambda item: item[0]):
            waiting.append((child_frame, child, depth + 1, left))
            left += child.value * scale


def _draw(frame: Frame, tooltip: str, depth: int, left: float, width: float) -> str:
    top = HEADER_PIXELS + depth * ROW_PIXELS
    characters = int((width - 4) / CHARACTER_PIXELS)
    label = ""
    if characters >= 3:
        name = str(frame)
        shown = name if len(name) <= characters else f"{name[: characters - 2]}.."
        label = f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(shown)}</text>'
    box = f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW_PIXELS - 1}" rx="2" fill="{_color(frame)}"/>'
    return f"<g><title>{escape(tooltip)}</title>{box}{label}</g>\n"


def _color(frame: Frame) -> str:
    """The same warm color for the same function in every picture."""
    mixed = crc32(f"{frame.function}{frame.file}".encode())
    return f"rgb({205 + mixed % 50},{80 + (mixed >> 8) % 130},{(mixed >> 16) % 60})"
