"""Finds citations that lead nowhere: pages, sections, numbers, links, files. docs/glossary.md has the form of a citation.

Works on texts by path, so that a test can give it a small repository of its own. Pure but for `tracked_files`.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

CHECKED_SUFFIXES = (".md", ".proto", ".py", ".pyi", ".service", ".sh", ".toml", ".yaml", ".yml")
CHECKED_NAMES = frozenset({"Dockerfile", "Makefile", ".ci/run"})
ARCHITECTURE = "ARCHITECTURE.md"
INVARIANTS_HEADING = "3. Invariants"
FAMILY_PAGES = {"D": "docs/defects.md", "S": "tests/BUGS.md", "N": "tests/BUGS.md", "R": "tests/BUGS.md"}
WRITTEN_PAGES = frozenset({"summary.md"})
"""Pages that the product writes for people; they are not in the repository."""
FORM = "a section is cited as in docs/glossary.md, behind the path of its page"
FOREIGN_MODULES = frozenset({"syncobj.py", "journal.py", "serializer.py", "tcp_connection.py"})
"""pysyncobj's own."""

_NUMBER = r"(?:[a-i]\.\d+|\d+(?:\.\d+)*|[a-i])(?![\w])"
_FURTHER = r"(?:[a-i]\.\d+|\d+(?:\.\d+)*|[b-h])(?![\w])"
_NUMBERS = rf"{_NUMBER}(?:(?:,\s+and|,|\s+and|\s+to)\s+{_FURTHER})*"
_PAGE = re.compile(r"(?<![\w/.:-])(?P<page>(?:\.{1,2}/)*\w[\w./-]*\.md)\b(?:#(?P<anchor>[\w-]+))?")
_SECTION = re.compile(rf"[`)\]]*\s+sections?\s+(?P<numbers>{_NUMBERS})")
_WITHOUT_WORD = re.compile(r"[`)\]]*,?\s+(?:[a-i]\.\d+|\d+\.\d+)(?!\w)")
_BARE_SECTION = re.compile(rf"\b[Ss]ections?\s+(?P<numbers>(?!a\s){_NUMBERS})")
_FOREIGN_SECTION = re.compile(r"(?:RFC\s+\d+|\.html,?)\s+$")
_BARE_NUMBER = re.compile(r"(?<![\w./-])(?!(?<=\")[a-i]\.\d+\")[a-i]\.\d+(?![\w.])")
"""A value of a program, in quotes on both sides, cites nothing."""
_OLD_WORDS = re.compile(
    r"\bspec\s+\d|\b[Tt]he\s+specification\b|\brows?\s+\d[\d, andto]*of\s+the\s+(?:nemesis\s+)?matrix"
)
_FAMILY = re.compile(r"(?<![\w-])(?P<family>[DSNR])(?P<number>\d{1,2})(?![\w.]*\w)")
_INVARIANT = re.compile(r"\binvariants?\s+(?P<numbers>\d+(?:(?:,|\s+and|\s+to)\s+\d+)*)")
_FILE = re.compile(r"(?<![\w/.*-])(?P<file>(?:\w[\w.-]*/)*\w+\.py)\b")
_FILE_IN_CODE = re.compile(r"`(?P<file>(?:\w[\w.-]*/)*\w+\.py)\b[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_LABEL = re.compile(r"\[[^\]\n]*\](?=\()")
_QUOTED_PAGE = re.compile(r"^````markdown\n.*?^````$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
_FENCED = re.compile(r"^(?P<fence>```+)[^\n]*\n.*?^(?P=fence)$", re.MULTILINE | re.DOTALL)
_LINE_JOINT = re.compile(r"\n[ \t]*(?:#+|//|\*|>)?[ \t]*")


class Problem(NamedTuple):
    """One citation that leads nowhere."""

    path: str
    line: int
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.sentence}"


@dataclass(frozen=True)
class Repository:
    """Paths of all files, and the texts of those that are checked."""

    texts: Mapping[str, str]
    files: frozenset[str] = field(default=frozenset())

    @cached_property
    def paths(self) -> frozenset[str]:
        return self.files | frozenset(self.texts)

    @cached_property
    def directories(self) -> frozenset[str]:
        return frozenset(str(parent) for path in self.paths for parent in Path(path).parents)

    @cached_property
    def module_tails(self) -> frozenset[str]:
        """Every Python file by each end of its path: `raft/core/driver.py`, `core/driver.py`, `driver.py`."""
        parts = [path.split("/") for path in self.paths if path.endswith(".py")]
        return frozenset("/".join(part[start:]) for part in parts for start in range(len(part)))

    def page(self, name: str, cited_in: str) -> str | None:
        """The path of a page named in `cited_in`: from the root, or in a page beside that page."""
        if name in self.paths:
            return name
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(cited_in), name))
        return beside if cited_in.endswith(".md") and beside in self.paths else None

    def sections(self, page: str) -> frozenset[str]:
        """Numbers and letters that the page's headings begin with."""
        found = (re.match(rf"({_NUMBER})\.?\s", title) for title in headings(self.texts[page]))
        return frozenset(match[1] for match in found if match)

    def anchors(self, page: str) -> frozenset[str]:
        """What a link into the page may name, as GitHub makes it of the headings."""
        found: list[str] = []
        for title in headings(self.texts[page]):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            again = sum(other == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", other) is not None for other in found)
            found.append(f"{slug}-{again}" if again else slug)
        return frozenset(found)

    def invariants(self) -> frozenset[str]:
        text = self.texts.get(ARCHITECTURE, "")
        _, _, rest = text.partition(f"## {INVARIANTS_HEADING}\n")
        return frozenset(re.findall(r"^(\d+)\. \*\*", rest.partition("\n## ")[0], re.MULTILINE))

    def numbered(self, family: str) -> frozenset[str]:
        """Numbers of the table rows or headings of one family."""
        text = self.texts.get(FAMILY_PAGES[family], "")
        return frozenset(re.findall(rf"^(?:\|\s*|#+ ){family}(\d+)\b", text, re.MULTILINE))


def tracked_files(root: Path) -> Repository:
    """The repository at `root` as git knows it, files included that are new."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split("\0")
    paths = [path for path in listed if path and (root / path).is_file()]
    checked = [path for path in paths if path.endswith(CHECKED_SUFFIXES) or path in CHECKED_NAMES]
    texts = {path: (root / path).read_text(encoding="utf-8") for path in checked if "_pb2" not in path}
    return Repository(texts, frozenset(paths))


def headings(text: str) -> list[str]:
    return _HEADING.findall(_FENCED.sub("", text))


def problems(repository: Repository) -> list[Problem]:
    """Everything that leads nowhere, by path and line."""
    found = [
        Problem(path, text.count("\n", 0, position) + 1, sentence)
        for path, text in repository.texts.items()
        for position, sentence in _problems_of(repository, path, text)
    ]
    return sorted(set(found))


def citations(repository: Repository) -> int:
    """How many pages and sections are cited outside of pages."""
    return sum(len(_PAGE.findall(text)) for path, text in repository.texts.items() if not path.endswith(".md"))


def _problems_of(repository: Repository, path: str, text: str) -> Iterator[tuple[int, str]]:
    """Problems of one file with their positions."""
    text = _QUOTED_PAGE.sub(lambda quoted: re.sub(r"[^\n]", " ", quoted[0]), text)
    # As one line of the same length: a citation may stand in two lines of a comment. The text of a link cites nothing.
    flat = _LINE_JOINT.sub(lambda joint: " " * len(joint[0]), text)
    flat = _LABEL.sub(lambda label: " " * len(label[0]), flat) if path.endswith(".md") else flat
    cited: list[tuple[int, int]] = []
    yield from _pages(repository, path, flat, cited)
    yield from _bare_sections(repository, path, text, flat, cited)
    yield from _numbers(repository, path, flat)
    yield from _files(repository, path, flat)
    if path.endswith(".md"):
        yield from _links(repository, path, text)


def _pages(repository: Repository, path: str, flat: str, cited: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """Pages with their sections and anchors; their places are added to `cited`."""
    for match in _PAGE.finditer(flat):
        page = repository.page(match["page"], path)
        section = _SECTION.match(flat, match.end())
        if section:
            cited.append((match.start(), section.end()))
        if page is None:
            if match["page"] not in WRITTEN_PAGES:
                yield match.start(), f"there is no page {match['page']}"
            continue
        if match["anchor"] and match["anchor"] not in repository.anchors(page):
            yield match.start(), f"{page} has no heading #{match['anchor']}"
        if section is None and _WITHOUT_WORD.match(flat, match.end()):
            yield match.start(), FORM
        for number in _each(section["numbers"]) if section else ():
            if number not in repository.sections(page):
                yield match.start(), f"{page} has no section {number}"


def _bare_sections(
    repository: Repository, path: str, text: str, flat: str, cited: list[tuple[int, int]]
) -> Iterator[tuple[int, str]]:
    """Sections without a page: in a page they are its own; elsewhere nobody knows whose they are."""
    for match in _BARE_SECTION.finditer(flat):
        if _within(match.start(), cited) or _FOREIGN_SECTION.search(flat, max(0, match.start() - 20), match.start()):
            continue
        cited.append(match.span())
        if not path.endswith(".md"):
            yield match.start(), f"{match[0]} of which page? {FORM}"
            continue
        for number in _each(match["numbers"]):
            if number not in repository.sections(path):
                yield match.start(), f"this page has no section {number}"
    for match in _BARE_NUMBER.finditer(flat):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.end()]
        if not _within(match.start(), cited) and not (path.endswith(".md") and line.startswith("#")):
            yield match.start(), f"{match[0]} of which page? {FORM}"
    for match in _OLD_WORDS.finditer(flat):
        yield match.start(), f"'{match[0]}' names no page; {FORM}"


def _numbers(repository: Repository, path: str, flat: str) -> Iterator[tuple[int, str]]:
    for match in _INVARIANT.finditer(flat):
        for number in _each(match["numbers"]):
            if number not in repository.invariants():
                yield match.start(), f"{ARCHITECTURE} has no invariant {number}"
    if path.endswith((".toml", ".yml", ".yaml")):
        return  # lint codes and the like
    for match in _FAMILY.finditer(flat):
        if match["number"] not in repository.numbered(match["family"]):
            yield match.start(), f"{FAMILY_PAGES[match['family']]} has no {match[0]}"


def _files(repository: Repository, path: str, flat: str) -> Iterator[tuple[int, str]]:
    # Texts of programs hold made-up names; there a file is cited in backticks.
    for match in (_FILE_IN_CODE if path.endswith(".py") else _FILE).finditer(flat):
        if match["file"] not in repository.module_tails and match["file"] not in FOREIGN_MODULES:
            yield match.start(), f"there is no file {match['file']}"


def _links(repository: Repository, path: str, text: str) -> Iterator[tuple[int, str]]:
    for match in _LINK.finditer(text):
        name, _, anchor = match["target"].partition("#")
        if ":" in name:
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) if name else path
        if target not in repository.paths and target not in repository.directories:
            yield match.start(), f"the link to {match['target']} leads nowhere"
        elif anchor and (target not in repository.texts or anchor not in repository.anchors(target)):
            yield match.start(), f"{target} has no heading #{anchor}"


def _each(numbers: str) -> list[str]:
    """`1, 2 and 5` one by one; of `1 to 4` the two ends."""
    return re.findall(rf"(?<![\w.]){_NUMBER}", numbers)


def _within(position: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= position < end for start, end in spans)
