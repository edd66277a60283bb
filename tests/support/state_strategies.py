"""What Hypothesis draws for the state machine: commands, entries, histories, and numbers near those in the model."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from metasrv.model import commands as c
from tests.support.state_histories import (
    BASE_MS,
    COMMON_KEYS,
    DELTAS,
    FIXED_EXPIRIES,
    KEYS,
    LARGE,
    NEAR,
    U64,
    VALUES,
)
from tests.support.state_model import Model

Drawn = TypeVar("Drawn")

keys = st.one_of(st.sampled_from(COMMON_KEYS), st.sampled_from(KEYS))
values = st.sampled_from(VALUES)
numbers = st.one_of(st.sampled_from(sorted(NEAR)), st.integers(0, 12), st.sampled_from(LARGE))


def maybe(strategy: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn | None]:
    return st.one_of(st.none(), strategy)


expiries = maybe(
    st.one_of(
        st.integers(BASE_MS - 5, BASE_MS + 60),
        st.integers(BASE_MS // 1000 - 1, BASE_MS // 1000 + 1),
        st.sampled_from(FIXED_EXPIRIES),
    )
)
ttls = maybe(st.one_of(st.integers(0, 30), st.just(U64)))
operations = st.one_of(
    st.builds(c.Get, keys),
    st.builds(c.Put, keys, values, expiries, ttls, maybe(numbers)),
    st.builds(c.Delete, keys, maybe(numbers)),
    st.builds(c.DeleteByPrefix, keys),
    st.builds(c.FetchIncrease, keys, st.sampled_from(DELTAS), maybe(numbers), numbers),
    st.builds(c.PutSequential, keys, keys, values, expiries, ttls),
)
condition_operands = {
    c.Target.NONE: st.just(0),
    c.Target.VALUE: values,
    c.Target.SEQ: numbers,
    c.Target.KEYS_WITH_PREFIX: numbers,
}
conditions = st.sampled_from(c.Target).flatmap(
    lambda target: st.builds(
        c.Condition, keys, st.just(target), condition_operands[target], st.sampled_from(c.Comparison)
    )
)


def few(strategy: st.SearchStrategy[Drawn]) -> st.SearchStrategy[tuple[Drawn, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


expressions = st.recursive(
    st.builds(c.Expression, st.sampled_from(c.Combine), st.just(()), few(conditions)),
    lambda inner: st.builds(c.Expression, st.sampled_from(c.Combine), few(inner), few(conditions)),
    max_leaves=4,
)
branches = few(st.builds(c.Branch, maybe(expressions), few(operations)))
matches = st.builds(c.MatchSeq, st.sampled_from(c.MatchKind), numbers)
one = st.tuples
nothing = st.just(())
upserts = st.builds(c.Upsert, keys, matches, st.sampled_from(c.Operation), values, expiries, ttls)
lone_operations = st.builds(c.Transaction, nothing, nothing, one(operations), nothing)
lone_conditions = st.builds(c.Transaction, nothing, one(conditions), one(operations), one(operations))
commands = st.one_of(
    upserts,
    lone_operations,
    lone_conditions,
    st.builds(c.Transaction, branches, few(conditions), few(operations), few(operations)),
    st.builds(c.Transaction, nothing, nothing, few(operations), nothing),
    st.builds(c.BranchTransaction, branches),
)
entries = st.tuples(st.integers(-20, 40).map(lambda offset: BASE_MS + offset), st.lists(commands, max_size=6).map(tuple))
actions = st.lists(
    st.one_of(entries, entries, entries, entries, st.sampled_from(["reopen", "snapshot"])), min_size=3, max_size=12
)


def resolved(value: Any, model: Model) -> Any:
    """The command with every number of NEAR turned into one near what it will be compared with."""
    if isinstance(value, c.Condition) and value.target is not c.Target.VALUE:
        there = model.seq_of(value.key) if value.target is c.Target.SEQ else model.count_of(value.key)
        return value._replace(operand=_near(value.operand, there))
    if isinstance(value, c.Put | c.Delete | c.FetchIncrease):
        return value._replace(match_seq=_near(value.match_seq, model.seq_of(value.key)))
    if isinstance(value, c.Upsert):
        match = value.match._replace(seq=_near(value.match.seq, model.seq_of(value.key)))
        return value._replace(match=match)
    if not isinstance(value, tuple):
        return value
    parts = [resolved(part, model) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _near(number: Any, there: int) -> Any:
    return max(0, there + NEAR[number]) if number in NEAR else number
