"""Where slow small writes waited, from the lines that a node logs of them (`slow_request_ms`). Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable

STAGES = ("queue", "leader", "forward", "batch", "sync", "peers", "apply", "answer")
_FIELD = re.compile(r" (\w+)_ms=([\d.]+)")


def stages_of(line: str, key: str) -> dict[str, float] | None:
    """Milliseconds by stage, with `total`; None for a line of something else, or of a request of another key."""
    if "metasrv.slow_requests" not in line or f'key="{key}' not in line:
        return None
    found = {name: float(value) for name, value in _FIELD.findall(line)}
    return found if "total" in found else None


def summary(lines: Iterable[str], key: str) -> str:
    """The share of each stage in the time of all slow requests whose key begins like this; empty without any."""
    slow = [found for line in lines if (found := stages_of(line, key)) is not None]
    total = sum(found["total"] for found in slow)
    if not total:
        return ""
    shares = {stage: sum(found.get(stage, 0.0) for found in slow) / total for stage in STAGES}
    largest_first = sorted(shares.items(), key=lambda item: -item[1])
    parts = [f"{stage} {share:.0%}" for stage, share in largest_first if share >= 0.01]
    return f"{len(slow)} lines of slow writes, {total / len(slow):.0f} ms each: {', '.join(parts)}"
