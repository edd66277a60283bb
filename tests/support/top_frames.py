"""Frames of `metactl top` made of the console's fixed states, as text files that a test compares.

`python -m tests.support.top_frames` writes `tests/data/top/` again; look at what changed. With `--picture FILE` it writes
one frame as an SVG, for the documentation.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI

from metasrv.cli.top.sight import Sight
from metasrv.cli.top.source import News
from metasrv.cli.top.view import Look, frame
from tests.support import console_scenes, console_states

NOW_MS = 1_795_780_924_000
FRAMES = Path(__file__).resolve().parents[1] / "data" / "top"
SIZES = ((80, 24), (60, 24), (100, None))


def sight_of(name: str) -> Sight:
    """What a stream tells of one of the states."""
    sight = Sight()
    lines: list[dict[str, Any]] = [
        {"type": "state", "state": console_scenes.STATES[name](NOW_MS)},
        {"type": "history", "history": console_states.history(NOW_MS)},
        {"type": "events", "events": console_states.events(NOW_MS)[::-1]},
    ]
    for line in lines:
        sight = sight.learnt(line)
    return sight


def news_of(name: str) -> News:
    return News(sight_of(name), "10.0.4.11:28101", "")


def frames() -> Iterator[tuple[str, str]]:
    """The name of each file, and its text."""
    for name in sorted(console_scenes.STATES):
        for width, height in SIZES:
            lines = frame(news_of(name), Look(width, height, keys=height is not None))
            size = f"{width}" if height is None else f"{width}x{height}"
            yield f"{name}-{size}.txt", "".join(f"{line.plain}\n" for line in lines)


def picture() -> str:
    """One frame with its styles, as an SVG that loads no font from elsewhere."""
    console = Console(record=True, width=96, file=io.StringIO())
    for line in frame(news_of("one-node-lost"), Look(96, 26, keys=True)):
        console.print(line, no_wrap=True)
    drawn = console.export_svg(title="metactl top", theme=MONOKAI, unique_id="top")
    drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--picture"]:
        Path(sys.argv[2]).write_text(picture(), encoding="utf-8")
        return
    FRAMES.mkdir(parents=True, exist_ok=True)
    for name, text in frames():
        (FRAMES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
