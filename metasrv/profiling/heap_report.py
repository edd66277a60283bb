"""A program that reads a memray capture and writes the heap profile in one form.

    python -m metasrv.profiling.heap_report CAPTURE OUTPUT FORMAT STARTED_NS DURATION_NS

Runs in a child process (see `memory.py`). Values of each stack: objects and bytes still in use at the end, objects
and bytes at the moment of highest use. The text form shows bytes in use, or at the peak when nothing is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from memray import AllocationRecord, FileReader

from metasrv.profiling.flamegraph import encode_flamegraph
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import ProfileFormat
from metasrv.profiling.stacks import Frame, StackSample, merge, short_path, to_folded

VALUE_TYPES = (
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
    ValueType("peak_objects", "count"),
    ValueType("peak_space", "bytes"),
)
LOWEST_PRIORITY = 19
IN_USE_BYTES = 1
PEAK_BYTES = 3


def main(arguments: list[str]) -> int:
    os.nice(LOWEST_PRIORITY)  # the node that waits for this has requests to answer
    capture, output, form, started_ns, duration_ns = arguments
    samples = merge(read_capture(capture))
    body = encode(samples, ProfileFormat(form), int(started_ns), int(duration_ns))
    with open(output, "wb") as file:
        file.write(body)
    return 0


def read_capture(path: str) -> Iterator[StackSample]:
    """The stacks in use at the end, then those at the peak; equal stacks are not yet merged."""
    reader = FileReader(path)
    for record in reader.get_leaked_allocation_records(merge_threads=True):
        yield StackSample(_frames(record), (record.n_allocations, record.size, 0, 0))
    for record in reader.get_high_watermark_allocation_records(merge_threads=True):
        yield StackSample(_frames(record), (0, 0, record.n_allocations, record.size))


def encode(samples: list[StackSample], form: ProfileFormat, started_ns: int, duration_ns: int) -> bytes:
    in_use = any(sample.values[IN_USE_BYTES] for sample in samples)
    shown = IN_USE_BYTES if in_use else PEAK_BYTES
    if form is ProfileFormat.FOLDED:
        return to_folded(samples, shown).encode()
    if form is ProfileFormat.SVG:
        what = "still in use" if in_use else "at the peak"
        title = f"Heap allocated within {duration_ns // 1_000_000_000} s, {what}"
        return encode_flamegraph(title, samples, "{} bytes".format, shown)
    header = ProfileHeader(
        value_types=VALUE_TYPES,
        period_type=ValueType("space", "bytes"),
        period=1,
        time_ns=started_ns,
        duration_ns=duration_ns,
        default_type=VALUE_TYPES[shown].type,
    )
    return encode_profile(header, samples)


def _frames(record: AllocationRecord) -> tuple[Frame, ...]:
    stack = record.stack_trace()
    if not stack:
        return (Frame("(no Python stack)"),)
    return tuple(Frame(function, short_path(file), line) for function, file, line in reversed(stack))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
