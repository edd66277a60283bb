"""The table of docs/operating.md that says how a raft secret is adopted or changed."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.paths import ROOT

_ROW = re.compile(r"^\| [123] \| (.+?) \| (new|none) \|$", re.MULTILINE)


class Step(NamedTuple):
    """What one step of the procedure puts into the configuration of a node."""

    raft_secret: str | None
    raft_accepted_secrets: tuple[str, ...]


def documented_steps(old: str | None, new: str) -> list[Step]:
    """The settings after each step, for a cluster whose secret was `old`, or that had none."""
    rows = _ROW.findall((ROOT / "docs/operating.md").read_text(encoding="utf-8"))
    assert len(rows) == 3
    values = {"as before: old, or none": old, "new": new}
    return [Step(values[own], (new,) if accepted == "new" else ()) for own, accepted in rows]
