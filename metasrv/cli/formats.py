"""The forms in which metactl answers: a table for people; JSON, YAML and lines of JSON for programs.

Pure but for `show_answer`, which prints. Knows no command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from metasrv.cli.terminal import show

FORMATS = ("table", "json", "yaml", "jsonl")
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Texts that YAML takes for something else."""


class Column(NamedTuple):
    """One column of a table."""

    title: str
    cell: Callable[[Mapping[str, Any]], object]


def show_answer(
    form: str, whole: object, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], after: Sequence[str] = ()
) -> None:
    """Print an answer: `whole` as JSON or YAML, `rows` as a table with lines behind it, or as lines of JSON."""
    if form == "json":
        lines: Sequence[str] = json.dumps(whole, indent=2, ensure_ascii=False).split("\n")
    elif form == "yaml":
        lines = list(yaml_lines(whole))
    elif form == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    else:
        lines = [*table_lines(rows, columns), *after]
    for line in lines:
        show(line)


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[str]:
    """A line of titles and one for each row; what is unknown is `-`."""
    table = [[column.title for column in columns]]
    table += [[_cell(column.cell(row)) for column in columns] for row in rows]
    widths = [max(len(line[at]) for line in table) for at in range(len(columns))]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def yaml_lines(value: object, indent: str = "") -> Iterator[str]:
    """A tree of JSON as YAML in blocks."""
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _yaml_member(f"{indent}{_yaml_text(str(name))}:", member, f"{indent}  ")
    elif isinstance(value, list | tuple) and value:
        for member in value:
            first, *others = yaml_lines(member, f"{indent}  ")
            yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
            yield from others
    else:
        yield f"{indent}{_yaml_leaf(value)}"


def _yaml_member(head: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield head
        yield from yaml_lines(value, indent)
    else:
        yield f"{head} {_yaml_leaf(value)}"


def _yaml_leaf(value: object) -> str:
    return _yaml_text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _yaml_text(text: str) -> str:
    # A text in double quotes of JSON is one of YAML.
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
