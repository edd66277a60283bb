"""Linearizability checker: is there one order of the operations that explains every answer?

A history is split by key and each key searched on its own (`search.py`), since a history is linearizable exactly when
each key's is. Operations of unknown outcome may take effect at any time after their call, or never. A history without
an explanation is cut down to the shortest part that has none (`shrink.py`).

Pure computing. The time can grow exponentially with the operations that overlap, so load generators use few clients for
one key, and leave a key after few unknown outcomes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from metasrv.testing.history import Operation, by_key
from metasrv.testing.models import Model
from metasrv.testing.search import STEPS_MAX_DEFAULT, Search, SearchTooLongError
from metasrv.testing.shrink import Core, shrink

__all__ = ["SearchTooLongError", "Violation", "check", "explain", "is_linearizable"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A key whose history is not linearizable."""

    key: str
    prefix: tuple[Operation, ...]
    """The shortest beginning, in order of returns, that is wrong; operations then open count as unknown."""
    culprit: Operation
    """Its last answer; everything before it can be explained."""
    states: tuple[Hashable, ...]
    """Values the object may have had just before the culprit returned, by the other answers."""
    core: Core
    """The smallest part of the prefix that cannot be explained either."""

    def __str__(self) -> str:
        core = self.core
        start = min(operation.called_at for operation in core.operations)
        lines = [
            f"key {self.key!r} is not linearizable: {self.culprit} by client {self.culprit.process} cannot be explained.",
            f"The other answers leave only these values possible: {_values(self.states)}.",
            f"The shortest history that shows it, {len(core.operations)} of {len(self.prefix)} operations; seconds since "
            f"its first call; at that time the value was {_values(core.initial_states)}:",
        ]
        for operation in sorted(core.operations, key=lambda one: (one is self.culprit, one.called_at)):
            end = "   open " if operation.returned_at is None else f"{operation.returned_at - start:8.4f}"
            mark = "  <-- impossible" if operation is self.culprit else ""
            lines.append(
                f"  {operation.called_at - start:8.4f} .. {end}  client {operation.process:<3} {operation}{mark}"
            )
        return "\n".join(lines)


def check(operations: Iterable[Operation], model: Model, *, steps_max: int = STEPS_MAX_DEFAULT) -> list[Violation]:
    """Check a history key by key; empty when it is linearizable.

    Raises SearchTooLongError after `steps_max` steps on one key.
    """
    violations = []
    for key, history in sorted(by_key(operations).items()):
        if not is_linearizable(history, model, steps_max=steps_max):
            violations.append(explain(key, history, model, steps_max=steps_max))
    return violations


def is_linearizable(history: Sequence[Operation], model: Model, *, steps_max: int = STEPS_MAX_DEFAULT) -> bool:
    """Whether the history of one key is linearizable."""
    return Search(history, model, steps_max=steps_max).run()


def explain(key: str, history: Sequence[Operation], model: Model, *, steps_max: int = STEPS_MAX_DEFAULT) -> Violation:
    """The shortest wrong prefix of a history that is not linearizable, and the smallest wrong part of it.

    A prefix of a linearizable history is linearizable, so the length is found by halving.
    """
    returned = sorted((one for one in history if one.is_known), key=lambda one: one.returned_at or 0.0)
    good, bad = 0, len(returned)
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_linearizable(_prefix(history, returned, middle), model, steps_max=steps_max):
            good = middle
        else:
            bad = middle
    culprit = returned[bad - 1]
    prefix = _prefix(history, returned, bad)
    without = [culprit.as_unknown() if one is culprit else one for one in prefix]
    search = Search(without, model, steps_max=steps_max, every_state=True)
    search.run()
    core = shrink(prefix, culprit, model, steps_max)
    return Violation(key, tuple(prefix), culprit, tuple(search.final_states), core)


def _prefix(history: Sequence[Operation], returned: Sequence[Operation], length: int) -> list[Operation]:
    """The history as known at the `length`-th return."""
    end = returned[length - 1].returned_at if length else None
    if end is None:
        return []
    known = {id(operation) for operation in returned[:length]}
    return [
        operation if id(operation) in known else operation.as_unknown()
        for operation in history
        if operation.called_at <= end
    ]


def _values(states: Iterable[Hashable]) -> str:
    return ", ".join(sorted(repr(state) for state in states))
