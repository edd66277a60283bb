"""What is remembered of closed streams is bounded, and forgetting makes a client no worse off."""

from __future__ import annotations

import pytest

from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError
from metasrv.grpc_api.http2.stream_history import CUT_STREAMS_MAX, SKIPPED_RANGES_MAX, StreamHistory


def refusal(history: StreamHistory, stream_id: int, *, opens: bool = True) -> ErrorCode | None:
    """The connection error that a request frame on a closed stream leads to, None when it is ignored."""
    try:
        history.check_request_frame(stream_id, opens=opens, ended=False)
    except Http2ConnectionError as error:
        return error.code
    return None


def with_cut_streams(count: int) -> StreamHistory:
    history = StreamHistory()
    for number in range(count):
        history.open(2 * number + 1)
        history.cut(2 * number + 1)
    history.open(2 * count + 1)
    return history


def test_streams_that_the_server_ended_are_remembered() -> None:
    history = with_cut_streams(CUT_STREAMS_MAX)
    assert refusal(history, 1) is None
    assert refusal(history, 2 * CUT_STREAMS_MAX + 1) is ErrorCode.STREAM_CLOSED
    history.client_ended(1)
    assert refusal(history, 1) is ErrorCode.STREAM_CLOSED
    history.check_request_frame(3, opens=False, ended=True)
    assert refusal(history, 3) is ErrorCode.STREAM_CLOSED, "the client ended it"


def test_past_the_limit_the_oldest_are_ignored_all_the_same() -> None:
    history = with_cut_streams(CUT_STREAMS_MAX + 1)
    history.client_ended(1)
    assert refusal(history, 1) is None, "it was forgotten, so nothing is known about it"
    assert refusal(history, 3) is None


def test_numbers_that_were_left_out_cannot_be_opened_later() -> None:
    history = StreamHistory()
    for number in range(SKIPPED_RANGES_MAX + 1):
        history.open(4 * number + 3)
    assert refusal(history, 5) is ErrorCode.PROTOCOL_ERROR
    assert refusal(history, 5, opens=False) is ErrorCode.STREAM_CLOSED
    assert refusal(history, 1) is ErrorCode.STREAM_CLOSED, "the oldest range is forgotten"
    with pytest.raises(Http2ConnectionError):
        history.check_not_idle(4 * SKIPPED_RANGES_MAX + 5)
    history.check_not_idle(4 * SKIPPED_RANGES_MAX + 3)
