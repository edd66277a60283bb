"""Claims of pages and docstrings that the source can confirm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from metasrv import __version__
from tests.support.paths import PRODUCT, ROOT

SERVICES = ("node", "raft", "grpc_api", "admin")
LOCK = re.compile(r"\bthreading\.(?:R?Lock|Condition|Semaphore|BoundedSemaphore|Barrier)\(")
TEXT_PARSED = re.compile(
    r"\bin str\((?:error|caught|failure)\)|str\((?:error|caught|failure)\)\.(?:startswith|endswith)\("
)


def places(pattern: re.Pattern[str], *rooms: str) -> Iterator[str]:
    """`path:line` of each match in the modules of `rooms`, or in all of a node's."""
    folders = [PRODUCT / room for room in rooms] or [PRODUCT]
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        if not path.is_relative_to(PRODUCT / "testing"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if pattern.search(line):
                    yield f"{path.relative_to(ROOT)}:{number}"


def lines_of(folder: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))


def test_three_locks_exist() -> None:
    files = [place.partition(":")[0] for place in places(LOCK)]
    assert files == ["metasrv/profiling/sampler.py", "metasrv/state/reader.py", "metasrv/state/store.py"], (
        "ARCHITECTURE.md section 1 names each lock"
    )


def test_services_do_not_parse_the_texts_of_errors() -> None:
    """As `metasrv/model/errors.py` promises."""
    assert list(places(TEXT_PARSED, *SERVICES)) == []


def test_the_changelog_begins_with_this_version() -> None:
    """A release with its date; between releases what is not released yet, on top of an earlier one."""
    headings = re.findall(r"^## (\S+)(?: - \d{4}-\d{2}-\d{2})?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if ".dev" in __version__:
        assert headings[0] == "Unreleased"
        assert __version__.partition(".dev")[0] not in headings
    else:
        assert headings[0] == __version__


def test_the_readme_names_the_runbooks_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"docs/runbooks/([\w-]+\.md)", readme))
    assert named == {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_broken_claims_would_be_noticed() -> None:
    assert LOCK.search("lock = threading.Lock()")
    assert TEXT_PARSED.search('if "leave-via-self" in str(error):')
