"""What clients did and saw: the operations that the linearizability checker reads.

Plain values. Times are seconds of any one monotonic clock. Knows nothing of clients or servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal


class _UnknownOutcome(Enum):
    UNKNOWN_OUTCOME = "unknown"


UNKNOWN_OUTCOME: Final[Literal[_UnknownOutcome.UNKNOWN_OUTCOME]] = _UnknownOutcome.UNKNOWN_OUTCOME
"""Output of an operation that may or may not have happened, at any time after its call."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on one key.

    An operation that certainly did not happen is not in a history; one that may have happened has the
    `output` UNKNOWN_OUTCOME and no `returned_at`.
    """

    process: int
    key: str
    name: str
    argument: Any
    output: Any
    called_at: float
    returned_at: float | None

    @property
    def is_known(self) -> bool:
        return self.returned_at is not None

    def as_unknown(self) -> Operation:
        """The same call as seen before its answer arrived."""
        return Operation(self.process, self.key, self.name, self.argument, UNKNOWN_OUTCOME, self.called_at, None)

    def __str__(self) -> str:
        argument = "" if self.argument is None else repr(self.argument)
        output = repr(self.output) if self.is_known else "unknown"
        return f"{self.name}({argument}) -> {output}"


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Split a history by key: it is linearizable when the history of each key is."""
    histories: dict[str, list[Operation]] = {}
    for operation in operations:
        histories.setdefault(operation.key, []).append(operation)
    return histories


def to_lines(operations: Iterable[Operation]) -> Iterator[str]:
    """One JSON object an operation; arguments and outputs must be made of plain values and tuples."""
    for one in operations:
        output = one.output if one.output is not UNKNOWN_OUTCOME else {"unknown": True}
        fields = (one.process, one.key, one.name, one.argument, output, one.called_at, one.returned_at)
        yield json.dumps(dict(zip(Operation.__slots__, fields, strict=True)))


def from_lines(lines: Iterable[str]) -> list[Operation]:
    """The inverse; lists become tuples again."""
    operations = []
    for line in lines:
        fields = json.loads(line)
        output = fields["output"]
        fields["output"] = UNKNOWN_OUTCOME if output == {"unknown": True} else _tuples(output)
        fields["argument"] = _tuples(fields["argument"])
        operations.append(Operation(**fields))
    return operations


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
