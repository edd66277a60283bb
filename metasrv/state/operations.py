"""The operations of a transaction, a rule each (docs/contract/grpc.md section d.5).

What may be asked, and what an operation reads, writes and answers. Pure rules over `EntryEffects`; total for every
operation that can be decoded, and the same on every node: no clock, no randomness. Runs on the event loop.
"""

from __future__ import annotations

import re
from typing import Any, cast

from metasrv.model import command_table as table
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import I64_MAX, U64_MAX, SeqV
from metasrv.state.effects import EntryEffects
from metasrv.state.many_puts import TOGETHER_MIN, put_all
from metasrv.state.rules import Rule, check_rules
from metasrv.state.validate import validate_key, validate_numbers, validate_value

SEQUENTIAL_NAME_SIZE_BYTES = 27
"""What `PutSequential` adds to its prefix; see `sequential_name`."""
_COUNTER = re.compile(rb"[ \t\n\r]*(0|[1-9][0-9]{0,19})[ \t\n\r]*")
"""A JSON text of an unsigned integer of at most 20 digits."""


def apply_operations(
    effects: EntryEffects, operations: tuple[c.TransactionOperation, ...]
) -> tuple[c.OperationResponse, ...]:
    """Run the operations in order, each on what those before it left; returns a response for each."""
    if len(operations) >= TOGETHER_MIN and set(map(type, operations)) == {c.Put}:
        return tuple(put_all(effects, cast(tuple[c.Put, ...], operations)))
    return tuple([_APPLY[type(operation)](effects, operation) for operation in operations])


# ----------------------------------------------------------------------------- get, put


def _validate_get(operation: c.Get) -> None:
    validate_key(operation.key)


def _get(effects: EntryEffects, operation: c.Get) -> c.GetResponse:
    return c.GetResponse(operation.key, effects.read(operation.key))


def _validate_put(operation: c.Put) -> None:
    validate_key(operation.key)
    validate_value(operation.value)
    validate_numbers(operation.expire_at, operation.ttl_ms, operation.match_seq)


def _put(effects: EntryEffects, operation: c.Put) -> c.PutResponse:
    key, value, expire_at, ttl_ms, match_seq = operation
    prev = effects.read(key)
    if match_seq is not None and (0 if prev is None else prev.seq) != match_seq:
        return c.PutResponse(key, prev, prev)
    return c.PutResponse(key, prev, effects.write(key, value, prev, expire_at, ttl_ms))


# ----------------------------------------------------------------------------- delete


def _validate_delete(operation: c.Delete) -> None:
    validate_key(operation.key)
    validate_numbers(operation.match_seq)


def _delete(effects: EntryEffects, operation: c.Delete) -> c.DeleteResponse:
    prev = effects.read(operation.key)
    if prev is None or (operation.match_seq is not None and prev.seq != operation.match_seq):
        return c.DeleteResponse(operation.key, False, prev)
    effects.remove(operation.key, prev)
    return c.DeleteResponse(operation.key, True, prev)


def _validate_delete_by_prefix(operation: c.DeleteByPrefix) -> None:
    validate_key(operation.prefix, "the prefix")


def _delete_by_prefix(effects: EntryEffects, operation: c.DeleteByPrefix) -> c.DeleteByPrefixResponse:
    return c.DeleteByPrefixResponse(operation.prefix, effects.remove_prefix(operation.prefix))


# ----------------------------------------------------------------------------- counters


def _validate_fetch_increase(operation: c.FetchIncrease) -> None:
    validate_key(operation.key)
    validate_numbers(operation.match_seq, operation.floor)
    if not -I64_MAX - 1 <= operation.delta <= I64_MAX:
        raise InvalidRequestError(f"{operation.delta} is not a signed 64-bit number")


def _fetch_increase(effects: EntryEffects, operation: c.FetchIncrease) -> c.FetchIncreaseResponse:
    key, delta, match_seq, floor = operation
    prev = effects.read(key)
    before_seq = 0 if prev is None else prev.seq
    before = counter_of(prev)
    if match_seq is not None and before_seq != match_seq:
        return c.FetchIncreaseResponse(key, before_seq, before, before_seq, before)
    after = min(max(max(before, floor) + delta, 0), U64_MAX)
    effects.write(key, b"%d" % after, prev)
    return c.FetchIncreaseResponse(key, before_seq, before, effects.seq, after)


def _validate_put_sequential(operation: c.PutSequential) -> None:
    validate_key(operation.prefix, "the key made from the prefix", SEQUENTIAL_NAME_SIZE_BYTES)
    validate_key(operation.sequence_key)
    validate_value(operation.value)
    validate_numbers(operation.expires_at_ms, operation.ttl_ms)


def _put_sequential(effects: EntryEffects, operation: c.PutSequential) -> c.PutResponse:
    """The counter takes the first sequence number, the record the second."""
    counter = _fetch_increase(effects, c.FetchIncrease(operation.sequence_key, 1))
    key = operation.prefix + sequential_name(counter.before)
    return _put(effects, c.Put(key, operation.value, operation.expires_at_ms, operation.ttl_ms))


def counter_of(record: SeqV | None) -> int:
    """The number a counter record holds; 0 when it is absent or not a JSON text of an unsigned 64-bit number."""
    match = None if record is None else _COUNTER.fullmatch(record.data)
    number = 0 if match is None else int(match[1])
    return number if number <= U64_MAX else 0


def sequential_name(number: int) -> str:
    """21 digits in groups of three: `000_000_000_000_001_200_123`."""
    digits = f"{number:021d}"
    return "_".join(digits[start : start + 3] for start in range(0, 21, 3))


# ----------------------------------------------------------------------------- the table

OPERATION_RULES: tuple[Rule[Any, Any], ...] = (
    Rule(table.GET, _validate_get, _get),
    Rule(table.PUT, _validate_put, _put),
    Rule(table.DELETE, _validate_delete, _delete),
    Rule(table.DELETE_BY_PREFIX, _validate_delete_by_prefix, _delete_by_prefix),
    Rule(table.FETCH_INCREASE, _validate_fetch_increase, _fetch_increase),
    Rule(table.PUT_SEQUENTIAL, _validate_put_sequential, _put_sequential),
)
check_rules("operation", table.OPERATIONS, OPERATION_RULES, "state/operations.py")

OPERATION_VALIDATORS = {rule.request.kind: rule.validate for rule in OPERATION_RULES}
"""What raises TooLargeError or InvalidRequestError for an operation, by its type."""
_APPLY = {rule.request.kind: rule.apply for rule in OPERATION_RULES}
