"""The checker against brute force on small histories, and against histories that are known to be good or bad."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasrv.testing.history import UNKNOWN_OUTCOME, Operation, from_lines, to_lines
from metasrv.testing.linearizability import SearchTooLongError, check, explain, is_linearizable
from metasrv.testing.models import (
    IMPOSSIBLE,
    REFUSED,
    CounterModel,
    Guarded,
    Model,
    RegisterModel,
    Step,
    SwitchedRegisterModel,
    TransactionModel,
)
from metasrv.testing.search import Search
from metasrv.testing.shrink import _unexpected_values

REGISTER = RegisterModel()
SWITCHED = SwitchedRegisterModel()
COUNTER = CounterModel()
GROUP = TransactionModel()


def operation(
    process: int, name: str, argument: Any, output: Any, called_at: float, returned_at: float, key: str = "k"
) -> Operation:
    return Operation(process, key, name, argument, output, called_at, returned_at)


def unknown(process: int, name: str, argument: Any, called_at: float, key: str = "k") -> Operation:
    return Operation(process, key, name, argument, UNKNOWN_OUTCOME, called_at, None)


def brute_force(history: list[Operation], model: Model, initial: Hashable = IMPOSSIBLE) -> bool:
    """Every subset of the unknown ones, every permutation that keeps real-time order."""
    state = model.initial if initial is IMPOSSIBLE else initial
    known = [one for one in history if one.is_known]
    maybe = [one for one in history if not one.is_known]
    for count in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, count):
            for order in itertools.permutations([*known, *chosen]):
                if keeps_real_time(order) and is_legal(order, model, state):
                    return True
    return False


def keeps_real_time(order: tuple[Operation, ...]) -> bool:
    return all(
        later.returned_at is None or later.returned_at >= earlier.called_at
        for position, earlier in enumerate(order)
        for later in order[position + 1 :]
    )


def is_legal(order: tuple[Operation, ...], model: Model, state: Hashable) -> bool:
    for one in order:
        state = model.step(state, one)
        if state is IMPOSSIBLE:
            return False
    return True


def random_history(source: random.Random, names: list[str], size: int) -> list[Operation]:
    """Overlapping operations with answers from a small range: some histories are right, many are not."""
    history = []
    for process in range(size):
        called_at = source.randint(0, 8)
        name = source.choice(names)
        arguments: dict[str, Any] = {
            "read": None,
            "write": source.randint(0, 2),
            "compare_and_set": (source.choice([None, 0, 1]), source.randint(0, 2)),
            "add": 1,
        }
        argument = arguments[name]
        answers: dict[str, list[Any]] = {"write": [None], "compare_and_set": [True, False]}
        if source.random() < 0.2:
            history.append(unknown(process, name, argument, called_at))
        else:
            returned_at = called_at + source.randint(1, 5)
            history.append(
                operation(
                    process, name, argument, source.choice(answers.get(name, [None, 0, 1, 2])), called_at, returned_at
                )
            )
    return history


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_brute_force_on_registers(seed: int) -> None:
    source = random.Random(seed)
    verdicts = set()
    for _ in range(60):
        history = random_history(source, ["read", "write", "compare_and_set"], source.randint(1, 5))
        expected = brute_force(history, REGISTER)
        assert is_linearizable(history, REGISTER) == expected, history
        verdicts.add(expected)
    assert verdicts == {True, False}


# ----------------------------------------------------------------------------- drawn histories

Call = tuple[Any, ...]
"""Name, argument and answer of an operation."""
KEYS = ("x", "y")
VALUES = (None, "a", "b")


def calls_of_registers() -> st.SearchStrategy[Call]:
    value = st.sampled_from(VALUES)
    return st.one_of(
        st.tuples(st.just("read"), st.none(), value),
        st.tuples(st.just("write"), st.sampled_from(VALUES[1:]), st.none()),
        st.tuples(st.just("delete"), st.none(), st.none()),
        st.tuples(st.just("compare_and_set"), st.tuples(value, st.sampled_from(VALUES[1:])), st.booleans()),
    )


def calls_of_counters() -> st.SearchStrategy[Call]:
    return st.one_of(
        st.tuples(st.just("read"), st.none(), st.integers(0, 4)),
        st.tuples(st.just("add"), st.integers(1, 2), st.integers(1, 5)),
    )


def calls_of_groups() -> st.SearchStrategy[Call]:
    value = st.sampled_from(VALUES)
    key = st.sampled_from(KEYS)
    step = st.one_of(
        st.builds(Step, st.just("get"), key),
        st.builds(Step, st.just("put"), key, st.sampled_from(VALUES[1:])),
        st.builds(Step, st.just("delete"), key),
    )
    steps = st.lists(step, max_size=2).map(tuple)
    guarded = st.builds(Guarded, st.lists(st.tuples(key, value), max_size=1).map(tuple), steps, steps)

    def answered(argument: Guarded) -> st.SearchStrategy[Call]:
        def with_answers(holds: bool) -> st.SearchStrategy[Call]:
            taken = argument.then if holds else argument.otherwise
            return st.tuples(st.just(holds), st.tuples(*(value for _ in taken)))

        return st.tuples(st.just("transaction"), st.just(argument), st.booleans().flatmap(with_answers))

    return st.one_of(st.tuples(st.just("read_all"), st.just(KEYS), st.tuples(value, value)), guarded.flatmap(answered))


@st.composite
def histories(draw: st.DrawFn, calls: st.SearchStrategy[Call], size_max: int = 5) -> list[Operation]:
    history = []
    for process in range(draw(st.integers(1, size_max))):
        name, argument, output = draw(calls)
        called_at = draw(st.integers(0, 8))
        if draw(st.integers(0, 4)) == 0:
            history.append(unknown(process, name, argument, called_at))
        else:
            history.append(operation(process, name, argument, output, called_at, called_at + draw(st.integers(1, 5))))
    return history


MODELS: dict[str, tuple[Model, Callable[[], st.SearchStrategy[Call]]]] = {
    "register": (REGISTER, calls_of_registers),
    "counter": (COUNTER, calls_of_counters),
    "group": (GROUP, calls_of_groups),
}


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_agrees_with_brute_force_on_every_model(kind: str, data: st.DataObject) -> None:
    model, calls = MODELS[kind]
    history = data.draw(histories(calls()))
    assert is_linearizable(history, model) == brute_force(history, model)


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_states_at_the_end_are_those_of_brute_force(kind: str, data: st.DataObject) -> None:
    model, calls = MODELS[kind]
    history = data.draw(histories(calls(), size_max=4))
    search = Search(history, model, every_state=True)
    search.run()
    assert search.final_states == brute_final_states(history, model)


def brute_final_states(history: list[Operation], model: Model) -> set[Hashable]:
    known = [one for one in history if one.is_known]
    maybe = [one for one in history if not one.is_known]
    states: set[Hashable] = set()
    for count in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, count):
            for order in itertools.permutations([*known, *chosen]):
                if keeps_real_time(order) and is_legal(order, model, model.initial):
                    state = model.initial
                    for one in order:
                        state = model.step(state, one)
                    states.add(state)
    return states


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_core_of_a_violation_can_not_be_explained_either(kind: str, data: st.DataObject) -> None:
    model, calls = MODELS[kind]
    history = data.draw(histories(calls(), size_max=6))
    for violation in check(history, model):
        core = violation.core
        assert violation.culprit in core.operations
        assert {id(one) for one in core.operations} <= {id(one) for one in violation.prefix}
        assert core.initial_states
        assert not any(brute_force(list(core.operations), model, state) for state in core.initial_states)


@settings(max_examples=300, deadline=None)
@given(history=histories(calls_of_registers(), size_max=6), initial=st.sampled_from(VALUES))
def test_what_is_left_out_of_a_register_explains_nothing(history: list[Operation], initial: str | None) -> None:
    """Leaving a group out must keep an explanation, or a core would blame the innocent."""
    if not brute_force(history, REGISTER, initial):
        return
    nobody = operation(99, "read", None, None, 100, 101)
    for group in _unexpected_values(history, nobody, [initial]):
        rest = [one for one in history if not any(one is left for left in group)]
        assert brute_force(rest, REGISTER, initial), (history, group)


# ----------------------------------------------------------------------------- known good, known bad


def test_empty_history_is_linearizable() -> None:
    assert check([], REGISTER) == []


def test_stale_read_is_found_and_explained() -> None:
    history = [
        operation(1, "write", "a", None, 0, 1),
        operation(2, "read", None, "a", 2, 3),
        operation(1, "write", "b", None, 4, 5),
        operation(2, "read", None, "a", 6, 7),
        operation(2, "read", None, "b", 8, 9),
    ]
    [violation] = check(history, REGISTER)
    assert violation.culprit is history[3]
    assert violation.prefix == tuple(history[:4])
    assert violation.states == ("b",)
    text = str(violation)
    assert "read() -> 'a' by client 2 cannot be explained" in text
    assert "only these values possible: 'b'" in text
    assert text.endswith("<-- impossible")


def test_lost_write_is_found() -> None:
    history = [operation(1, "write", "a", None, 0, 1), operation(2, "read", None, None, 2, 3)]
    assert len(check(history, REGISTER)) == 1


def test_a_read_that_overlaps_a_write_may_see_either() -> None:
    for seen in (None, "a"):
        history = [operation(1, "write", "a", None, 0, 5), operation(2, "read", None, seen, 1, 2)]
        assert check(history, REGISTER) == []


def test_a_value_that_was_seen_does_not_vanish_again() -> None:
    history = [
        operation(1, "write", "a", None, 0, 9),
        operation(2, "read", None, "a", 1, 2),
        operation(3, "read", None, None, 3, 4),
    ]
    assert check(history, REGISTER)[0].culprit is history[2]


def test_unknown_write_may_show_late_or_never() -> None:
    late = [
        unknown(1, "write", "a", 0),
        operation(2, "read", None, None, 1, 2),
        operation(2, "read", None, "a", 50, 51),
    ]
    assert check(late, REGISTER) == []
    assert check(late[:2], REGISTER) == []
    gone_again = [*late, operation(2, "read", None, None, 60, 61)]
    assert check(gone_again, REGISTER)[0].culprit is gone_again[3]


def test_two_winners_of_one_compare_and_set_are_found() -> None:
    history = [
        operation(1, "compare_and_set", (None, "a"), True, 0, 3),
        operation(2, "compare_and_set", (None, "b"), True, 1, 4),
    ]
    assert len(check(history, REGISTER)) == 1


def test_command_applied_twice_is_found_by_the_counter() -> None:
    history = [
        operation(1, "add", 1, 1, 0, 1),
        operation(1, "add", 1, 3, 2, 3),
    ]
    assert check(history, COUNTER)[0].culprit is history[1]


def test_keys_are_independent() -> None:
    good = [operation(1, "write", "a", None, 0, 1, key="good"), operation(1, "read", None, "a", 2, 3, key="good")]
    bad = [operation(1, "write", "a", None, 0, 1, key="bad"), operation(1, "read", None, "x", 2, 3, key="bad")]
    assert [violation.key for violation in check([*good, *bad], REGISTER)] == ["bad"]


def test_explanation_names_the_first_wrong_answer_not_a_later_one() -> None:
    history = [operation(1, "write", number, None, 2 * number, 2 * number + 1) for number in range(50)]
    history.append(operation(2, "read", None, 3, 80.1, 80.2))
    history += [operation(2, "read", None, 49, 200 + number, 200.5 + number) for number in range(20)]
    violation = explain("k", history, REGISTER)
    assert violation.culprit.output == 3
    assert max(one.called_at for one in violation.prefix) <= 80.2


def test_a_long_history_of_few_clients_is_fast_enough() -> None:
    source = random.Random(1)
    value, clock, history = None, 0.0, []
    for number in range(4000):
        clock += 1
        if source.random() < 0.5:
            value = number
            history.append(operation(number % 4, "write", value, None, clock, clock + 0.9))
        else:
            history.append(operation(number % 4, "read", None, value, clock, clock + 0.9))
    assert check(history, REGISTER, steps_max=100_000) == []


def test_a_search_that_grows_too_long_is_given_up_loudly() -> None:
    history = [operation(number, "write", number, None, 0, 100) for number in range(16)]
    history.append(operation(99, "read", None, "never written", 101, 102))
    with pytest.raises(SearchTooLongError, match="17 operations"):
        check(history, REGISTER, steps_max=10_000)


@pytest.mark.parametrize("model", [REGISTER, COUNTER])
def test_an_operation_the_model_does_not_have_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="no operation 'paint'"):
        check([operation(1, "paint", None, None, 0, 1)], model)


def put(key: str, value: str) -> Step:
    return Step("put", key, value)


def moved(process: int, argument: Guarded, output: object, called_at: float, returned_at: float) -> Operation:
    return operation(process, "transaction", argument, output, called_at, returned_at)


BOTH = Guarded((), (put("x", "1"), put("y", "1")))
BAD: dict[str, tuple[Model, list[Operation]]] = {
    "a write that was acknowledged is lost": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            operation(2, "write", "b", None, 2, 3),
            operation(1, "read", None, "a", 4, 5),
        ],
    ),
    "a read goes back behind another read": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            operation(2, "write", "b", None, 2, 9),
            operation(3, "read", None, "b", 3, 4),
            operation(4, "read", None, "a", 5, 6),
        ],
    ),
    "a value that nobody wrote": (REGISTER, [operation(1, "read", None, "ghost", 0, 1)]),
    "a deleted value is back": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            operation(1, "delete", None, None, 2, 3),
            operation(2, "read", None, "a", 4, 5),
        ],
    ),
    "a failed compare-and-set wrote all the same": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            operation(2, "compare_and_set", ("z", "b"), False, 2, 3),
            operation(1, "read", None, "b", 4, 5),
        ],
    ),
    "a compare-and-set failed although the value was expected": (
        REGISTER,
        [operation(1, "write", "a", None, 0, 1), operation(2, "compare_and_set", ("a", "b"), False, 2, 3)],
    ),
    "a compare-and-set succeeded on a value that was gone": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            operation(1, "write", "b", None, 2, 3),
            operation(2, "compare_and_set", ("a", "c"), True, 4, 5),
        ],
    ),
    "an unknown write shows before it was sent": (
        REGISTER,
        [operation(2, "read", None, "a", 0, 1), unknown(1, "write", "a", 2)],
    ),
    "an unknown write shows, vanishes, shows again": (
        REGISTER,
        [
            operation(1, "write", "a", None, 0, 1),
            unknown(2, "write", "b", 2),
            operation(3, "read", None, "b", 3, 4),
            operation(3, "read", None, "a", 5, 6),
        ],
    ),
    "an increment was doubled": (COUNTER, [operation(1, "add", 2, 2, 0, 1), operation(2, "add", 1, 5, 2, 3)]),
    "an increment was lost": (COUNTER, [operation(1, "add", 1, 1, 0, 1), operation(2, "add", 1, 1, 2, 3)]),
    "an unknown increment was counted twice": (
        COUNTER,
        [operation(1, "add", 1, 1, 0, 1), unknown(2, "add", 1, 2), operation(1, "add", 1, 4, 3, 4)],
    ),
    "a write was refused before the cluster was read-only": (
        SWITCHED,
        [operation(1, "write", "a", REFUSED, 0, 1), operation(9, "switch", True, None, 2, 3)],
    ),
    "a write was taken while the cluster was read-only": (
        SWITCHED,
        [operation(9, "switch", True, None, 0, 1), operation(1, "write", "a", None, 2, 3)],
    ),
    "a node that is behind refuses after writes are taken again": (
        SWITCHED,
        [
            operation(9, "switch", True, None, 0, 1),
            operation(9, "switch", False, None, 2, 3),
            operation(1, "write", "a", None, 4, 5),
            operation(2, "write", "b", REFUSED, 6, 7),
        ],
    ),
    "a refused write shows": (
        SWITCHED,
        [
            operation(9, "switch", True, None, 0, 1),
            operation(1, "write", "a", REFUSED, 2, 3),
            operation(2, "read", None, "a", 4, 5),
        ],
    ),
    "half of a transaction is seen": (
        GROUP,
        [moved(1, BOTH, (True, (None, None)), 0, 1), operation(2, "read_all", ("x", "y"), ("1", None), 2, 3)],
    ),
    "half of an unknown transaction is seen": (
        GROUP,
        [unknown(1, "transaction", BOTH, 0), operation(2, "read_all", ("x", "y"), ("1", None), 2, 3)],
    ),
    "both branches of a transaction were taken": (
        GROUP,
        [
            moved(1, Guarded((("x", "0"),), (put("y", "then"),), (put("x", "else"),)), (False, (None,)), 0, 1),
            operation(2, "read_all", ("x", "y"), ("else", "then"), 2, 3),
        ],
    ),
    "a condition held on a value that was gone": (
        GROUP,
        [
            moved(1, BOTH, (True, (None, None)), 0, 1),
            moved(2, Guarded((("x", None),), (put("x", "2"),)), (True, ("1",)), 2, 3),
        ],
    ),
    "two snapshots see two transactions in different orders": (
        GROUP,
        [
            moved(1, Guarded((), (put("x", "1"),)), (True, (None,)), 0, 20),
            moved(2, Guarded((), (put("y", "1"),)), (True, (None,)), 0, 20),
            operation(3, "read_all", ("x", "y"), ("1", None), 1, 5),
            operation(4, "read_all", ("x", "y"), (None, "1"), 1, 5),
        ],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_history_is_found(what: str) -> None:
    model, history = BAD[what]
    [violation] = check(history, model)
    assert violation.culprit in history
    assert not brute_force(history, model)
    assert str(violation).endswith("<-- impossible")


@pytest.mark.parametrize("what", BAD)
def test_a_bad_history_without_its_last_answer_is_good(what: str) -> None:
    model, history = BAD[what]
    [violation] = check(history, model)
    before = [one.as_unknown() if one is violation.culprit else one for one in violation.prefix]
    assert is_linearizable(before, model)


def test_the_core_is_the_shortest_history_that_shows_it() -> None:
    """Hundreds of correct operations stand before and between the three that matter."""
    source, clock = random.Random(7), 0.0
    history: list[Operation] = []

    def innocent(count: int) -> None:
        nonlocal clock
        for _ in range(count):
            clock += 1
            history.append(operation(source.randrange(3), "write", f"v{len(history)}", None, clock, clock + 0.9))

    innocent(150)
    old = operation(1, "write", "old", None, clock + 1, clock + 1.5)
    clock += 2
    history.append(old)
    innocent(150)
    newer = history[-1]
    stale = operation(2, "read", None, "old", clock + 1, clock + 2)
    history.append(stale)
    clock += 3
    innocent(20)
    [violation] = check(history, REGISTER)
    assert violation.culprit is stale
    assert len(violation.prefix) == 302
    assert violation.core.operations == (old, newer, stale)
    assert "3 of 302 operations" in str(violation)


def test_a_long_counter_is_shown_from_its_last_moment_of_rest() -> None:
    history = [operation(1, "add", 1, number + 1, number, number + 0.5) for number in range(300)]
    history.append(operation(2, "add", 1, 302, 400, 401))
    [violation] = check(history, COUNTER)
    assert len(violation.core.operations) == 4
    assert violation.core.initial_states == (297,)
    assert "at that time the value was 297" in str(violation)


def test_many_unknown_writes_do_not_make_a_good_history_slow() -> None:
    history = [unknown(number, "write", f"u{number}", number) for number in range(40)]
    value = None
    for number in range(2000):
        clock = 50 + number
        if number % 3 == 0:
            value = f"v{number}"
            history.append(operation(100, "write", value, None, clock, clock + 0.5))
        else:
            history.append(operation(100, "read", None, value, clock, clock + 0.5))
    history.append(operation(100, "read", None, "u17", 5000, 5001))
    search = Search(history, REGISTER, steps_max=500_000)
    assert search.run()


def test_a_history_survives_being_written_down() -> None:
    history = [
        operation(1, "write", "a", None, 0.25, 1.5),
        unknown(2, "compare_and_set", (None, "b"), 1.0),
        moved(1, BOTH, (True, (None, "1")), 2.0, 3.0),
    ]
    assert from_lines(to_lines(history)) == history
