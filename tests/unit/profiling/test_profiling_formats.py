"""Profile forms: folded text, pprof checked by a decoder of its own, speedscope, flame graph, heap report."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.profiling import flamegraph
from metasrv.profiling.flamegraph import encode_flamegraph
from metasrv.profiling.heap_report import encode as encode_heap
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import ProfileFormat, ProfilerBusyError, ProfileSlot
from metasrv.profiling.speedscope import encode_speedscope
from metasrv.profiling.stacks import Frame, StackSample, merge, parse_folded, short_path, to_folded

FOLDED = (
    "<module> (node.py:11);run (uvloop/__init__.py:92);main (node.py:10);burn (node.py:4) 49\n"
    "<module> (node.py:11);run (uvloop/__init__.py:92);main (node.py:10) 3\n"
    "no file;again 1\n"
)
SAMPLES = parse_folded(FOLDED)
HEADER = ProfileHeader(
    value_types=(ValueType("samples", "count"),),
    period_type=ValueType("cpu", "nanoseconds"),
    period=10_101_010,
    time_ns=1_700_000_000_000_000_000,
    duration_ns=5_000_000_000,
    default_type="samples",
)


# ----------------------------------------------------------------------------- a decoder of the wire format


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def read_message(data: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        if tag & 7 == 0:
            value, position = read_varint(data, position)
            fields.setdefault(tag >> 3, []).append(value)
            continue
        assert tag & 7 == 2, "only numbers and lengths are used"
        length, position = read_varint(data, position)
        fields.setdefault(tag >> 3, []).append(data[position : position + length])
        position += length
    assert position == len(data)
    return fields


def read_packed(data: bytes) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = read_varint(data, position)
        values.append(value)
    return values


def decode(body: bytes) -> dict[str, Any]:
    """What `go tool pprof` takes from a profile, with every reference resolved."""
    profile = read_message(body)
    strings = [text.decode() for text in profile[6]]
    assert strings[0] == ""
    functions = {}
    for function in map(read_message, profile.get(5, [])):
        functions[function[1][0]] = (strings[function[2][0]], strings[function[4][0]])
    locations = {}
    for location in map(read_message, profile.get(4, [])):
        line = read_message(location[4][0])
        locations[location[1][0]] = (*functions[line[1][0]], line[2][0])
    assert 0 not in locations
    assert 0 not in functions

    def value_type(data: bytes) -> tuple[str, str]:
        fields = read_message(data)
        return strings[fields[1][0]], strings[fields[2][0]]

    return {
        "types": [value_type(data) for data in profile[1]],
        "samples": [
            ([locations[number] for number in read_packed(sample[1][0])], read_packed(sample[2][0]))
            for sample in map(read_message, profile.get(2, []))
        ],
        "time_ns": profile[9][0],
        "duration_ns": profile[10][0],
        "period_type": value_type(profile[11][0]),
        "period": profile[12][0],
        "default": strings[profile[14][0]],
    }


# ----------------------------------------------------------------------------- pprof


def test_a_pprof_profile_decodes_to_what_was_encoded() -> None:
    body = encode_profile(HEADER, SAMPLES)
    assert not body.startswith(b"\x1f\x8b"), "the body is not gzipped"
    decoded = decode(body)
    assert decoded["types"] == [("samples", "count")]
    assert decoded["period_type"] == ("cpu", "nanoseconds")
    assert (decoded["period"], decoded["time_ns"], decoded["duration_ns"], decoded["default"]) == (
        10_101_010,
        1_700_000_000_000_000_000,
        5_000_000_000,
        "samples",
    )
    assert decoded["samples"][0] == (
        [("burn", "node.py", 4), ("main", "node.py", 10), ("run", "uvloop/__init__.py", 92), ("<module>", "node.py", 11)],
        [49],
    )
    assert decoded["samples"][2] == ([("again", "", 0), ("no file", "", 0)], [1])


def test_an_empty_pprof_profile_is_valid() -> None:
    decoded = decode(encode_profile(HEADER, []))
    assert (decoded["samples"], decoded["types"]) == ([], [("samples", "count")])


def test_every_value_type_needs_a_value() -> None:
    with pytest.raises(ValueError, match="2 values for 1 value types"):
        encode_profile(HEADER, [StackSample((Frame("f"),), (1, 2))])


@given(
    st.lists(
        st.builds(
            StackSample,
            st.lists(st.builds(Frame, st.text(max_size=5), st.text(max_size=5), st.integers(0, 2**31)), max_size=6).map(
                tuple
            ),
            st.tuples(st.integers(0, 2**63 - 1)),
        ),
        max_size=8,
    )
)
def test_any_stacks_survive_pprof(samples: list[StackSample]) -> None:
    decoded = decode(encode_profile(HEADER, samples))["samples"]
    assert decoded == [([tuple(frame) for frame in reversed(frames)], list(values)) for frames, values in samples]


# ----------------------------------------------------------------------------- text


def test_folded_text_is_read_and_written() -> None:
    assert SAMPLES[0].frames[1] == Frame("run", "uvloop/__init__.py", 92)
    assert SAMPLES[2].frames == (Frame("no file"), Frame("again"))
    assert to_folded(SAMPLES) == FOLDED


def test_lines_that_are_no_stack_are_left_out() -> None:
    assert parse_folded("\n12\nstack x\nstack -1\na;b 2\n") == [StackSample((Frame("a"), Frame("b")), (2,))]


def test_folded_text_can_not_be_torn_by_names() -> None:
    sample = StackSample((Frame("a;b\nc"), Frame("d")), (0, 5))
    assert to_folded([sample], 1) == "a,b c;d 5\n"
    assert to_folded([sample], 0) == ""


def test_equal_stacks_are_merged() -> None:
    one, two = StackSample((Frame("a"),), (1, 0)), StackSample((Frame("b"),), (5, 5))
    assert merge([one, two, StackSample((Frame("a"),), (2, 7))]) == [StackSample((Frame("a"),), (3, 7)), two]


def test_paths_are_shortened() -> None:
    assert short_path("/usr/lib/python3/asyncio/tasks.py") == "asyncio/tasks.py"
    assert short_path("main.py") == "main.py"


# ----------------------------------------------------------------------------- pictures


def test_speedscope_has_one_sampled_profile() -> None:
    document = json.loads(encode_speedscope("CPU", SAMPLES, "none"))
    frames, profile = document["shared"]["frames"], document["profiles"][0]
    assert (profile["type"], profile["endValue"], profile["weights"]) == ("sampled", 53, [49, 3, 1])
    assert [frames[number]["name"] for number in profile["samples"][1]] == ["<module>", "run", "main"]


def test_a_flame_graph_is_one_picture_without_links() -> None:
    evil = StackSample((Frame('<script>"&'),), (10,))
    body = encode_flamegraph("CPU <5 s>", [*SAMPLES, evil], "{} samples".format)
    root = ElementTree.fromstring(body)
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "all: 63 samples, 100.00 %"
    assert "burn (node.py:4): 49 samples, 77.78 %" in titles
    assert b"<script" not in body
    assert b"href" not in body


def test_children_lie_within_their_parent() -> None:
    root = ElementTree.fromstring(encode_flamegraph("t", SAMPLES, str))
    boxes = [
        (float(box.attrib["y"]), float(box.attrib["x"]), float(box.attrib["width"]))
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
        if "x" in box.attrib
    ]
    for top, left, width in boxes:
        above = [(x, w) for y, x, w in boxes if y == top - flamegraph.ROW_PIXELS]
        assert not above or any(x - 0.2 <= left and left + width <= x + w + 0.2 for x, w in above)


def test_a_flame_graph_of_nothing_says_so() -> None:
    assert b"No samples." in encode_flamegraph("t", [], str)


def test_rows_of_a_flame_graph_are_limited() -> None:
    def rows(depth: int) -> int:
        frames = tuple(Frame(str(number)) for number in range(depth))
        body = encode_flamegraph("t", [StackSample(frames, (1,))], str)
        return body.count(b"<g>") - 1

    assert rows(flamegraph.DEPTH_MAX) == flamegraph.DEPTH_MAX
    assert rows(flamegraph.DEPTH_MAX + 1) == flamegraph.DEPTH_MAX


# ----------------------------------------------------------------------------- heap


def test_a_heap_profile_shows_what_is_in_use_else_the_peak() -> None:
    leaked = StackSample((Frame("keep", "a.py", 1),), (1, 100, 2, 200))
    freed = StackSample((Frame("drop", "a.py", 2),), (0, 0, 3, 300))
    decoded = decode(encode_heap([leaked, freed], ProfileFormat.PPROF, 1, 2))
    assert [name for name, _ in decoded["types"]] == ["inuse_objects", "inuse_space", "peak_objects", "peak_space"]
    assert decoded["default"] == "inuse_space"
    assert decoded["samples"][0][1] == [1, 100, 2, 200]
    assert decode(encode_heap([freed], ProfileFormat.PPROF, 1, 2))["default"] == "peak_space"
    assert encode_heap([leaked, freed], ProfileFormat.FOLDED, 1, 2) == b"keep (a.py:1) 100\n"
    assert encode_heap([freed], ProfileFormat.FOLDED, 1, 2) == b"drop (a.py:2) 300\n"
    assert b"still in use" in encode_heap([leaked], ProfileFormat.SVG, 1, 2)


def test_one_profile_at_a_time() -> None:
    slot = ProfileSlot()
    with slot.take("CPU"), pytest.raises(ProfilerBusyError, match="a CPU profile is being taken"), slot.take("memory"):
        raise AssertionError("the slot was taken twice")
    with slot.take("memory"):
        assert slot is not None
