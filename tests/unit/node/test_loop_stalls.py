"""The line about an event loop that stood still: how long, with which work, and how often it is said."""

from __future__ import annotations

import pytest

from metasrv.model.loop_work import LoopWork
from metasrv.node.loop_stalls import FOLD_SECONDS, LoopStalls


class Loop:
    """A loop whose steps and processor time the test sets."""

    def __init__(self) -> None:
        self.slow_seconds = dict.fromkeys(LoopWork, 0.0)
        self.used_seconds = 0.0
        self.stalls = LoopStalls(2, self.slow_seconds, lambda: self.used_seconds)

    def beat(self, now: float, late_seconds: float, used_seconds: float = 0.0, work: LoopWork | None = None) -> None:
        self.used_seconds += used_seconds
        if work is not None:
            self.slow_seconds[work] += late_seconds
        self.stalls.beat(now, late_seconds)


def test_a_stall_is_said_with_the_work_that_took_it(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    loop.beat(1.0, 0.49, 0.49)
    loop.beat(20.0, 1.24, 1.2, LoopWork.RAFT_APPLY)
    loop.beat(40.0, 2.0, 0.1, LoopWork.RAFT_APPLY)
    loop.beat(60.0, 3.0, 0.01)
    loop.beat(80.0, 1.0, 0.9)
    stood = "the event loop stood still for"
    assert caplog.messages == [
        f"{stood} 1,240 ms: raft_apply took 1,240 ms",
        f"{stood} 2,000 ms: raft_apply took 2,000 ms, mostly waiting for the disk or a processor",
        f"{stood} 3,000 ms: the process was stopped, or got no processor",
        f"{stood} 1,000 ms: the process used the processor for 900 ms, with work that is not timed",
    ]
    assert vars(caplog.records[0])["node"] == 2


def test_stalls_in_a_row_are_folded_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    for number in range(4):
        loop.beat(1.0 + number, 0.6)
    loop.beat(1.0 + FOLD_SECONDS, 0.6)
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith("(and 3 times more since the last line, 1,800 ms together)")
