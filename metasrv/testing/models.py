"""Sequential specifications for the linearizability checker: what a single copy would answer.

A model is a pure function from state and operation to the next state, or to `IMPOSSIBLE` when a sequential object cannot
give that output. States are hashable. The output of an unknown outcome is not compared.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, Protocol, cast

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
    """`read` -> value; `write`(value); `delete`; `compare_and_set`((old, new)) -> whether it was done.

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
            case "delete":
                return None
            case "compare_and_set":
                old, new = operation.argument
                done = state == old
                if not unknown and output != done:
                    return IMPOSSIBLE
                after: Hashable = new if done else state
                return after
        raise ValueError(f"a register has no operation {operation.name!r}")


REFUSED: Final = "refused"
"""What a write answered that the cluster did not take because it was read-only."""


class SwitchedRegisterModel:
    """A register of a cluster that an operator makes read-only: `switch`(on), `write`(value) -> None or REFUSED, `read`.

    A refusal is an answer like any other: there must be an instant at which the switch was on.
    """

    initial: Hashable = (False, None)

    def step(self, state: Hashable, operation: Operation) -> Hashable:
        read_only, value = cast(tuple[bool, Hashable], state)
        output = operation.output
        unknown = output is UNKNOWN_OUTCOME
        match operation.name:
            case "read":
                return state if unknown or output == value else IMPOSSIBLE
            case "switch":
                return (operation.argument, value)
            case "write":
                if not unknown and (output == REFUSED) is not read_only:
                    return IMPOSSIBLE
                return state if read_only else (False, operation.argument)
        raise ValueError(f"a switched register has no operation {operation.name!r}")


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


class Step(NamedTuple):
    """One operation inside a transaction: `get`, `put` or `delete`; each answers with the value before it."""

    name: str
    key: str
    value: str | None = None


class Guarded(NamedTuple):
    """Do `then` if every condition (key, expected value) holds, else `otherwise`, at one instant."""

    conditions: tuple[tuple[str, str | None], ...]
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = ()


class TransactionModel:
    """`transaction`(Guarded) -> (whether the conditions held, one answer a step); `read_all`(keys) -> values.

    One object is a group of keys, and a history is split by groups. The state is the group's sorted items.
    """

    initial: Hashable = ()

    def step(self, state: Hashable, operation: Operation) -> Hashable:
        values = dict(cast(tuple[tuple[str, str], ...], state))
        output: object
        if operation.name == "read_all":
            output = tuple(values.get(key) for key in operation.argument)
        elif operation.name == "transaction":
            conditions, then, otherwise = operation.argument
            holds = all(values.get(key) == expected for key, expected in conditions)
            output = (holds, tuple(_take(values, step) for step in (then if holds else otherwise)))
        else:
            raise ValueError(f"a group of keys has no operation {operation.name!r}")
        if operation.output is not UNKNOWN_OUTCOME and operation.output != output:
            return IMPOSSIBLE
        return tuple(sorted(values.items()))


def _take(values: dict[str, str], step: Sequence[str | None]) -> str | None:
    name, key, value = step
    if key is None:
        raise ValueError("a step without a key")
    before = values.get(key)
    if name == "put" and value is not None:
        values[key] = value
    elif name == "delete":
        values.pop(key, None)
    elif name != "get":
        raise ValueError(f"a transaction has no step {name!r} with the value {value!r}")
    return before


def leaves_state(model: Model, operation: Operation) -> bool:
    """Whether an operation with this answer certainly did not change the object, so that others do not need it.

    True for reads and for what was refused; False for an unknown outcome and for every model not known here.
    """
    if not operation.is_known:
        return False
    if isinstance(model, RegisterModel):
        return operation.name == "read" or (operation.name == "compare_and_set" and not operation.output)
    if isinstance(model, CounterModel):
        return operation.name == "read"
    if isinstance(model, TransactionModel):
        if operation.name == "read_all":
            return True
        _, then, otherwise = operation.argument
        holds, _ = operation.output
        return all(name == "get" for name, _, _ in (then if holds else otherwise))
    return False
