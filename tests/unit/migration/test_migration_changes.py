"""What a watch brings, in whatever order: the newest change of each key remains."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.client.answers import WatchEvent
from metasrv.migration.changes import Change, Pending
from metasrv.model.errors import NotDoneError
from metasrv.model.types import SeqV


def put(key: str, seq: int) -> Change:
    return Change(key, seq, SeqV(seq, b"%d" % seq))


def deleted(key: str, seq: int) -> Change:
    return Change(key, seq, None)


def left(*changes: Change) -> list[Change]:
    pending = Pending()
    for change in changes:
        pending.add(change)
    return pending.take(100)


def test_a_deletion_is_newer_than_what_it_deletes_and_older_than_what_follows() -> None:
    assert left(put("a", 3), deleted("a", 3)) == left(deleted("a", 3), put("a", 3)) == [deleted("a", 3)]
    assert left(deleted("a", 3), put("a", 4)) == left(put("a", 4), deleted("a", 3)) == [put("a", 4)]


def test_changes_are_taken_in_the_order_in_which_their_keys_began_to_wait() -> None:
    pending = Pending()
    for change in (put("b", 1), put("a", 2), put("b", 3)):
        pending.add(change)
    assert len(pending) == 2
    assert pending.take(1) == [put("b", 3)]
    pending.add(put("b", 4))
    assert pending.take(9) == [put("a", 2), put("b", 4)]
    assert (pending.take(9), pending.last_seq) == ([], 4)


HISTORY = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20)


@given(history=HISTORY, seed=st.integers(0, 1000), again=st.integers(0, 10))
def test_any_order_and_any_repetition_end_as_the_history_does(
    history: list[tuple[str, bool]], seed: int, again: int
) -> None:
    state: dict[str, int] = {}
    events: list[Change] = []
    for seq, (key, deletes) in enumerate(history, 1):
        if not deletes:
            state[key] = seq
            events.append(put(key, seq))
        elif key in state:
            events.append(deleted(key, state.pop(key)))
    shuffled = random.Random(seed)
    events += shuffled.choices(events, k=again) if events else []
    shuffled.shuffle(events)
    remaining = {change.key: change.record for change in left(*events)}
    assert {key: record.seq for key, record in remaining.items() if record is not None} == state


def test_events_become_changes() -> None:
    pending = Pending()
    old, new = SeqV(1, b"old"), SeqV(2, b"new")
    pending.event(WatchEvent("a", None, old, True))
    pending.event(WatchEvent("", None, None, False, is_marker=True))
    pending.event(WatchEvent("a", old, new, False))
    pending.event(WatchEvent("b", old, None, False))
    assert pending.take(9) == [Change("a", 2, new), Change("b", 1, None)]
    assert (pending.events, pending.last_seq) == (4, 2)
    with pytest.raises(NotDoneError, match="which record of 'c' was deleted"):
        pending.event(WatchEvent("c", None, None, False))
