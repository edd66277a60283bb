"""From stamps to stages: what a request waited for, without gaps, and what it was waiting for when it failed."""

from __future__ import annotations

from metasrv.tracing.times import BatchTimes, RequestTimes, Stage


def written() -> RequestTimes:
    """A write on the leader: each stage takes a millisecond more than the one before."""
    times = RequestTimes(1.000)
    times.asked_at = 1.001
    times.submit(1.003)
    times.batch = BatchTimes(70, 5, 1.006)
    times.batch.synced_at, times.batch.committed_at, times.batch.applied_at = 1.010, 1.015, 1.021
    return times


def milliseconds(times: RequestTimes, ended_at: float) -> dict[str, int]:
    return {stage: round((ended - began) * 1000) for stage, began, ended in times.stages(ended_at)}


def test_the_stages_of_a_write_have_no_gaps() -> None:
    stages = written().stages(1.028)
    assert [stage for stage, _, _ in stages] == [
        Stage.QUEUE,
        Stage.LEADER,
        Stage.BATCH,
        Stage.SYNC,
        Stage.PEERS,
        Stage.APPLY,
        Stage.ANSWER,
    ]
    assert [began for _, began, _ in stages[1:]] == [ended for _, _, ended in stages[:-1]]
    assert milliseconds(written(), 1.028) == {
        "queue": 1,
        "leader": 2,
        "batch": 3,
        "sync": 4,
        "peers": 5,
        "apply": 6,
        "answer": 7,
    }


def test_a_request_that_failed_was_waiting_for_its_last_stage() -> None:
    times = RequestTimes(1.0)
    times.asked_at = 1.001
    assert milliseconds(times, 2.8) == {"queue": 1, "leader": 1799}
    times.submit(1.002)
    assert milliseconds(times, 2.0)["batch"] == 998
    times.batch = BatchTimes(70, 5, 1.003)
    assert milliseconds(times, 2.0)["sync"] == 997
    times.batch.synced_at = 1.004
    assert milliseconds(times, 2.0)["peers"] == 996


def test_a_forwarded_write_waits_for_the_other_node() -> None:
    times = RequestTimes(1.0)
    times.asked_at = 1.001
    times.forward(1.002, 3)
    assert milliseconds(times, 1.5) == {"queue": 1, "leader": 1, "forward": 498}
    times.answered_at = 1.4
    assert milliseconds(times, 1.5) == {"queue": 1, "leader": 1, "forward": 398, "answer": 100}


def test_what_this_node_does_itself_after_all_is_not_the_other_nodes() -> None:
    times = written()
    times.forward(1.5, 3)
    assert times.forwarded_to == 3
    times.submit(1.6)
    assert times.forwarded_to is None
    assert "forward" not in milliseconds(times, 2.0)


def test_the_stages_of_a_read() -> None:
    times = RequestTimes(1.0)
    times.asked_at = 1.001
    times.read(1.002)
    assert milliseconds(times, 1.1) == {"queue": 1, "leader": 1, "peers": 98}
    times.confirmed_at, times.answered_at = 1.010, 1.020
    assert milliseconds(times, 1.1) == {"queue": 1, "leader": 1, "peers": 8, "apply": 10, "answer": 80}


def test_a_request_without_consensus_is_answered_by_this_node_alone() -> None:
    assert milliseconds(RequestTimes(1.0), 1.25) == {"answer": 250}


def test_stages_never_take_less_than_no_time() -> None:
    times = written()
    assert times.batch is not None
    times.batch.synced_at = 1.0
    assert min(ended - began for _, began, ended in times.stages(1.028)) == 0.0
