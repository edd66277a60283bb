"""From a history that cannot be explained to the least of it that cannot be explained either.

Every step keeps what it claims: if the smaller history had an explanation, so would have the larger one.

- A beginning after which nothing is open may be replaced by the values that it can have led to. Operations of unknown
  outcome stay, as if they had not happened: that allows more, never less.
- An operation that leaves the value as it is may be left out (`leaves_state`).
- A register's value that nobody expected may be left out with everything that wrote or read it: what came after it
  follows just as well on what came before it. A failed compare-and-set may have failed because of that value, so none
  may be left.

Pure computing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from metasrv.testing.history import Operation
from metasrv.testing.models import Model, RegisterModel, leaves_state
from metasrv.testing.search import Search, SearchTooLongError

WHOLE_OPERATIONS_MAX = 12
"""A core that is no longer than this is shown from the beginning of the history."""
CONTEXT_OPERATIONS = 4
"""So many operations are shown at least, though fewer would do: they say how the value came about."""


@dataclass(frozen=True, slots=True)
class Core:
    """A history that cannot be explained, from any of the states that it may have begun with."""

    operations: tuple[Operation, ...]
    initial_states: tuple[Hashable, ...]


def shrink(prefix: Sequence[Operation], culprit: Operation, model: Model, steps_max: int) -> Core:
    """The core of a prefix that can be explained up to, but not with, its last answer."""
    return _Shrinker(model, steps_max).run(prefix, culprit)


class _Shrinker:
    def __init__(self, model: Model, steps_max: int) -> None:
        self._model = model
        self._steps_max = steps_max
        self._initial: tuple[Hashable, ...] = (model.initial,)

    def run(self, prefix: Sequence[Operation], culprit: Operation) -> Core:
        """A whole history says more than the end of one, so its beginning is only cut off when it stays long."""
        operations = self._leave_out(sorted(prefix, key=lambda one: one.called_at), culprit)
        if len(operations) > WHOLE_OPERATIONS_MAX:
            operations = self._leave_out(self._cut_beginning(operations), culprit)
        return Core(tuple(operations), self._initial)

    def _leave_out(self, operations: list[Operation], culprit: Operation) -> list[Operation]:
        before = len(operations) + 1
        while len(operations) < before:
            before = len(operations)
            removable = [[one] for one in operations if one is not culprit and leaves_state(self._model, one)]
            operations = self._without(operations, removable)
            if isinstance(self._model, RegisterModel):
                operations = self._without(operations, list(_unexpected_values(operations, culprit, self._initial)))
        return operations

    def _is_wrong(self, operations: Sequence[Operation]) -> bool:
        """Certainly not explicable, whichever state it began with."""
        try:
            return not any(
                Search(operations, self._model, initial=state, steps_max=self._steps_max).run() for state in self._initial
            )
        except SearchTooLongError:
            return False

    def _without(self, operations: list[Operation], groups: list[list[Operation]]) -> list[Operation]:
        """Leave out as many groups as can be: all, halves, quarters, and so on."""
        size = len(groups)
        while size >= 1:
            start = 0
            while start < len(groups):
                chosen = {id(one) for group in groups[start : start + size] for one in group}
                rest = [one for one in operations if id(one) not in chosen]
                if len(rest) < len(operations) and self._is_wrong(rest):
                    operations = rest
                    del groups[start : start + size]
                else:
                    start += size
            size //= 2
        return operations

    def _cut_beginning(self, operations: list[Operation]) -> list[Operation]:
        """Begin at the latest moment of rest from which it still cannot be explained; the later, the less is known."""
        last = operations[-CONTEXT_OPERATIONS:][0].called_at
        moments = [moment for moment in _moments_of_rest(operations) if moment < last]
        good, bad = 0, len(moments)
        best = operations
        while good < bad:
            middle = (good + bad) // 2
            rest = self._from(operations, moments[middle])
            if rest is None:
                bad = middle
            else:
                best, good = rest, middle + 1
        return best

    def _from(self, operations: list[Operation], moment: float) -> list[Operation] | None:
        """What is left from `moment` on, if it is wrong; takes over the states it begins with."""
        beginning = [one for one in operations if one.called_at <= moment]
        rest = [one for one in operations if one.called_at > moment or not one.is_known]
        search = Search(beginning, self._model, steps_max=self._steps_max, every_state=True)
        kept = self._initial
        try:
            search.run()
        except SearchTooLongError:
            return None
        self._initial = tuple(search.final_states)
        if self._initial and self._is_wrong(rest):
            return rest
        self._initial = kept
        return None


def _moments_of_rest(operations: Sequence[Operation]) -> Iterator[float]:
    """Times at which every known operation that was called has returned, and another one follows."""
    known = [one for one in operations if one.returned_at is not None]
    latest = float("-inf")
    for one, following in pairwise(known):
        latest = max(latest, one.returned_at or latest)
        if latest < following.called_at:
            yield latest


def _unexpected_values(
    operations: Sequence[Operation], culprit: Operation, initial: Sequence[Hashable]
) -> Iterator[list[Operation]]:
    """Groups of register operations that stand for a value which nobody expected."""
    setters: dict[Hashable, list[Operation]] = defaultdict(list)
    readers: dict[Hashable, list[Operation]] = defaultdict(list)
    expected: set[Hashable] = set(initial)
    for one in operations:
        if one.name == "compare_and_set":
            old, new = one.argument
            if one.is_known and not one.output:
                return
            expected.add(old)
            setters[new].append(one)
        elif one.name == "read":
            if one.is_known:
                readers[one.output].append(one)
        else:
            setters[one.argument if one.name == "write" else None].append(one)
    for value, writing in setters.items():
        if value in expected:
            continue
        if not readers[value]:
            yield from ([one] for one in writing if one is not culprit)
        elif len(writing) == 1:
            group = [*writing, *readers[value]]
            if not any(one is culprit for one in group):
                yield group
