"""What is refused or cut off: a line for each kind within a time, with a count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import pytest

from metasrv.admin.cut_offs import REPORT_SECONDS, CountedWarnings, CutOffs


class HandLoop:
    """A loop whose timers run by hand."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> HandLoop:
        self.timers.append((seconds, callback))
        return self

    def cancel(self) -> None:
        """As a timer's."""


def test_each_kind_is_a_line_when_the_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    hand, cut_offs = HandLoop(), CutOffs("the admin API")
    loop = cast(asyncio.AbstractEventLoop, hand)
    for kind in ("b", "a", "b"):
        cut_offs.add(loop, kind)
    assert caplog.messages == []
    ((seconds, report),) = hand.timers
    assert seconds == REPORT_SECONDS
    report()
    assert caplog.messages == ["the admin API, 2 times within 10 s: b", "the admin API, 1 times within 10 s: a"]
    report()
    cut_offs.add(loop, "a")
    assert len(hand.timers) == 2
    assert len(caplog.messages) == 2


def test_warnings_of_the_library_are_counted_and_its_errors_are_written(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[str] = []
    logger = CountedWarnings(logging.getLogger("uvicorn.error"), counted.append)
    logger.warning("Invalid HTTP request received.")
    logger.warning("Unsupported upgrade request.")
    logger.warning("No supported WebSocket library detected. Please use another.")
    logger.warning("Something else.")
    assert counted == ["what was sent is not HTTP", "a request asked for another protocol", "Something else."]
    assert caplog.messages == []
    logger.error("written")
    assert caplog.messages == ["written"]
    assert logger.level == logging.getLogger("uvicorn.error").level
