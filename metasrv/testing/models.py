"""Sequential specifications for the linearizability checker: what one copy on one machine would answer.

A model is a pure function from state and operation to the next state, or to `IMPOSSIBLE` when a sequential object
could not have given that output. States are hashable. An operation of unknown outcome has no output to compare.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Final, Literal, Protocol

from metasrv.testing.history import UNKNOWN_OUTCOME, Operation


class _Impossible(Enum):
    IMPOSSIBLE = "impossible"


IMPOSSIBLE: Final[Literal[_Impossible.IMPOSSIBLE]] = _Impossible.IMPOSSIBLE


class Model(Protocol):
    """A sequential object. `step` raises ValueError for an operation that the model does not have."""

    initial: Hashable

    def step(self, state: Hashable, operation: Operation) -> Hashable:
        """The state after the operation, or IMPOSSIBLE."""
        ...


class RegisterModel:
    """`read` -> value; `write`(value); `compare_and_set`((old, new)) -> whether it was done.

    An absent value is None.
    """

    initial: Hashable = None

    def step(self, state: Hashable, operation: Operation) -> Hashable:
        output = operation.output
        unknown = output is UNKNOWN_OUTCOME
        match operation.name:
            case "read":
                return state if unknown or output == state else IMPOSSIBLE
            case "write":
                written: Hashable = operation.argument
                return written
            case "compare_and_set":
                old, new = operation.argument
                done = state == old
                if not unknown and output != done:
                    return IMPOSSIBLE
                after: Hashable = new if done else state
                return after
        raise ValueError(f"a register has no operation {operation.name!r}")


class CounterModel:
    """`add`(delta) -> value after it; `read` -> value. Starts at 0; a doubled command shows in every later answer."""

    initial: Hashable = 0

    def step(self, state: Hashable, operation: Operation) -> Hashable:
        if not isinstance(state, int):
            raise TypeError("the state of a counter is an integer")
        after = state
        if operation.name == "add":
            after = state + int(operation.argument)
        elif operation.name != "read":
            raise ValueError(f"a counter has no operation {operation.name!r}")
        return after if operation.output is UNKNOWN_OUTCOME or operation.output == after else IMPOSSIBLE
