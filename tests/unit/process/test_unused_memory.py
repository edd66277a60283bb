"""When unused memory is given back: after growth, once it is quiet."""

from __future__ import annotations

import platform
import sys

from metasrv.model.limits import MIB
from metasrv.process.operating_system import resident_size_bytes, return_unused_memory
from metasrv.process.unused_memory import GROWN_SIZE_BYTES, QUIET_LOOKS, QUIET_SIZE_BYTES, UnusedMemory

BASE = 70 * MIB


def looks(memory: UnusedMemory, *sizes: int) -> list[bool]:
    return [memory.is_due(size) for size in sizes]


def quiet(memory: UnusedMemory, size: int) -> list[bool]:
    return looks(memory, *[size] * QUIET_LOOKS)


def test_memory_goes_back_once_it_has_grown_and_is_quiet() -> None:
    memory = UnusedMemory()
    large = BASE + GROWN_SIZE_BYTES
    assert looks(memory, BASE, large) == [False, False]
    for change in (QUIET_SIZE_BYTES, 0):
        assert looks(memory, large, large, large + change) == [False, False, change == 0]
        assert looks(memory, large) == [change == 0], "larger requests go on"
    assert memory.is_due(large + QUIET_SIZE_BYTES - 1)


def test_a_node_that_was_large_at_its_first_look_is_left_alone() -> None:
    assert not any(quiet(UnusedMemory(), BASE + 10 * GROWN_SIZE_BYTES))


def test_a_smaller_growth_is_left_alone() -> None:
    memory = UnusedMemory()
    almost = BASE + GROWN_SIZE_BYTES - 1
    assert not any([*looks(memory, BASE, almost), *quiet(memory, almost)])
    assert memory.is_due(almost + 1) is False, "too little has changed"
    assert looks(memory, almost + 1 + QUIET_SIZE_BYTES)[0] is False
    assert quiet(memory, almost + 1 + QUIET_SIZE_BYTES)[-1] is True


def test_what_is_left_is_looked_for_ever_more_seldom_until_much_has_changed() -> None:
    """It may be in use; or it was freed a moment after it was looked for, which the size of the process does not show."""
    memory = UnusedMemory()
    used = BASE + 10 * GROWN_SIZE_BYTES
    assert not any(looks(memory, BASE, used))
    assert quiet(memory, used)[-1]
    for looks_needed in (2 * QUIET_LOOKS, 4 * QUIET_LOOKS, 8 * QUIET_LOOKS):
        memory.given_back(used - 5)
        assert looks(memory, *[used - 5] * looks_needed) == [*[False] * (looks_needed - 1), True]
    memory.given_back(used - 5)
    memory.is_due(used + GROWN_SIZE_BYTES)
    assert quiet(memory, used + GROWN_SIZE_BYTES)[-1], "after growth as soon as at first"


def test_the_system_is_asked() -> None:
    size_bytes = resident_size_bytes()
    assert size_bytes is not None if sys.platform == "linux" else size_bytes is None
    assert size_bytes is None or 5 * MIB < size_bytes < 100_000 * MIB
    assert return_unused_memory() == (platform.libc_ver()[0] == "glibc")
