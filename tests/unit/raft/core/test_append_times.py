"""Append latency: from sending entries to the acknowledgement of their last one."""

from __future__ import annotations

from metasrv.raft.core.append_times import AppendTimes
from metasrv.raft.core.messages import AppendEntries, AppendReply


def entries(*indexes: int) -> AppendEntries:
    return AppendEntries(1, 0, 0, 0, tuple((b"x", index, 1) for index in indexes), 0)


def reply(next_index: int, success: bool = True) -> AppendReply:
    return AppendReply(1, next_index, success, not success, 0)


def test_only_the_acknowledgement_of_the_last_entry_counts() -> None:
    observed: list[tuple[int, float]] = []
    times = AppendTimes(lambda node_id, seconds: observed.append((node_id, seconds)))
    times.sent(2, entries(5, 6), 10.0)
    times.sent(2, entries(7), 10.5)  # one message at a time is timed
    times.sent(3, entries(), 10.0)  # a heartbeat
    times.answered(3, reply(5), 10.5)
    times.answered(2, reply(6), 11.0)
    assert observed == []
    times.answered(2, reply(7), 12.0)
    times.answered(2, reply(8), 12.5)
    assert observed == [(2, 2.0)]


def test_entries_that_did_not_fit_or_were_sent_in_an_earlier_leadership_are_not_timed() -> None:
    observed: list[tuple[int, float]] = []
    times = AppendTimes(lambda node_id, seconds: observed.append((node_id, seconds)))
    times.sent(2, entries(5), 10.0)
    times.answered(2, reply(3, success=False), 10.5)
    times.answered(2, reply(6), 11.0)
    times.sent(2, entries(6), 12.0)
    times.forget()
    times.answered(2, reply(7), 13.0)
    assert observed == []
