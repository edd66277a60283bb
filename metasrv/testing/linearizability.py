"""Linearizability checker: is there one order of the operations that explains every answer?

The search of Wing and Gong with Lowe's memory of (done set, state) pairs, over a linked list of calls and returns,
as Porcupine does it; keys are checked on their own, since a history is linearizable exactly when each key's is.
Operations of unknown outcome may take effect at any time after their call, or never.

Pure computing; the time can grow exponentially with the operations that overlap, so load generators keep few clients
on one key, and few unknown outcomes on it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from metasrv.testing.history import Operation, by_key
from metasrv.testing.models import IMPOSSIBLE, Model

STEPS_MAX_DEFAULT = 20_000_000
CONTEXT_OPERATIONS = 12
"""Operations shown before the one that can not be explained."""


class SearchTooLongError(Exception):
    """The search was given up; nothing is known about the history."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A key whose history no sequential order explains."""

    key: str
    prefix: tuple[Operation, ...]
    """The shortest part, ordered by return, that is already wrong; operations then still open are unknown in it."""
    culprit: Operation
    """Its last answer: everything before can be explained."""
    states: tuple[Hashable, ...]
    """Values the object may have had just before the culprit returned, as far as the others tell."""

    def __str__(self) -> str:
        start = min(operation.called_at for operation in self.prefix)
        possible = ", ".join(sorted(repr(state) for state in self.states))
        earlier = [operation for operation in self.prefix if operation is not self.culprit][-CONTEXT_OPERATIONS:]
        lines = [
            f"key {self.key!r} is not linearizable: "
            f"{self.culprit} by client {self.culprit.process} can not be explained.",
            f"The other answers leave only these values possible: {possible}.",
            f"The last {len(earlier)} operations before it, seconds since the first call, in order of call:",
        ]
        for operation in [*sorted(earlier, key=lambda one: one.called_at), self.culprit]:
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
    return _Search(history, model, steps_max).run()


def explain(key: str, history: Sequence[Operation], model: Model, *, steps_max: int = STEPS_MAX_DEFAULT) -> Violation:
    """The shortest wrong prefix of a history that is not linearizable.

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
    search = _Search(without, model, steps_max, every_state=True)
    search.run()
    return Violation(key, tuple(prefix), culprit, tuple(search.final_states))


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


# ----------------------------------------------------------------------------- the search


class _Event:
    """A call or a return in the linked list of what is not yet placed."""

    __slots__ = ("index", "is_call", "next", "previous", "return_event")

    def __init__(self, index: int, *, is_call: bool, return_event: _Event | None = None) -> None:
        self.index = index
        self.is_call = is_call
        self.return_event = return_event
        """The matching return of a call; None in a return, and in the call of an unknown outcome."""
        self.previous: _Event = self
        self.next: _Event | None = None


class _Search:
    """One search over one key's history."""

    def __init__(self, history: Sequence[Operation], model: Model, steps_max: int, *, every_state: bool = False) -> None:
        self._history = history
        self._model = model
        self._steps_left = steps_max
        self._every_state = every_state
        self.final_states: set[Hashable] = set()
        """States after orders that place every known operation."""
        self._known_mask = sum(1 << index for index, one in enumerate(history) if one.is_known)
        self._head = _Event(-1, is_call=False)
        self._link(history)

    def _link(self, history: Sequence[Operation]) -> None:
        """Build the list by time; at equal times calls come first, which only makes the check more lenient."""
        ordered: list[tuple[float, int, int, _Event]] = []
        for index, operation in enumerate(history):
            return_event = None
            if operation.returned_at is not None:
                return_event = _Event(index, is_call=False)
                ordered.append((operation.returned_at, 1, index, return_event))
            call = _Event(index, is_call=True, return_event=return_event)
            ordered.append((operation.called_at, 0, index, call))
        last = self._head
        for _, _, _, event in sorted(ordered, key=lambda entry: entry[:3]):
            last.next, event.previous = event, last
            last = event

    def run(self) -> bool:
        """Whether an order exists; with `every_state`, after collecting the final states of all of them."""
        state = self._model.initial
        done = 0
        seen: set[tuple[int, Hashable]] = {(0, state)}
        placed: list[tuple[_Event, Hashable]] = []
        event = self._head.next
        while True:
            if done & self._known_mask == self._known_mask:
                self.final_states.add(state)
                if not self._every_state:
                    return True
            self._steps_left -= 1
            if self._steps_left < 0:
                raise SearchTooLongError(f"gave up on {len(self._history)} operations of one key")
            if event is not None and event.is_call:
                after = self._model.step(state, self._history[event.index])
                candidate = (done | 1 << event.index, after)
                if after is not IMPOSSIBLE and candidate not in seen:
                    seen.add(candidate)
                    placed.append((event, state))
                    done, state = candidate
                    _lift(event)
                    event = self._head.next
                else:
                    event = event.next
            elif placed:  # a return that no order has explained yet, or the end: take the last placed one back
                event, state = placed.pop()
                done &= ~(1 << event.index)
                _unlift(event)
                event = event.next
            else:
                return bool(self.final_states)


def _lift(call: _Event) -> None:
    """Take a call and its return out of the list."""
    for event in (call, call.return_event):
        if event is not None:
            event.previous.next = event.next
            if event.next is not None:
                event.next.previous = event.previous


def _unlift(call: _Event) -> None:
    """Put them back; the reverse order restores the list exactly."""
    for event in (call.return_event, call):
        if event is not None:
            event.previous.next = event
            if event.next is not None:
                event.next.previous = event
