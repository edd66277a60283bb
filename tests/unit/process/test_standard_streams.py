"""Standard streams that are closed, full, or not read: lines are left out, and nothing waits for long."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from metasrv.process.standard_streams import PATIENCE_SECONDS, STANDARD_ERROR, StandardErrorHandler, say, write_now


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test has closed it


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None)


def test_what_a_stream_takes_is_written_whole(pipe: tuple[int, int]) -> None:
    data = bytes(range(256)) * 40
    assert write_now(pipe[1], data) == len(data)
    assert os.read(pipe[0], 20_000) == data


def test_a_pipe_that_nobody_reads_takes_what_fits_and_holds_nobody_up(pipe: tuple[int, int]) -> None:
    data = b"x" * 10_000_000
    written = write_now(pipe[1], data)
    assert 0 < written < len(data)
    assert write_now(pipe[1], b"more") == 0


def test_a_pipe_without_a_reader_and_a_closed_stream_take_nothing(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    assert write_now(pipe[1], b"text") == 0
    os.close(pipe[1])
    assert write_now(pipe[1], b"text") == 0
    say("text", pipe[1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_takes_nothing() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        assert write_now(descriptor, b"text") == 0
        say("text", descriptor)
    finally:
        os.close(descriptor)


class _Stream:
    """Takes `room` bytes of each line; remembers what it took and how long the writer would have waited."""

    def __init__(self) -> None:
        self.room = 1_000
        self.taken = b""
        self.patience: list[float] = []

    def write(self, descriptor: int, data: bytes, patience_seconds: float) -> int:
        assert descriptor == STANDARD_ERROR
        self.patience.append(patience_seconds)
        self.taken += data[: self.room]
        return min(len(data), self.room)


def test_log_lines_wait_once_for_a_reader_and_go_on_when_it_reads_again() -> None:
    stream = _Stream()
    handler = StandardErrorHandler(stream.write)
    handler.emit(record("one"))
    stream.room = 2
    handler.emit(record("two"))
    stream.room = 0
    handler.emit(record("three"))
    stream.room = 1_000
    handler.emit(record("four"))
    handler.emit(record("five"))
    assert stream.taken == b"one\ntw\nfour\nfive\n", "a torn line does not run into the next"
    assert stream.patience == [PATIENCE_SECONDS, PATIENCE_SECONDS, 0.0, 0.0, PATIENCE_SECONDS]
