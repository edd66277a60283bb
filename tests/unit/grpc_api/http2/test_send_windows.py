"""The windows of a connection: what changes them costs the same with one stream and with thousands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.grpc_api.http2 import frames as f
from metasrv.grpc_api.http2.frames import ErrorCode, Http2ConnectionError
from metasrv.grpc_api.http2.send_windows import SendWindows, WaitingSender


class Stream:
    """The sending half of a stream that holds data back."""

    waits = True

    def __init__(self, granted_bytes: int = 0) -> None:
        self.granted_bytes = granted_bytes

    def pump(self) -> None:
        raise AssertionError("the windows never send")


def test_a_change_of_the_initial_window_looks_at_no_stream() -> None:
    windows = SendWindows()

    def senders() -> list[WaitingSender]:
        raise AssertionError("no stream is near the limit")

    for value_bytes in (0, 1, 2**20, 2**31 - 1, 5):
        assert windows.change_initial(value_bytes, senders) == 0
    assert windows.initial_bytes == 5


def test_streams_without_a_window_are_not_served_until_they_have_one() -> None:
    windows = SendWindows()
    streams = {number: Stream(-f.WINDOW_SIZE_BYTES_DEFAULT) for number in range(1, 2001, 2)}
    for number, stream in streams.items():
        windows.hold(number, stream)
    assert (len(windows.ready), len(windows.blocked)) == (0, 1000)
    assert windows.grow_stream(streams[5], 10)
    windows.hold(5, streams[5])
    assert list(windows.ready) == [5]
    windows.grow(1000)
    assert list(windows.ready) == [5], "the connection's window alone lets no stream send"
    assert windows.change_initial(f.WINDOW_SIZE_BYTES_DEFAULT + 1, list) == 999
    assert len(windows.ready) == 1000
    windows.remove(5)
    assert 5 not in windows.ready


def test_windows_that_grow_too_large() -> None:
    windows = SendWindows()
    stream = Stream()
    assert windows.grow_stream(stream, 2**31 - 1 - windows.initial_bytes)
    assert not windows.grow_stream(stream, 1)
    with pytest.raises(Http2ConnectionError) as caught:
        windows.change_initial(f.WINDOW_SIZE_BYTES_DEFAULT + 1, lambda: [stream])
    assert caught.value.code is ErrorCode.FLOW_CONTROL_ERROR
    assert windows.change_initial(2**31 - 1, list) == 0, "the stream is gone, and so is its window"
    with pytest.raises(Http2ConnectionError, match="grows by 0"):
        windows.grow(0)
    with pytest.raises(Http2ConnectionError, match="grows by"):
        windows.grow(2**31 - 1)


@given(st.lists(st.tuples(st.sampled_from(["initial", "stream", "send"]), st.integers(0, 3), st.integers(0, 70_000))))
def test_the_window_of_a_stream_is_what_adding_every_change_gives(changes: list[tuple[str, int, int]]) -> None:
    windows = SendWindows()
    streams = [Stream() for _ in range(4)]
    model = [f.WINDOW_SIZE_BYTES_DEFAULT] * 4
    initial = f.WINDOW_SIZE_BYTES_DEFAULT
    for kind, number, size_bytes in changes:
        if kind == "initial":
            model = [window + size_bytes - initial for window in model]
            initial = size_bytes
            windows.change_initial(size_bytes, lambda: list(streams))
        elif kind == "stream":
            model[number] += size_bytes
            assert windows.grow_stream(streams[number], size_bytes)
        else:
            model[number] -= size_bytes
            streams[number].granted_bytes -= size_bytes
        assert [windows.initial_bytes + stream.granted_bytes for stream in streams] == model
