"""Phrases that readers stumbled over stay out of what people read: comments, docstrings, log lines, sentences, pages.

Only phrases that are wrong wherever they stand. The contract fixes a few sentences of upstream's; they are let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SUFFIXES = frozenset({".json", ".md", ".py", ".service", ".sh", ".svg", ".toml", ".yaml", ".yml"})
SWEPT = (
    *(
        "metasrv",
        "verification",
        "tests/unit",
        "tests/support",
        "tests/cluster",
        "tests/socket",
        "tests/sim",
        "tests/chaos",
    ),
    *("tests/compose", "tests/BUGS.md", "benchmarks", "conf", "deploy", "docker", "docs", "scripts"),
    *(".ci/run", ".pre-commit-config.yaml", "Dockerfile", "Makefile", "docker-compose.yml"),
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "THREAT_MODEL.md"),
)
"""What is read; a folder with all that is below it."""
NOT_SWEPT = ("docs/contract/", "tests/unit/house/test_plain_english.py")
"""The contract quotes upstream; the test has the phrases themselves."""

FIXED = (
    "This node is not leader, can not transfer leadership",
    "This node is not leader, can not set feature",
    "can not forward any more",
    "fail to leave: can not leave id=",
)
"""Sentences of upstream's that docs/contract fixes."""

JOINT = r"(?:[ \t]|\n[ \t]*(?:#:?|//|\*|>)?[ \t]*)+"
"""Between two words, also over the end of a line."""
STUMBLED_OVER: Mapping[str, str] = {
    r"\b[Cc]an{_}not\b": "write `cannot`",
    r"\bof{_}ours\b": "write `our`, or name the owner",
    r"\b(?:for|within|after|with|by){_}so{_}(?:long|many|much|few)\b(?!{_}(?:as|that)\b)": "say how long or how many",
    r"\bof{_}late\b": "write `recently`",
    r"\bseed{_}era\b|\bthe{_}seed's{_}(?:days|fields|page|sample)\b|\bseed_(?:fields|families)\b": "write `legacy`",
    r"\b[Tt]oday's\b": "write `current`, or name the release",
    r'(?:"""|(?m:^)[ \t]*#[ \t])Of\b': "begin with the verb or the thing, not with `Of`",
    r"\b(?:for|of|to|by){_}(?:one{_}that|what){_}is{_}(?:none|no)\b": "say what it is",
    r"\bnobody{_}foresaw\b": "write `unexpected`",
    r"\b(?:the{_})?one{_}who{_}built{_}it\b": "write `the builder`",
}
PATTERNS = {re.compile(form.replace("{_}", JOINT)): advice for form, advice in STUMBLED_OVER.items()}


def swept_files() -> Iterator[Path]:
    for name in SWEPT:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            readable = file.is_file() and (file.suffix in SUFFIXES or file == path)
            generated = file.name.endswith(("_pb2.py", "_pb2_grpc.py")) or "results" in file.parts
            if readable and not generated and not str(file.relative_to(ROOT)).startswith(NOT_SWEPT):
                yield file


def problems(name: str, text: str) -> list[str]:
    """`file:line: advice` for each phrase in `text`."""
    for sentence in FIXED:
        text = text.replace(sentence, " " * len(sentence))
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}: {advice}"
        for pattern, advice in PATTERNS.items()
        for found in pattern.finditer(text)
    ]


def test_nothing_has_to_be_read_twice() -> None:
    files = list(swept_files())
    assert len(files) > 100
    found = [
        problem for file in files for problem in problems(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "the port can " + "not be bound",
        "# the file can\n    # not be read",
        "a frame of " + "ours",
        "waits for so " + "long",
        "records of " + "late",
        "the seed's " + "sample",
        "today" + "'s names",
        '"""Of ' + 'a header."""',
        "x = 1\n    # Of " + "a header",
        "raises for one that is " + "none",
    ],
)
def test_a_phrase_would_be_noticed(text: str) -> None:
    assert len(problems("x", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "INTERNAL `can " + "not forward any more: …`",
        "it cannot be; can nothing be done; so long as it runs; for so long that nobody waits",
        "one of them; Of three nodes two run; the random seed's value",
    ],
)
def test_other_sentences_are_let_through(text: str) -> None:
    assert problems("x", text) == []


def test_a_problem_names_its_line() -> None:
    (problem,) = problems("x.txt", "a\nb\nit can " + "not be\n")
    assert problem.startswith("x.txt:3: ")
