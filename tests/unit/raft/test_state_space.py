"""Free space of the state file goes back while the node serves: when it begins, how it is paced, where it ends."""

from __future__ import annotations

from metasrv.model.limits import MIB, STATE_FREE_SIZE_BYTES_KEPT
from metasrv.raft.state_space import ASKED_SIZE_BYTES_KEPT, PAGES_MAX, PAGES_MIN, StateSpace


class Parts:
    """Machine, clock and state log in one."""

    def __init__(self, free_bytes: int, size_bytes: int) -> None:
        self.free_bytes, self.size_bytes = free_bytes, size_bytes
        self.now = 10.0
        self.slice_seconds = 0.0005
        self.takes_no_more = False
        self.slices: list[int] = []
        self.moves = self.cuts = 0
        self.written = 0
        self.space = StateSpace(machine=self, clock=self, state_log=self)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def free_size_bytes(self) -> tuple[int, int]:
        return self.free_bytes, self.size_bytes

    def give_back_space(self, pages: int) -> None:
        self.slices.append(pages)
        self.now += self.slice_seconds
        given = min(pages * 4096, self.free_bytes)
        self.free_bytes -= given
        self.size_bytes -= given

    def shortened(self, size_bytes: int) -> None:
        self.written += size_bytes

    def move_soon(self, *, cut: bool = False) -> None:
        self.moves += 1
        self.cuts += cut

    def serve(self, seconds: float) -> None:
        """Steps every 25 ms, as the driver's timer makes them."""
        until = self.now + seconds
        while self.now < until:
            self.space.consider()
            self.now += 0.025


def test_a_file_that_is_mostly_free_gets_short_and_its_log_is_moved() -> None:
    parts = Parts(64 * MIB, 65 * MIB)
    parts.serve(20)
    assert parts.free_bytes <= STATE_FREE_SIZE_BYTES_KEPT // 2
    assert parts.moves == 1
    assert parts.written == sum(parts.slices) * 4096
    assert parts.slices[0] == PAGES_MIN
    assert max(parts.slices) == PAGES_MAX
    count = len(parts.slices)
    parts.serve(5)
    assert len(parts.slices) == count


def test_a_little_free_space_stays() -> None:
    for free_bytes, size_bytes in ((STATE_FREE_SIZE_BYTES_KEPT, 2 * MIB), (20 * MIB, 100 * MIB)):
        parts = Parts(free_bytes, size_bytes)
        parts.serve(5)
        assert (parts.slices, parts.moves) == ([], 0)
    parts = Parts(STATE_FREE_SIZE_BYTES_KEPT + 4096, 2 * MIB)
    parts.serve(5)
    assert parts.slices, "one page more than the limit"


def test_slow_slices_get_smaller() -> None:
    parts = Parts(64 * MIB, 65 * MIB)
    parts.serve(5)
    parts.slice_seconds = 0.004
    parts.serve(1)
    assert parts.slices[-1] == PAGES_MIN


def test_nothing_is_given_back_while_the_log_begins_anew() -> None:
    parts = Parts(64 * MIB, 65 * MIB)
    parts.takes_no_more = True
    parts.serve(5)
    assert parts.slices == []


def test_an_operator_gets_nearly_all_of_it_once() -> None:
    parts = Parts(MIB // 2, 100 * MIB)
    parts.serve(5)
    assert parts.slices == [], "by itself that is not worth the work"
    parts.space.ask()
    assert not parts.space.is_over()
    parts.serve(10)
    assert parts.space.is_over()
    assert parts.free_bytes <= ASKED_SIZE_BYTES_KEPT
    assert (parts.moves, parts.cuts) == (1, 1)
    parts.free_bytes = MIB // 2
    parts.serve(5)
    assert parts.free_bytes == MIB // 2
