"""Scripts of Raft do what they say (tests/unit/raft/scripts/README.md).

`REWRITE_SCRIPTS=1 python -m pytest tests/unit/raft/test_scripts.py` writes into the scripts what happens now; the
difference is then read as any other.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.raft_scripts import replay

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_happens_as_it_is_written(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    happened = replay(written, path.stem)
    if os.environ.get("REWRITE_SCRIPTS") == "1":
        path.write_text(happened, encoding="utf-8")
    else:
        assert happened == written


def test_there_are_scripts_and_each_explains_itself() -> None:
    assert len(SCRIPTS) >= 12
    for path in SCRIPTS:
        assert sum(line.startswith("# ") for line in path.read_text(encoding="utf-8").splitlines()) >= 4, path.name


def test_another_outcome_is_noticed() -> None:
    text = "cluster 3\nelect 1\n  1 leads in term 2\n"
    assert "1 leads in term 1" in replay(text, "any")
    assert replay(text, "any") != text
