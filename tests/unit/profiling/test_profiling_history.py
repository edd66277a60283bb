"""What is kept of earlier moments: the minutes of the continuous profile, and memory captures to compare with."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest

from metasrv.model.limits import (
    CAPTURE_SIZE_BYTES_MAX,
    CAPTURE_STACKS_MAX,
    CAPTURES_KEPT_MAX,
    CONTINUOUS_FRAMES_KNOWN_MAX,
    CONTINUOUS_MINUTES_MAX,
    CONTINUOUS_STACK_FRAMES_MAX,
    CONTINUOUS_STACKS_MAX,
)
from metasrv.profiling import captures as captures_module
from metasrv.profiling import continuous as continuous_module
from metasrv.profiling.captures import OTHER_STACKS, Captures, pack, paired, unpack
from metasrv.profiling.continuous import MINUTE_MS, ContinuousProfile, samples_of
from metasrv.profiling.profile import ProfilingError, Subject, UnknownCaptureError
from metasrv.profiling.sampler import IN_PROCESS_SAMPLING
from metasrv.profiling.stacks import Frame, StackSample

NOON_MS = 1_795_860_000_000
LOOP_WAITS = (Frame("MainThread"), Frame("Runner.run", "asyncio/runners.py", 118))
THREAD_WAITS = (Frame("helper"), Frame("_worker", "concurrent/futures/thread.py", 81))


def stack(name: str) -> tuple[Frame, ...]:
    return Frame("MainThread"), Frame(name, "app.py", 1)


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def profile(wall: Wall) -> ContinuousProfile:
    return ContinuousProfile(1, wall)


def look(profile: ContinuousProfile, *busy: tuple[Frame, ...], waiting: Sequence[tuple[Frame, ...]] = ()) -> None:
    profile.take([*((True, one) for one in busy), *((False, one) for one in waiting)])


# ----------------------------------------------------------------------------- minutes


def test_looks_are_counted_by_minutes_of_the_wall_clock(profile: ContinuousProfile, wall: Wall) -> None:
    look(profile, stack("apply"), waiting=[THREAD_WAITS])
    wall.now_ms += MINUTE_MS - 1
    look(profile, stack("apply"))
    look(profile, waiting=[LOOP_WAITS, THREAD_WAITS])
    wall.now_ms += 1
    look(profile, stack("send"))
    first, second = profile.minutes()
    assert (first.start_ms, first.looks, first.busy_looks) == (NOON_MS, 3, 2)
    assert (second.start_ms, second.looks, second.busy_looks) == (NOON_MS + MINUTE_MS, 1, 1)
    assert first.stacks[stack("apply")] == 2
    assert samples_of([first], idle=False) == [StackSample(stack("apply"), (2,))]
    both = {sample.frames: sample.values for sample in samples_of([first, second], idle=True)}
    assert both == {stack("apply"): (2,), THREAD_WAITS: (2,), LOOP_WAITS: (1,), stack("send"): (1,)}


def test_a_minute_that_was_read_does_not_change(profile: ContinuousProfile) -> None:
    look(profile, stack("apply"))
    (before,) = profile.minutes()
    look(profile, stack("apply"))
    assert (before.looks, dict(before.stacks)) == (1, {stack("apply"): 1})


def test_ten_minutes_and_the_one_under_way_are_kept(profile: ContinuousProfile, wall: Wall) -> None:
    for _ in range(CONTINUOUS_MINUTES_MAX + 3):
        look(profile, stack("apply"))
        wall.now_ms += MINUTE_MS
    kept = profile.minutes()
    assert len(kept) == CONTINUOUS_MINUTES_MAX == 11
    assert kept[0].start_ms == NOON_MS + 3 * MINUTE_MS


def test_a_clock_that_goes_back_begins_a_minute_of_its_own(profile: ContinuousProfile, wall: Wall) -> None:
    look(profile, stack("apply"))
    wall.now_ms -= 10 * MINUTE_MS
    look(profile, stack("send"))
    assert [one.start_ms for one in profile.minutes()] == [NOON_MS, NOON_MS - 10 * MINUTE_MS]


def test_distinct_stacks_of_a_minute_are_limited(profile: ContinuousProfile) -> None:
    for number in range(CONTINUOUS_STACKS_MAX + 5):
        look(profile, stack(f"f{number}"))
    look(profile, stack("f0"))
    (minute,) = profile.minutes()
    assert len(minute.stacks) == CONTINUOUS_STACKS_MAX + 1
    assert minute.stacks[continuous_module.OTHER_STACKS] == 5
    assert minute.stacks[stack("f0")] == 2


def test_a_time_names_the_minutes_that_it_touches(profile: ContinuousProfile, wall: Wall) -> None:
    for _ in range(3):
        look(profile, stack("apply"))
        wall.now_ms += MINUTE_MS

    def found(from_ms: int, to_ms: int) -> list[int]:
        return [(one.start_ms - NOON_MS) // MINUTE_MS for one in profile.between(from_ms, to_ms)]

    assert found(NOON_MS, NOON_MS + MINUTE_MS) == [0]
    assert found(NOON_MS + MINUTE_MS - 1, NOON_MS + MINUTE_MS + 1) == [0, 1]
    assert found(0, 2**64) == [0, 1, 2]
    assert found(NOON_MS - MINUTE_MS, NOON_MS) == []


# ----------------------------------------------------------------------------- looking


def deep(depth: int, done: threading.Event, begun: threading.Event) -> None:
    if depth:
        deep(depth - 1, done, begun)
    else:
        begun.set()
        done.wait()


def seen_while_a_thread_is_deep(profile: ContinuousProfile, depth: int) -> list[tuple[Frame, ...]]:
    done, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=deep, args=(depth, done, begun), name="deep_7")
    thread.start()
    try:
        begun.wait()
        profile._look()
        profile._look()
        return [frames for frames in profile.minutes()[0].stacks if frames[0] == Frame("deep")]
    finally:
        done.set()
        thread.join()


def test_a_look_sees_the_other_threads_by_name(profile: ContinuousProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous_module, "MEETING_SECONDS", 0)
    (seen,) = seen_while_a_thread_is_deep(profile, 3)
    assert [frame.function for frame in seen[-6:]] == ["deep"] * 4 + ["Event.wait", "Condition.wait"]
    assert seen[-3].module == __name__
    assert profile.minutes()[0].looks == 2
    assert all(frames[0] != Frame(threading.current_thread().name) for frames in profile.minutes()[0].stacks)


def test_frames_of_a_stack_are_limited_to_the_innermost(
    profile: ContinuousProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous_module, "MEETING_SECONDS", 0)
    (seen,) = seen_while_a_thread_is_deep(profile, CONTINUOUS_STACK_FRAMES_MAX + 20)
    assert len(seen) == CONTINUOUS_STACK_FRAMES_MAX + 1
    assert seen[-1].function == "Condition.wait"


def test_known_frames_are_limited(profile: ContinuousProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CONTINUOUS_FRAMES_KNOWN_MAX >= CONTINUOUS_STACKS_MAX
    monkeypatch.setattr(continuous_module, "CONTINUOUS_FRAMES_KNOWN_MAX", 4)
    monkeypatch.setattr(continuous_module, "MEETING_SECONDS", 0)
    for depth in range(8):
        seen_while_a_thread_is_deep(profile, depth)
        assert len(profile._known) <= 4


def test_a_look_is_left_out_while_another_profile_samples(profile: ContinuousProfile) -> None:
    with IN_PROCESS_SAMPLING:
        profile._look()
    assert profile.minutes() == ()


def test_it_is_off_with_a_frequency_of_zero(wall: Wall) -> None:
    profile = ContinuousProfile(0, wall)
    profile.start()
    assert [thread for thread in threading.enumerate() if thread.name == continuous_module.THREAD_NAME] == []
    profile.stop()


# ----------------------------------------------------------------------------- captures


def test_captures_are_named_by_their_moment_and_the_oldest_goes() -> None:
    kept = Captures()
    names = [kept.keep(Subject(1, (1_795_860_000 + number) * 10**9, 5), b"") for number in range(CAPTURES_KEPT_MAX + 1)]
    assert names[0] == "20261128T100000Z"
    assert [one.capture_id for one in kept.all()] == names[1:]
    assert kept.get(names[1]).subject.started_ns == 1_795_860_001 * 10**9
    with pytest.raises(UnknownCaptureError, match=f"no memory profile '{names[0]}' is kept; kept are: {names[1]}, "):
        kept.get(names[0])
    with pytest.raises(UnknownCaptureError, match="kept are: none"):
        Captures().get("x")


def test_a_capture_is_packed_and_read() -> None:
    samples = [StackSample(stack("large"), (1, 100, 1, 100)), StackSample(stack("small"), (1, 1, 1, 1))]
    assert unpack(pack(samples)) == samples
    assert unpack(pack([])) == []
    with pytest.raises(ProfilingError, match="cannot be read"):
        unpack(b"no capture")


def test_stacks_of_a_capture_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CAPTURE_STACKS_MAX >= 1_000
    monkeypatch.setattr(captures_module, "CAPTURE_STACKS_MAX", 2)
    samples = [StackSample(stack(f"f{number}"), (1, number, 0, 0)) for number in range(5)]
    assert unpack(pack(samples)) == [samples[4], samples[3], StackSample(OTHER_STACKS, (3, 3, 0, 0))]


def test_the_size_of_a_capture_is_limited() -> None:
    noise = random.Random(7)
    names = [noise.randbytes(900).hex() for _ in range(1_000)]
    packed = pack(StackSample(stack(name), (1, 1, 1, 1)) for name in names)
    assert len(packed) <= CAPTURE_SIZE_BYTES_MAX
    assert sum(sample.values[0] for sample in unpack(packed)) == 1_000


def test_two_captures_are_put_side_by_side() -> None:
    before, after = [StackSample(stack("a"), (1,)), StackSample(stack("b"), (2,))], [StackSample(stack("a"), (4,))]
    assert paired(before, after, 1) == [StackSample(stack("a"), (1, 4)), StackSample(stack("b"), (2, 0))]
