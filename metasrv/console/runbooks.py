"""The runbooks, as they are packed: beside the package where metasrv is installed, in docs/ in a source tree.

Blocks for the read of a small file; runs anywhere.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "runbooks", _PACKAGE.parent / "docs" / "runbooks")
_SLUG = re.compile(r"[a-z0-9-]{1,64}")


@cache
def runbook(slug: str) -> str | None:
    """The Markdown of a runbook, None when there is none of this name."""
    if not _SLUG.fullmatch(slug):
        return None
    for place in _PLACES:
        path = place / f"{slug}.md"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None
