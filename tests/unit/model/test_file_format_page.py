"""The table of commands in docs/file-formats.md is the one of the code."""

from __future__ import annotations

from metasrv.model.command_table import COMMANDS
from tests.support.paths import ROOT


def test_the_page_lists_every_command() -> None:
    page = (ROOT / "docs/file-formats.md").read_text(encoding="utf-8")
    section = page.split("| tag | command | fields | reply |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    rows = [
        f"| {tag} | `{kind.__name__}` | {', '.join(f'`{field}`' for field in kind._fields)} | `{answer.kind.__name__}` |"
        for (tag, kind, *_), answer in COMMANDS
    ]
    assert section.splitlines() == rows
