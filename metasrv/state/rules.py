"""Rules: how a command, or an operation of a transaction, is validated and applied; and the check that each has a rule.

`command_rules.py` and `operations.py` are tables of rules. A rule names its row in `model/command_table.py`, so the type
checker compares what the rule takes and answers with what is declared there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

from metasrv.model.command_table import Answer, Asked, Request
from metasrv.model.errors import InvariantError
from metasrv.state.effects import EntryEffects


class Rule(NamedTuple, Generic[Asked, Answer]):
    """What the state machine does with one type of request."""

    request: Request[Asked, Answer]
    validate: Callable[[Asked], None] = None  # type: ignore[assignment]  # `check_rules` names who has none
    """Raises TooLargeError or InvalidRequestError for what must not be proposed."""
    apply: Callable[[EntryEffects, Asked], Answer] = None  # type: ignore[assignment]
    """Total for everything that can be decoded, and the same on every node: no clock, no randomness (invariant 2)."""


def check_rules(what: str, requests: Sequence[Request[Any, Any]], rules: Sequence[Rule[Any, Any]], module: str) -> None:
    """Raise InvariantError unless `rules` has one rule for each of `requests`, with every part."""
    ruled = [rule.request.kind for rule in rules]
    for kind in (request.kind for request in requests):
        if ruled.count(kind) != 1:
            found = "no rule" if kind not in ruled else "more than one rule"
            raise InvariantError(f"{what} {kind.__name__} has {found} in {module}")
    for rule in rules:
        for part in ("validate", "apply"):
            if not callable(getattr(rule, part)):
                raise InvariantError(f"{what} {rule.request.kind.__name__} has no {part} in {module}")
