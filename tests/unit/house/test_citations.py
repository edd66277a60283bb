"""Every page, section, number, link and file that code or pages cite exists; docs/glossary.md says how to cite."""

from __future__ import annotations

import shutil

import pytest

from tests.support.citations import FAMILY_PAGES, Problem, Repository, citations, problems, tracked_files
from tests.support.paths import ROOT

MD = ".md"
"""Apart, so that what is planted here is not taken for a citation of this file."""
PY = ".py"
SECTION = "sec" + "tion"
D4, D5 = "d" + ".4", "d" + ".5"
SMALL = {
    f"ARCHITECTURE{MD}": "# A\n\n## 3. Invariants\n\n1. **One.** x\n2. **Two.** x\n\n## 5. Costs\n\n3. **No.** x\n",
    f"docs/contract/grpc{MD}": f"# C\n\n## d. Rules\n\n### {D4} Expiry, and what it means\n\n```\n# x. no heading\n```\n",
    f"docs/defects{MD}": "| D1 | x |\n",
    f"tests/BUGS{MD}": "## S12 late\n\n| N1 | x |\n| R7 | x |\n",
    f"metasrv/raft/core/driver{PY}": "",
}


def tracked() -> Repository:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git, which knows what belongs to the repository")
    return tracked_files(ROOT)


def planted(path: str, text: str) -> list[Problem]:
    return [problem for problem in problems(Repository({**SMALL, path: text})) if problem.path == path]


@pytest.mark.program
def test_every_citation_leads_somewhere() -> None:
    found = problems(tracked())
    assert not found, "\n" + "\n".join(map(str, found))


@pytest.mark.program
def test_what_is_cited_is_found() -> None:
    """Otherwise the test above would pass whatever is written."""
    repository = tracked()
    assert {"0", "a", D4, D5, "f", "i"} <= repository.sections(f"docs/contract/grpc{MD}")
    assert {"1.0", "2.5", "3.4", "4", "5", "i"} <= repository.sections(f"docs/contract/admin-api{MD}")
    assert repository.invariants() == {str(number) for number in range(1, 11)}
    assert repository.numbered("D") == {str(number) for number in range(1, 20)}
    assert all(len(repository.numbered(family)) >= 4 for family in FAMILY_PAGES)
    assert citations(repository) > 60


@pytest.mark.parametrize(
    "text",
    [
        f'"""Rules (docs/contract/grpc{MD} {SECTION} {D4})."""',
        f"# See docs/contract/grpc{MD}\n    # {SECTION}s d and {D4}; invariants 1 and 2; D1, S12, N1 and R7.",
        f"ARCHITECTURE{MD} {SECTION} 5 has the costs of `raft/core/driver{PY}` and of driver{PY}.",
        f"RFC 9113 {SECTION} 8.1, sqlite.org/fileformat2.html, {SECTION}s 1.3 and 4, file:/usr/share/doc/x{MD}, T1-N2.33",
        f"see docs/contract/grpc{MD}#d4-expiry-and-what-it-means",
        f"a {SECTION} a reader finds, [one {SECTION}] or two",
    ],
)
def test_what_leads_somewhere_is_let_through(text: str) -> None:
    assert planted(f"metasrv/x{PY}", text) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"see docs/nowhere{MD}", "there is no page"),
        (f"see grpc{MD} {SECTION} {D4}", "there is no page"),
        (f"see architecture{MD} {SECTION} 5", "there is no page"),
        (f"see docs/contract/grpc{MD} {SECTION} {D5}", f"has no {SECTION} {D5}"),
        (f"see docs/contract/grpc{MD}\n# {SECTION}s {D4} and e", f"has no {SECTION} e"),
        (f"see docs/contract/grpc{MD}, {SECTION} {D4}", "of which page"),
        (f"see docs/contract/grpc{MD} {D4}", "is cited as in"),
        (f"see docs/contract/grpc{MD}#nothing", "has no heading #nothing"),
        (f"see {SECTION} 5", "of which page"),
        ("what expired goes (d" + ".4)", "of which page"),
        ("does not count (spe" + "c 2.2)", "names no page"),
        ("with the sentence of the speci" + "fication", "names no page"),
        ("rows 7 and 8 of the nemesis mat" + "rix", "names no page"),
        ("never twice (invari" + "ants 2 and 3)", "has no invariant 3"),
        ("answers D" + "2", "has no D"),
        ("found as S" + "3", "has no S"),
        (f"the step of `raft/driver{PY}`", f"there is no file raft/driver{PY}"),
    ],
)
def test_a_dead_citation_would_be_noticed(text: str, sentence: str) -> None:
    found = planted(f"metasrv/x{PY}", text)
    assert any(sentence in problem.sentence for problem in found), found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"[x](../nowhere{MD})", "leads nowhere"),
        (f"[x](grpc{MD}#nothing)", "has no heading #nothing"),
        ("[x](#nothing)", "has no heading #nothing"),
        (f"## 1. A\n\nas {SECTION} 2 says", f"this page has no {SECTION} 2"),
    ],
)
def test_a_dead_link_of_a_page_would_be_noticed(text: str, sentence: str) -> None:
    found = planted(f"docs/contract/other{MD}", text)
    assert any(sentence in problem.sentence for problem in found), found


def test_links_and_own_sections_of_a_page_are_let_through() -> None:
    text = f"## 1. A\n\nas {SECTION} 1 says: [x](grpc{MD}#d4-expiry-and-what-it-means), [y](../defects{MD}), [z](#1-a)\n"
    assert planted(f"docs/contract/other{MD}", text) == []


def test_a_page_that_is_quoted_is_not_checked() -> None:
    assert planted(f"docs/quoted{MD}", f"# Q\n\n````markdown\n[x](nowhere{MD})\n````\n") == []


def test_a_problem_names_its_line() -> None:
    (problem,) = planted(f"metasrv/x{PY}", f"\n\n# see\n# docs/nowhere{MD}\n")
    assert str(problem) == f"metasrv/x{PY}:4: there is no page docs/nowhere{MD}"
