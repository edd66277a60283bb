"""Every block of commands on the pages for operators is run by a test, or says why it is not."""

from __future__ import annotations

import re

from tests.support.documents import PAGES, all_blocks, blocks_in, commands_outside
from tests.support.paths import ROOT

TESTS = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests/cluster").glob("test_documents*.py")))


def run_scenarios() -> set[str]:
    """The scenarios that a test carries out."""
    return set(re.findall(r'Operator\(\s*\w+,\s*"([\w-]+)"', TESTS))


def test_every_block_is_run_or_says_why_not() -> None:
    run = run_scenarios()
    blocks = all_blocks()
    assert len(blocks) > 25
    assert [block.place for block in blocks if not block.scenarios and not block.reason] == []
    assert [block.place for block in blocks if block.scenarios and block.reason] == []
    assert {name for block in blocks for name in block.scenarios} == run


def test_no_commands_stand_outside_of_blocks() -> None:
    outside = [place for page in PAGES for place in commands_outside(page, (ROOT / page).read_text(encoding="utf-8"))]
    assert outside == []


def test_a_block_without_a_scenario_and_a_command_outside_would_be_noticed() -> None:
    text = (
        "Text.\n\n    metactl status\n\n1. Do:\n\n   ```sh one two\n   metactl \\\n       status\n   ```\n"
        "<!-- not tried here: nobody has a second machine at hand -->\n```sh\nrm x\n```\n\n```toml\nmetactl = 1\n```\n"
    )
    first, second = blocks_in("page", text)
    assert (first.line, first.scenarios, first.reason, first.text) == (7, ("one", "two"), "", "metactl \\\n    status")
    assert (second.scenarios, second.reason, second.text) == ((), "nobody has a second machine at hand", "rm x")
    assert commands_outside("page", text) == ["page:3"]
