"""Samples of time in each form: those of a CPU profile, and those of the continuous one. Pure; runs anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from metasrv.profiling.flamegraph import encode_flamegraph
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import SECOND_NS, ProfileFormat, Subject
from metasrv.profiling.speedscope import encode_speedscope
from metasrv.profiling.stacks import StackSample, to_folded

CPU, WALL = "cpu", "wall"
"""What the samples measure: processor time, or time that passed."""
NAMES = {CPU: "CPU", WALL: "Time"}


def encode_times(
    samples: Sequence[StackSample], subject: Subject, frequency_hertz: int, kind: str, profile_format: ProfileFormat
) -> bytes:
    """Encode samples whose one value is their count; the form is one of `CPU_FORMATS`."""
    title = subject.title(NAMES[kind])
    if profile_format is ProfileFormat.FOLDED:
        return to_folded(samples).encode()
    if profile_format is ProfileFormat.SVG:
        return encode_flamegraph(title, samples, "{:,} samples".format)
    if profile_format is ProfileFormat.SPEEDSCOPE:
        return encode_speedscope(title, samples, "none")
    period_ns = SECOND_NS // frequency_hertz
    nanoseconds = ValueType(kind, "nanoseconds")
    header = ProfileHeader(
        value_types=(ValueType("samples", "count"), nanoseconds),
        period_type=nanoseconds,
        period=period_ns,
        time_ns=subject.started_ns,
        duration_ns=subject.duration_ns,
        default_type=kind,
        comment=title,
    )
    return encode_profile(header, (StackSample(frames, (count, count * period_ns)) for frames, (count,) in samples))
