"""The checker against brute force on small histories, and against histories that are known to be good or bad."""

from __future__ import annotations

import itertools
import random

import pytest

from metasrv.testing.history import UNKNOWN_OUTCOME, Operation
from metasrv.testing.linearizability import SearchTooLongError, check, explain, is_linearizable
from metasrv.testing.models import IMPOSSIBLE, CounterModel, Model, RegisterModel

REGISTER = RegisterModel()
COUNTER = CounterModel()


def operation(process, name, argument, output, called_at, returned_at, key="k") -> Operation:
    return Operation(process, key, name, argument, output, called_at, returned_at)


def unknown(process, name, argument, called_at, key="k") -> Operation:
    return Operation(process, key, name, argument, UNKNOWN_OUTCOME, called_at, None)


def brute_force(history: list[Operation], model: Model) -> bool:
    """Every subset of the unknown ones, every permutation that keeps real-time order."""
    known = [one for one in history if one.is_known]
    maybe = [one for one in history if not one.is_known]
    for count in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, count):
            for order in itertools.permutations([*known, *chosen]):
                if keeps_real_time(order) and is_legal(order, model):
                    return True
    return False


def keeps_real_time(order: tuple[Operation, ...]) -> bool:
    return all(
        later.returned_at is None or later.returned_at >= earlier.called_at
        for position, earlier in enumerate(order)
        for later in order[position + 1 :]
    )


def is_legal(order: tuple[Operation, ...], model: Model) -> bool:
    state = model.initial
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
        argument = {
            "read": None,
            "write": source.randint(0, 2),
            "compare_and_set": (source.choice([None, 0, 1]), source.randint(0, 2)),
            "add": 1,
        }[name]
        answers = {"write": [None], "compare_and_set": [True, False]}.get(name, [None, 0, 1, 2])
        if source.random() < 0.2:
            history.append(unknown(process, name, argument, called_at))
        else:
            returned_at = called_at + source.randint(1, 5)
            history.append(operation(process, name, argument, source.choice(answers), called_at, returned_at))
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


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_brute_force_on_counters(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(60):
        history = random_history(source, ["read", "add"], source.randint(1, 5))
        assert is_linearizable(history, COUNTER) == brute_force(history, COUNTER), history


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
    assert "read() -> 'a' by client 2 can not be explained" in text
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
