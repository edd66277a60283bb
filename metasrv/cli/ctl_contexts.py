"""metactl's commands about its own file: `context list`, `context use`, `context show`, `config view`."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from metasrv.cli import contexts
from metasrv.cli.formats import Column, show_answer
from metasrv.cli.terminal import opened_for_writing, show
from metasrv.model.errors import InvalidRequestError

_CURRENT = re.compile(r"^current[ \t]*=.*$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
COLUMNS = (
    Column("CURRENT", lambda row: "*" if row["current"] else ""),
    Column("NAME", lambda row: row["name"]),
    Column("ENDPOINTS", lambda row: ",".join(row.get("endpoints", []))),
    Column("GRPC ENDPOINTS", lambda row: ",".join(row.get("grpc_endpoints", []))),
)


def list_contexts(arguments: argparse.Namespace) -> None:
    """Each context, and which one is in use."""
    found = contexts.read()
    name = contexts.chosen(found, arguments.context)
    rows = [_row(found, key, current=key == name) for key in sorted(found.contexts)]
    show_answer(arguments.output, rows, rows, COLUMNS)


def use(arguments: argparse.Namespace) -> None:
    """Make a context the current one; everything else in the file stays as it is."""
    found = contexts.read()
    found.named(arguments.name)
    try:
        with open(found.path, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as error:
        raise InvalidRequestError(f"{found.path} cannot be read: {error.strerror}") from error
    table = _TABLE.search(text)
    head, rest = (text[: table.start()], text[table.start() :]) if table else (text, "")
    line = f"current = {json.dumps(arguments.name)}"
    head = _CURRENT.sub(lambda _match: line, head, count=1) if _CURRENT.search(head) else f"{line}\n{head}"
    with opened_for_writing(found.path) as file:
        file.write(head + rest)
    show(f"context {arguments.name} is used from now on")


def show_context(arguments: argparse.Namespace) -> None:
    """One context, by default the one in use; secrets are masked."""
    found = contexts.read()
    name = arguments.name or contexts.chosen(found, arguments.context)
    if name is None:
        raise InvalidRequestError(f"no context is in use; `metactl context use NAME` chooses one of {found.path}")
    row = _row(found, name, current=name == contexts.chosen(found, arguments.context), context=found.named(name))
    show_answer("yaml" if arguments.output == "table" else arguments.output, row, [row], COLUMNS)


def view(arguments: argparse.Namespace) -> None:
    """The whole file, secrets masked, and what is in use."""
    found = contexts.read()
    whole = {
        "path": found.path,
        "context": contexts.chosen(found, arguments.context),
        "contexts": {name: contexts.masked(found.contexts[name]) for name in sorted(found.contexts)},
    }
    show_answer("yaml" if arguments.output == "table" else arguments.output, whole, [whole], COLUMNS)


def _row(found: contexts.Contexts, name: str, *, current: bool, context: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "current": current, **contexts.masked(context or found.contexts[name])}
