"""Cuts a history that cannot be explained down to a small part that cannot be explained either.

Every step is sound: if the smaller history had an explanation, the larger one would have one too.

- A beginning after which no call is open may be replaced by the values that it can have led to. Its operations of
  unknown outcome stay, as if they had not happened yet, which only allows more orders.
- An operation that does not change the value may be left out (`leaves_state`).
- A value of a register that no compare-and-set expected may be left out with all its writes and reads: what came after
  it can follow what came before it. A failed compare-and-set may have failed because of the value, so there must be none.

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
"""A part that is no longer than this is shown from the beginning of the history."""
CONTEXT_OPERATIONS = 4
"""Operations that are shown at least, even if fewer suffice: they show how the value came about."""


@dataclass(frozen=True, slots=True)
class Core:
    """A history that cannot be explained from any state in which it may have begun."""

    operations: tuple[Operation, ...]
    initial_states: tuple[Hashable, ...]


def shrink(prefix: Sequence[Operation], culprit: Operation, model: Model, steps_max: int) -> Core:
    """The small part of a prefix that can be explained without its last answer, but not with it."""
    return _Shrinker(model, steps_max).run(prefix, culprit)


class _Shrinker:
    def __init__(self, model: Model, steps_max: int) -> None:
        self._model = model
        self._steps_max = steps_max
        self._initial: tuple[Hashable, ...] = (model.initial,)

    def run(self, prefix: Sequence[Operation], culprit: Operation) -> Core:
        """The part from the beginning, or from a later moment if that would be long: a whole history says more."""
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
        """Whether it certainly cannot be explained, whichever state it began in."""
        try:
            return not any(
                Search(operations, self._model, initial=state, steps_max=self._steps_max).run() for state in self._initial
            )
        except SearchTooLongError:
            return False

    def _without(self, operations: list[Operation], groups: list[list[Operation]]) -> list[Operation]:
        """Leave out as many groups as possible: all, halves, quarters, and so on."""
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
        """Begin at the latest moment of rest from which it still cannot be explained."""
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
        """What is left from `moment` on, if that is wrong, with the states in which it can begin."""
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
    """Groups of register operations, each for a value that no compare-and-set expected."""
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
