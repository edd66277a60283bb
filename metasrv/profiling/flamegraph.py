"""A flame graph as one self-contained SVG with zoom and search: no font, no script and no file from elsewhere.

Every box carries its text as a tooltip; widths are shares of the total. Boxes too narrow to be seen are left out, so
that the picture stays small. Its one script is `flamegraph.js`; `CONTENT_SECURITY_POLICY` allows this one alone. Pure;
runs anywhere.

A picture of a difference has the stacks of both moments: each is as wide as the larger of its two values, red where
the second one is larger, blue where it is smaller.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from zlib import crc32

from metasrv.profiling.stacks import Frame, StackSample

WIDTH_PIXELS = 1200
MARGIN_PIXELS = 10
ROW_PIXELS = 17
HEADER_PIXELS = 60
CHARACTER_PIXELS = 7.0
BOX_WIDTH_PIXELS_MIN = 0.1
DEPTH_MAX = 256
"""Rows; deeper frames count toward the last row."""

SCRIPT = resources.files("metasrv.profiling").joinpath("flamegraph.js").read_text(encoding="utf-8")
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(f"\n{SCRIPT}".encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; frame-ancestors 'none'"

Describe = Callable[[int], str]


@dataclass(slots=True)
class _Box:
    """A frame at one place of the tree and the values of all stacks through it."""

    width: int = 0
    before: int = 0
    after: int = 0
    children: dict[Frame, _Box] = field(default_factory=dict)


def encode_flamegraph(title: str, samples: Iterable[StackSample], describe: Describe, value_index: int = 0) -> bytes:
    """The picture of one value of the samples; `describe` gives a value with its unit, for the tooltips."""
    root = _tree((frames, values[value_index], values[value_index]) for frames, values in samples)

    def tooltip(box: _Box) -> str:
        return f"{describe(box.width)}, {100 * box.width / root.width:.2f} %"

    return _encode(title, root, tooltip, _color)


def encode_difference(
    title: str, samples: Iterable[StackSample], describe: Describe, before_index: int, after_index: int
) -> bytes:
    """The picture of how one value of the samples differs from another."""
    root = _tree((frames, values[before_index], values[after_index]) for frames, values in samples)

    def tooltip(box: _Box) -> str:
        change = box.after - box.before
        sign = "-" if change < 0 else "+"
        return f"{describe(box.before)} before, {describe(box.after)} after: {sign}{describe(abs(change))}"

    return _encode(title, root, tooltip, _color_of_change)


def _encode(title: str, root: _Box, tooltip: Callable[[_Box], str], color: Callable[[Frame, _Box], str]) -> bytes:
    boxes = list(_boxes(root, tooltip, color))
    rows = max((depth for depth, _ in boxes), default=0) + 1
    height = HEADER_PIXELS + rows * ROW_PIXELS + MARGIN_PIXELS
    head = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" version="1.1" '
        f'width="{WIDTH_PIXELS}" height="{height}" viewBox="0 0 {WIDTH_PIXELS} {height}" '
        f'font-family="monospace" font-size="12">\n<title>{escape(title)}</title>\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{WIDTH_PIXELS / 2}" y="24" text-anchor="middle" font-size="16">{escape(title)}</text>\n'
        f'<foreignObject x="{MARGIN_PIXELS}" y="32" width="280" height="26">'
        '<input xmlns="http://www.w3.org/1999/xhtml" id="search" type="search" size="28" placeholder="Search functions" '
        'aria-label="Search functions"/></foreignObject>\n'
        f'<text id="found" x="{MARGIN_PIXELS + 290}" y="49">Click a box to zoom in, the first row to zoom out.</text>\n'
    )
    empty = "" if root.width else f'<text x="{MARGIN_PIXELS}" y="{HEADER_PIXELS + 12}">No samples.</text>\n'
    boxes_text = "".join(text for _, text in boxes)
    # Nothing in the script needs escaping in XML but what CDATA covers.
    script = f"<script><![CDATA[\n{SCRIPT}]]></script>\n"
    return f'{head}{empty}<g id="boxes">\n{boxes_text}</g>\n{script}</svg>\n'.encode()


def _tree(samples: Iterable[tuple[tuple[Frame, ...], int, int]]) -> _Box:
    root = _Box()
    for frames, before, after in samples:
        width = max(before, after)
        if width <= 0:
            continue
        path = [root]
        for frame in frames[:DEPTH_MAX]:
            path.append(path[-1].children.setdefault(frame, _Box()))
        for box in path:
            box.width += width
            box.before += before
            box.after += after
    return root


def _boxes(root: _Box, tooltip: Callable[[_Box], str], color: Callable[[Frame, _Box], str]) -> Iterator[tuple[int, str]]:
    """Every visible box with its row, roots above their callees."""
    if not root.width:
        return
    scale = (WIDTH_PIXELS - 2 * MARGIN_PIXELS) / root.width
    waiting: list[tuple[Frame, _Box, int, float]] = [(Frame("all"), root, 0, float(MARGIN_PIXELS))]
    while waiting:
        frame, box, depth, left = waiting.pop()
        width = box.width * scale
        if width < BOX_WIDTH_PIXELS_MIN:
            continue
        yield depth, _draw(frame, tooltip(box), color(frame, box), depth, left, width)
        for child_frame, child in sorted(box.children.items(), key=lambda item: item[0]):
            waiting.append((child_frame, child, depth + 1, left))
            left += child.width * scale


def _draw(frame: Frame, tooltip: str, color: str, depth: int, left: float, width: float) -> str:
    """The first line of the tooltip is the frame; the script takes labels from it."""
    top = HEADER_PIXELS + depth * ROW_PIXELS
    characters = int((width - 4) / CHARACTER_PIXELS)
    name = str(frame).replace("\n", " ")
    shown = "" if characters < 3 else name if len(name) <= characters else f"{name[: characters - 2]}.."
    label = f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(shown)}</text>'
    box = f'<rect x="{left:.3f}" y="{top}" width="{width:.3f}" height="{ROW_PIXELS - 1}" rx="2" fill="{color}"/>'
    return f"<g><title>{escape(name)}\n{escape(tooltip)}</title>{box}{label}</g>\n"


def _color(frame: Frame, _box: _Box) -> str:
    """The same warm color for the same function in every picture."""
    mixed = crc32(f"{frame.function}{frame.file}".encode())
    return f"rgb({205 + mixed % 50},{80 + (mixed >> 8) % 130},{(mixed >> 16) % 60})"


def _color_of_change(_frame: Frame, box: _Box) -> str:
    """Red for more, blue for less, the stronger the larger the share that changed."""
    faded = round(230 * (1 - abs(box.after - box.before) / box.width))
    return f"rgb(240,{faded},{faded})" if box.after >= box.before else f"rgb({faded},{faded},240)"
