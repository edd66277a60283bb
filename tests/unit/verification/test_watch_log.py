"""The checks of watch streams: correct ones pass; a gap, a duplicate, a wrong order and a false change are found."""

from __future__ import annotations

import pytest

from metasrv.testing.store import Written
from verification.watch_log import Change, WatchedStream, disagreements, replay, wrong_watches


def stream(*changes: Change, node_id: int = 1, existing: dict[str, int] | None = None) -> WatchedStream:
    made = WatchedStream(node_id)
    for key, seq in sorted((existing or {}).items()):
        made.existing(key, seq, b"v")
    made.marker()
    for change in changes:
        made.changed(change)
    return made


def put(key: str, prev_seq: int | None, seq: int) -> Change:
    return Change(key, prev_seq, seq, b"v")


def delete(key: str, prev_seq: int) -> Change:
    return Change(key, prev_seq, None, b"")


GOOD = [put("a", 1, 3), put("b", None, 4), delete("a", 3), put("a", None, 5)]


def test_a_right_stream_leads_to_the_state() -> None:
    records, problems = replay(stream(*GOOD, existing={"a": 1, "z": 2}))
    assert problems == []
    assert records == {"a": (5, b"v"), "b": (4, b"v"), "z": (2, b"v")}
    final = dict(records)
    assert wrong_watches([stream(*GOOD, existing={"a": 1, "z": 2})], final, [], [1]) == []


BAD = {
    "a gap": [GOOD[0], put("b", None, 6)],
    "a duplicate": [GOOD[0], GOOD[1], GOOD[1]],
    "out of order": [put("b", None, 4), put("c", None, 3)],
    "the stream had left it at": [put("a", 2, 3)],
    "had left it at absent": [delete("q", 9)],
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_stream_is_found(what: str) -> None:
    _, problems = replay(stream(*BAD[what], existing={"a": 1}))
    assert any(what in problem for problem in problems), problems


def test_a_delete_that_was_left_out_shows_in_the_next_change_of_its_key() -> None:
    _, problems = replay(stream(GOOD[0], GOOD[1], put("a", None, 5), existing={"a": 1}))
    assert problems == ["watch on node 1: 'a' from absent to 5, but the stream had left it at 3"]


def test_a_delete_that_was_left_out_at_the_end_shows_in_the_state() -> None:
    [problem] = wrong_watches([stream(GOOD[0], GOOD[1], existing={"a": 1})], {"b": (4, b"v")}, [], [1])
    assert "leads to another state than the nodes hold: ['a']" in problem


def test_a_stream_that_ended_need_not_lead_to_the_state() -> None:
    early = stream(GOOD[0], existing={"a": 1})
    early.end = "the node was killed"
    late = stream(existing={"a": 5, "b": 4})
    assert wrong_watches([early, late], {"a": (5, b"v"), "b": (4, b"v")}, [], [1]) == []


def test_two_orders_of_the_same_changes_are_found() -> None:
    one, other = stream(*GOOD), stream(GOOD[0], GOOD[1], GOOD[3], node_id=2)
    [problem] = disagreements([one, other])
    assert problem == "after 'b' from absent to 4 node 1 told of 'a' from 3 to absent, node 2 of 'a' from absent to 5"


def test_streams_that_begin_and_end_at_different_moments_agree() -> None:
    assert disagreements([stream(*GOOD[:3]), stream(*GOOD[1:], node_id=2), stream(GOOD[2], node_id=3)]) == []


def test_a_change_before_the_marker_and_a_flush_out_of_order_are_found() -> None:
    made = WatchedStream(1)
    made.existing("b", 2, b"v")
    made.existing("a", 1, b"v")
    made.changed(put("c", None, 3))
    made.marker()
    made.marker()
    _, problems = replay(made)
    assert len(problems) == 3
    for text, problem in zip(("out of order", "before the marker", "second"), problems, strict=True):
        assert text in problem


def test_an_acknowledged_write_that_the_watches_tell_otherwise_is_found() -> None:
    final = {"a": (5, b"v"), "b": (4, b"v")}
    [problem] = wrong_watches([stream(*GOOD, existing={"a": 1})], final, [Written("x", 4, 0.0, 1.0)], [1])
    assert "write 4 was acknowledged for 'x'" in problem
