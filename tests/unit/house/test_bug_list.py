"""tests/BUGS.md: every bug says what was seen, why, how it was mended, and which test keeps it away; that test exists."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

SECTIONS = re.findall(
    r"^## (\w\d+) (.+)\n((?:(?!^## ).*\n)*)", (ROOT / "tests/BUGS.md").read_text(encoding="utf-8"), re.MULTILINE
)
SELECTED = re.compile(r"(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+)| -k (?P<word>\w+))?")


def test_bugs_are_numbered_one_after_the_other() -> None:
    numbers: dict[str, list[int]] = {}
    for name, _, _ in SECTIONS:
        numbers.setdefault(name[0], []).append(int(name[1:]))
    assert sorted(numbers) == ["N", "R", "S"]
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


@pytest.mark.parametrize(("title", "text"), [section[1:] for section in SECTIONS], ids=[name for name, _, _ in SECTIONS])
def test_a_bug_is_told_whole_and_its_test_exists(title: str, text: str) -> None:
    assert not title.endswith(".")
    assert re.findall(r"^- (\w+):", text, re.MULTILINE) == ["Cause", "Found", "Fix", "Test"]
    _, _, told = text.partition("- Test: ")
    found = list(SELECTED.finditer(told))
    assert found, "a test is named by its path"
    for match in found:
        tests = re.findall(r"def (test_\w+)", (ROOT / match["path"]).read_text(encoding="utf-8"))
        wanted = match["name"] or match["word"] or "test_"
        assert any(wanted == test or (not match["name"] and wanted in test) for test in tests), match[0]
