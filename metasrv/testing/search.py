"""The search for one order of operations that explains every answer.

Wing and Gong's search with Lowe's memory of (done set, state) pairs, over a linked list of calls and returns that is
taken apart and put together again, as Porcupine does it. Three rules keep it short. None hides an order
when there is one, or a state in which orders can end:

- A read that can come next and fits is placed at once, and nothing is tried in its place: it changes nothing.
- An operation of unknown outcome is tried last, and only right before one whose effect or answer it changes. If it
  changes nothing for the next operation, an order without it will do.
- Among unknown operations that do the same, the one that was called first is taken first.

Pure computing. The time can still grow exponentially with the operations that overlap.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf

from metasrv.testing.history import Operation
from metasrv.testing.models import IMPOSSIBLE, Model, leaves_state

STEPS_MAX_DEFAULT = 20_000_000
_NOTHING = object()


class SearchTooLongError(Exception):
    """The search took too many steps; nothing is known about the history."""


class _Event:
    """A call or a return in the linked list of events that are not yet placed."""

    __slots__ = ("at", "index", "is_call", "is_known", "next", "previous", "return_event")

    def __init__(
        self, index: int, at: float, *, is_call: bool, is_known: bool = True, return_event: _Event | None = None
    ) -> None:
        self.index = index
        self.at = at
        self.is_call = is_call
        self.is_known = is_known
        self.return_event = return_event
        """The matching return of a call; None in a return, and in the call of an unknown outcome."""
        self.previous: _Event = self
        self.next: _Event | None = None


class Search:
    """One search over one object's history, from the model's initial state or another one."""

    def __init__(
        self,
        history: Sequence[Operation],
        model: Model,
        *,
        initial: Hashable = IMPOSSIBLE,
        steps_max: int = STEPS_MAX_DEFAULT,
        every_state: bool = False,
    ) -> None:
        self.final_states: set[Hashable] = set()
        """States after orders that place every known operation."""
        self.steps = 0
        """Candidates looked at."""
        self._history = history
        self._model = model
        self._initial = model.initial if initial is IMPOSSIBLE else initial
        self._steps_max = steps_max
        self._every_state = every_state
        self._known_mask = sum(1 << index for index, one in enumerate(history) if one.is_known)
        self._only_looks = [leaves_state(model, one) for one in history]
        self._twin_mask = _masks_of_earlier_twins(history)
        self._known = _Event(-1, -inf, is_call=False)
        self._unknown = _Event(-1, -inf, is_call=False)
        self._link()

    def _link(self) -> None:
        """Build the lists by time; at equal times calls come first, which only makes the check more lenient."""
        known: list[_Event] = []
        unknown: list[_Event] = []
        for index, operation in enumerate(self._history):
            if operation.returned_at is None:
                unknown.append(_Event(index, operation.called_at, is_call=True, is_known=False))
                continue
            end = _Event(index, operation.returned_at, is_call=False)
            known += [end, _Event(index, operation.called_at, is_call=True, return_event=end)]
        for head, events in ((self._known, known), (self._unknown, unknown)):
            last = head
            for event in sorted(events, key=lambda event: (event.at, not event.is_call, event.index)):
                last.next, event.previous = event, last
                last = event

    def run(self) -> bool:
        """Whether an order exists; with `every_state`, after collecting the final states of all of them.

        Raises SearchTooLongError.
        """
        history, step, known_mask = self._history, self._model.step, self._known_mask
        state = self._initial
        without: Hashable = _NOTHING
        """The state before an unknown operation that was placed last."""
        done = 0
        seen: set[tuple[int, Hashable, Hashable]] = {(0, state, without)}
        placed: list[tuple[_Event, Hashable, Hashable, bool]] = []
        event, forced = self._first(state)
        while True:
            if done & known_mask == known_mask:
                self.final_states.add(state)
                if not self._every_state:
                    return True
            self.steps += 1
            if self.steps > self._steps_max:
                raise SearchTooLongError(f"gave up on {len(history)} operations of one key")
            if event is not None:
                operation = history[event.index]
                after = step(state, operation)
                key = (done | 1 << event.index, after, _NOTHING if event.is_known else state)
                if (
                    after is IMPOSSIBLE
                    or key in seen
                    or (without is not _NOTHING and step(without, operation) == after)
                    or self._twin_mask[event.index] & ~done
                ):
                    event = None if forced else self._after(event)
                    continue
                seen.add(key)
                placed.append((event, state, without, forced))
                done, state, without = key
                _lift(event)
                event, forced = self._first(state)
            elif placed:  # nothing can come next: take the last placed operation back
                event, state, without, forced = placed.pop()
                done &= ~(1 << event.index)
                _unlift(event)
                event = None if forced else self._after(event)
            else:
                return bool(self.final_states)

    def _first(self, state: Hashable) -> tuple[_Event | None, bool]:
        """The first operation to try, and whether no other needs to be: a read that fits."""
        event = self._known.next
        while event is not None and event.is_call:
            if self._only_looks[event.index] and self._model.step(state, self._history[event.index]) is not IMPOSSIBLE:
                return event, True
            event = event.next
        return self._candidate(self._known.next), False

    def _after(self, event: _Event) -> _Event | None:
        """The next one to try instead of `event`."""
        return self._candidate(event.next) if event.is_known else self._unknown_candidate(event.next)

    def _candidate(self, event: _Event | None) -> _Event | None:
        """`event`, unless it is the first return or the end: then the first unknown one called before that."""
        if event is not None and event.is_call:
            return event
        return self._unknown_candidate(self._unknown.next)

    def _unknown_candidate(self, event: _Event | None) -> _Event | None:
        if event is None:
            return None
        limit = self._known.next
        while limit is not None and limit.is_call:
            limit = limit.next
        return event if limit is None or event.at <= limit.at else None


def _masks_of_earlier_twins(history: Sequence[Operation]) -> list[int]:
    """For each unknown operation the bit of the one before it that does the same; 0 where there is none."""
    masks = [0] * len(history)
    latest: dict[tuple[str, str], int] = {}
    for index in sorted(range(len(history)), key=lambda index: history[index].called_at):
        one = history[index]
        if not one.is_known:
            kind = (one.name, repr(one.argument))
            if kind in latest:
                masks[index] = 1 << latest[kind]
            latest[kind] = index
    return masks


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
