"""The line of a slow request: what it says, what it never says, and how many there are in a storm."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from metasrv.model.limits import SLOW_REQUEST_KEY_CHARACTERS_MAX, SLOW_REQUEST_LINES_PER_SECOND_MAX
from metasrv.process.logs_lines import JsonFormatter, TextFormatter
from metasrv.tracing.request_ids import Header
from metasrv.tracing.slow_requests import shown_key
from metasrv.tracing.times import CURRENT, BatchTimes, RequestEnd, RequestTimes
from metasrv.tracing.watch import RequestWatch


def nothing_named(_name: str) -> None:
    return None


def watch(slow_ms: int = 1000) -> RequestWatch:
    made = RequestWatch(2, lambda: 9)
    made.set_slow_ms(slow_ms)
    return made


def write(
    watched: RequestWatch, seconds: float, outcome: str = "ok", header: Header = nothing_named, **known: Any
) -> None:
    """A write on this node, the leader, most of whose time is in the sync."""
    times = watched.begin(100.0, "Transaction", header)
    if times is None:
        return
    times.asked_at = 100.001
    times.submit(100.001)
    times.batch = BatchTimes(70, 5, 100.002)
    times.batch.synced_at = 100.0 + seconds - 0.003
    times.batch.committed_at, times.batch.applied_at = 100.0 + seconds - 0.002, 100.0 + seconds - 0.001
    given: dict[str, Any] = {"client": lambda: "10.0.0.7:4711", "key": lambda: shown_key("a/b"), **known}
    watched.end(times, 100.0 + seconds, lambda: RequestEnd(method="Transaction", outcome=outcome, **given))


async def test_a_line_says_who_asked_for_what_and_where_the_time_went(caplog: pytest.LogCaptureFixture) -> None:
    write(watch(), 1.5, user="reporter", header={"x-request-id": "req-17"}.get)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "metasrv.slow_requests"
    assert TextFormatter(lambda line: line).format(record).partition(": ")[2] == (
        "a request took 1,500 ms, 1,495 of them in sync method=Transaction request_id=req-17 node=2 term=5 "
        'key="a/b" client=10.0.0.7:4711 user=reporter outcome=ok log_index=70 total_ms=1500.0 '
        "queue_ms=1.0 batch_ms=1.0 sync_ms=1495.0 peers_ms=1.0 apply_ms=1.0 answer_ms=1.0"
    )
    assert json.loads(JsonFormatter(lambda line: line).format(record))["sync_ms"] == 1495.0


async def test_a_quick_request_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    write(watch(), 0.999)
    assert caplog.messages == []


async def test_the_key_and_the_rest_are_asked_for_only_when_it_is_slow() -> None:
    watched = watch()
    times = watched.begin(100.0, "Transaction", nothing_named)
    assert times is not None
    watched.end(times, 100.5, lambda: pytest.fail("nobody needs it"))


async def test_off_is_off(caplog: pytest.LogCaptureFixture) -> None:
    watched = watch(0)
    assert not watched.on
    assert watched.begin(100.0, "Transaction", nothing_named) is None
    assert CURRENT.get() is None
    watched.set_slow_ms(10)
    write(watched, 0.02)
    assert len(caplog.messages) == 1, "and on again, while it runs"


async def test_a_forwarded_write_names_the_node_that_it_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    watched = watch()
    times = watched.begin(100.0, "Transaction", nothing_named)
    assert times is not None
    times.asked_at = 100.0
    times.forward(100.0, 3)
    watched.end(times, 102.0, lambda: RequestEnd(method="Transaction", outcome="unknown_outcome"))
    assert caplog.messages == ["a request took 2,000 ms, 2,000 of them waiting for node 3"]
    fields = vars(caplog.records[0])
    assert (fields["outcome"], fields["forwarded_to"], fields["term"]) == ("unknown_outcome", 3, 9)
    assert "log_index" not in fields


async def test_a_request_has_an_id_of_its_own_unless_the_client_gives_one(caplog: pytest.LogCaptureFixture) -> None:
    watched = watch()
    write(watched, 2.0)
    write(watched, 2.0)
    first, second = (vars(record)["request_id"] for record in caplog.records)
    assert first != second
    assert first.startswith("2-")


async def test_a_storm_is_folded_with_the_count_of_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    watched = watch()
    for number in range(SLOW_REQUEST_LINES_PER_SECOND_MAX + 1_000):
        write(watched, 1.0 + number / 1000)
    assert len(caplog.messages) == SLOW_REQUEST_LINES_PER_SECOND_MAX
    await watched.close()
    assert caplog.messages[SLOW_REQUEST_LINES_PER_SECOND_MAX:] == [
        "1000 more slow requests within this second have no line of their own, the slowest was Transaction with 2,009 ms"
    ]
    write(watched, 2.0)
    assert len(caplog.messages) == SLOW_REQUEST_LINES_PER_SECOND_MAX + 2, "the next second has lines again"


def test_a_key_is_cut_and_cannot_write_lines_or_obey_terminals() -> None:
    long = "k" * SLOW_REQUEST_KEY_CHARACTERS_MAX
    assert shown_key(long + "x") == f'"{long}"…'
    assert shown_key('a" outcome=ok\n\x1b[31m\u2028ä') == r'"a\" outcome=ok\n\u001b[31m\u2028\u00e4"'
    assert shown_key("") == ""


def test_a_request_sets_no_stamp_that_it_has_not_reached() -> None:
    assert vars(RequestTimes(1.0)) == {"started_at": 1.0}
