"""A program that reads a memray capture and writes the heap profile in one form.

    python -m metasrv.profiling.heap_report CAPTURE OUTPUT FORMAT NODE_ID STARTED_NS SECONDS KEPT [BASE BASE_STARTED_NS]

Runs in a child process (see `memory.py`). Values of each stack: objects and bytes still in use at the end, objects
and bytes at the moment of highest use. The text form shows bytes in use, or at the peak when nothing is left. KEPT is
where the capture goes in the form of `captures.py`; BASE is such a file of an earlier capture, and the profile is then
the difference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from memray import AllocationRecord, FileReader

from metasrv.model.sizes import size_text
from metasrv.profiling.captures import pack, paired, unpack
from metasrv.profiling.flamegraph import encode_difference, encode_flamegraph
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import ProfileFormat, Subject
from metasrv.profiling.speedscope import encode_speedscope
from metasrv.profiling.stacks import Frame, StackSample, merge, relative_path, to_folded, to_folded_pair

VALUE_TYPES = (
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
    ValueType("peak_objects", "count"),
    ValueType("peak_space", "bytes"),
)
WIDTH = len(VALUE_TYPES)
LOWEST_PRIORITY = 19
IN_USE_BYTES = 1
PEAK_BYTES = 3


def main(arguments: list[str]) -> int:
    os.nice(LOWEST_PRIORITY)  # the node that waits for this has requests to answer
    capture, output, form, node_id, started_ns, seconds, kept, *base = arguments
    subject = Subject(int(node_id), int(started_ns), int(seconds))
    samples = merge(read_capture(capture))
    if base:
        base_subject = subject._replace(started_ns=int(base[1]))
        before = unpack(Path(base[0]).read_bytes())
        body = encode_change(before, samples, ProfileFormat(form), subject, base_subject)
    else:
        body = encode(samples, ProfileFormat(form), subject)
    Path(output).write_bytes(body)
    Path(kept).write_bytes(pack(samples))
    return 0


def read_capture(path: str) -> Iterator[StackSample]:
    """The stacks in use at the end, then those at the peak; equal stacks are not yet merged."""
    reader = FileReader(path)
    for record in reader.get_leaked_allocation_records(merge_threads=True):
        yield StackSample(_frames(record), (record.n_allocations, record.size, 0, 0))
    for record in reader.get_high_watermark_allocation_records(merge_threads=True):
        yield StackSample(_frames(record), (0, 0, record.n_allocations, record.size))


def encode(samples: Sequence[StackSample], form: ProfileFormat, subject: Subject) -> bytes:
    """One capture in one form."""
    in_use = any(sample.values[IN_USE_BYTES] for sample in samples)
    shown = IN_USE_BYTES if in_use else PEAK_BYTES
    if form is ProfileFormat.FOLDED:
        return to_folded(samples, shown).encode()
    title = f"{subject.title('Memory')}, allocated and {'still in use' if in_use else 'in use at the peak'}"
    if form is ProfileFormat.SVG:
        return encode_flamegraph(title, samples, size_text, shown)
    if form is ProfileFormat.SPEEDSCOPE:
        return encode_speedscope(title, [one for one in samples if one.values[shown] > 0], "bytes", shown)
    return encode_profile(_header(subject, title, VALUE_TYPES[shown].type), samples)


def encode_change(
    before: Sequence[StackSample],
    after: Sequence[StackSample],
    form: ProfileFormat,
    subject: Subject,
    base: Subject,
) -> bytes:
    """How a capture differs from an earlier one. The text form has both numbers, pprof what was added or is gone.

    Speedscope knows no negative weights: its form has only the stacks that grew.
    """
    both = paired(before, after, WIDTH)
    in_use = any(sample.values[IN_USE_BYTES] or sample.values[WIDTH + IN_USE_BYTES] for sample in both)
    shown = IN_USE_BYTES if in_use else PEAK_BYTES
    if form is ProfileFormat.FOLDED:
        return to_folded_pair(both, shown, WIDTH + shown).encode()
    title = f"{subject.title('Memory')}, against {base.moment()}"
    if form is ProfileFormat.SVG:
        return encode_difference(title, both, size_text, shown, WIDTH + shown)
    change = [StackSample(frames, _change(values)) for frames, values in both]
    if form is ProfileFormat.SPEEDSCOPE:
        return encode_speedscope(title, [one for one in change if one.values[shown] > 0], "bytes", shown)
    return encode_profile(_header(subject, title, VALUE_TYPES[shown].type), change)


def _change(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(after - before for before, after in zip(values[:WIDTH], values[WIDTH:], strict=True))


def _header(subject: Subject, title: str, shown: str) -> ProfileHeader:
    return ProfileHeader(
        value_types=VALUE_TYPES,
        period_type=ValueType("space", "bytes"),
        period=1,
        time_ns=subject.started_ns,
        duration_ns=subject.duration_ns,
        default_type=shown,
        comment=title,
    )


def _frames(record: AllocationRecord) -> tuple[Frame, ...]:
    stack = record.stack_trace()
    if not stack:
        return (Frame("(no Python stack)"),)
    return tuple(Frame(function, relative_path(file), line) for function, file, line in reversed(stack))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
