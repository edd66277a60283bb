"""The page of docs/reference/ about the client library: every public name with its signature and docstring."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

GUIDE = "docs/clients.md"
INHERITED = frozenset({"count", "index", "from_bytes", "conjugate"})
"""Methods of tuples and numbers that say nothing about a class."""


def client_page(library: ModuleType, header: str) -> Iterator[str]:
    """The lines of the page: clients first, then sessions and recipes, values, errors."""
    yield header
    yield "# Client library: every name"
    yield ""
    yield f"`from metasrv.client import …`. [{GUIDE}](../{GUIDE.removeprefix('docs/')}#from-python) is the guide."
    yield "A class without `Async` is the blocking form of the one with it. It has the same methods and parameters,"
    yield "which are described once."
    names = list(library.__all__)
    classes = {name: getattr(library, name) for name in names}
    errors = [name for name in names if issubclass(classes[name], Exception)]
    twins = [name for name in names if f"Async{name}" in classes]
    values = [name for name in names if name not in errors and name not in twins and not name.startswith("Async")]
    asynchronous = [name for name in names if name.startswith("Async")]
    yield from _section("Async classes", asynchronous, classes)
    yield from _section("Builders and values", values, classes)
    yield ""
    yield "## Blocking classes"
    yield ""
    for name in twins:
        yield f"- `{name}{_signature(classes[name].__init__)}`: {_first_sentence(classes[name])}"
    yield ""
    yield "## Errors"
    yield ""
    for name in errors:
        base = classes[name].__mro__[1].__name__
        yield f"- `{name}` ({base}): {' '.join((inspect.getdoc(classes[name]) or '').split())}"


def _section(title: str, names: list[str], classes: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    for name in names:
        kind = classes[name]
        yield ""
        if issubclass(kind, enum.Enum):
            yield f"### {name}: {', '.join(f'`{member.name}`' for member in kind)}"
        elif issubclass(kind, tuple):
            yield f"### {name}({', '.join(kind._fields)})"
        else:
            yield f"### {name}{_signature(kind.__init__)}"
        yield ""
        yield _text(kind)
        if kind.__init__.__doc__ and inspect.isfunction(kind.__init__):
            yield ""
            yield _text(kind.__init__)
        methods = list(_methods(kind))
        if methods:
            yield ""
            yield from methods


def _methods(kind: type) -> Iterator[str]:
    for name, value in vars(kind).items():
        if name.startswith("_") or name in INHERITED:
            continue
        if isinstance(value, property):
            yield f"- `{name}`: {_text(value)}".rstrip(": ")
        elif inspect.isfunction(value):
            prefix = "await " if inspect.iscoroutinefunction(value) else ""
            prefix = "async for … in " if inspect.isasyncgenfunction(value) else prefix
            yield f"- `{prefix}{name}{_signature(value)}`: {_text(value)}".rstrip(": ")


def _signature(function: Any) -> str:
    """Names and defaults; types are in the source, and in what an editor shows."""
    shown = []
    for each in list(inspect.signature(function).parameters.values())[1:]:
        if each.kind is each.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if each.default is each.empty else f"={_default(each.default)}"
        shown.append(each.name + default)
    return f"({', '.join(shown)})"


def _default(value: object) -> str:
    if callable(value):
        return getattr(value, "__name__", "…")
    text = repr(value)
    return "…" if len(text) > 20 else text


def _text(thing: object) -> str:
    """A docstring as one paragraph."""
    return re.sub(r"\s+", " ", inspect.getdoc(thing) or "").strip()


def _first_sentence(thing: object) -> str:
    return _text(thing).partition(". ")[0].rstrip(".") + "."
