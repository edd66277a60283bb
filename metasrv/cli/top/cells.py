"""Numbers, times and charts as a few characters, for `metactl top`.

What is not known is `-`, never 0. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from metasrv.cli.top.sight import Number, known

UNKNOWN = "-"
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
_SIZES = ("B", "K", "M", "G", "T", "P")
_TWO_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))
"""Seconds of a unit with its name, and of the next smaller one."""


def count(value: Number) -> str:
    """`1,234`, `12.3k` from ten thousand on."""
    if value is None:
        return UNKNOWN
    if abs(value) < 9_999.5:
        return f"{value:,.0f}"
    for divisor, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if abs(value) < divisor * 999.95:
            return f"{value / divisor:.1f}{unit}"
    return f"{value:.1e}"


def rate(value: Number) -> str:
    """As `count`; below ten with one digit behind the point."""
    return f"{value:.1f}" if value is not None and 0 < abs(value) < 9.95 else count(value)


def size(size_bytes: Number) -> str:
    """`18.0M`; bytes below 1,024 as they are."""
    if size_bytes is None:
        return UNKNOWN
    value = float(size_bytes)
    for unit in _SIZES:
        if abs(value) < 999.5 or unit == _SIZES[-1]:
            return f"{value:.0f}{unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f}{unit}"
        value /= 1024
    return UNKNOWN


def milliseconds(value: Number) -> str:
    """`0.31ms`, `12ms`, `1.2s`, `5m 03s`."""
    if value is None:
        return UNKNOWN
    if abs(value) < 9.995:
        return f"{value:.2f}ms"
    if abs(value) < 999.5:
        return f"{value:.0f}ms"
    return f"{value / 1000:.1f}s" if abs(value) < 59_950 else duration(value)


def age(value_ms: Number) -> str:
    """As `milliseconds`, without fractions."""
    return milliseconds(value_ms) if value_ms is None or abs(value_ms) >= 999.5 else f"{value_ms:.0f}ms"


def duration(value_ms: Number) -> str:
    """The two largest units: `3d 04h`, `4h 05m`, `41s`."""
    if value_ms is None:
        return UNKNOWN
    seconds = max(0, int(value_ms / 1000))
    for unit, name, below, below_name in _TWO_UNITS:
        if seconds >= unit:
            return f"{seconds // unit}{name} {seconds % unit // below:02d}{below_name}"
    return f"{seconds}s"


def offset(value_ms: Number) -> str:
    """`+3ms`, `-1.2s`."""
    if value_ms is None:
        return UNKNOWN
    return f"{value_ms:+.0f}ms" if abs(value_ms) < 999.5 else f"{value_ms / 1000:+.1f}s"


def clock(time_ms: int) -> str:
    """`12:03:44`, in UTC as everywhere else."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "--:--:--"


def moment(time_ms: int, now_ms: int) -> str:
    """The time of day, or how many days ago: eight characters, and more after some years."""
    days = (now_ms - time_ms) // 86_400_000
    return f"{days}d ago".ljust(8) if days > 0 else clock(time_ms)


def chart(points: Sequence[Number], width: int, blocks: str = BLOCKS) -> str:
    """The newest points as a line of blocks, from zero to the largest; a column has the largest of its points.

    What is not known, and what is before the first point, is a space.
    """
    if width <= 0 or not points:
        return " " * max(0, width)
    each = max(1, -(-len(points) // width))
    used = points[-each * width :]
    first = len(used) % each or each
    columns = [used[:first], *(used[at : at + each] for at in range(first, len(used), each))]
    largest = max(known(used), default=0.0)
    drawn = "".join(_column(known(column), largest, blocks) for column in columns)
    return drawn.rjust(width)


def _column(values: list[float], largest: float, blocks: str) -> str:
    if not values:
        return " "
    share = max(0.0, max(values)) / largest if largest > 0 else 0.0
    return blocks[min(len(blocks) - 1, int(share * len(blocks)))]
