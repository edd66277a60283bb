"""Profile forms: folded text, pprof read by a decoder and by Go's tool, speedscope, flame graph, heap report."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.model.sizes import size_text
from metasrv.profiling import flamegraph
from metasrv.profiling.flamegraph import encode_difference, encode_flamegraph
from metasrv.profiling.forms import CPU, WALL, encode_times
from metasrv.profiling.heap_report import encode as encode_heap
from metasrv.profiling.heap_report import encode_change
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import ProfileFormat, ProfilerBusyError, ProfileSlot, Subject
from metasrv.profiling.speedscope import encode_speedscope
from metasrv.profiling.stacks import (
    Frame,
    StackSample,
    is_waiting,
    merge,
    parse_folded,
    relative_path,
    to_folded,
    to_folded_pair,
)
from metasrv.raft.log import storage_thread

FOLDED = (
    "<module> (node.py:11);run (uvloop/__init__.py:92);main (node.py:10);burn (node.py:4) 49\n"
    "<module> (node.py:11);run (uvloop/__init__.py:92);main (node.py:10) 3\n"
    "no file;again 1\n"
)
SAMPLES = parse_folded(FOLDED)
SHOWN = (
    "<module> (node:11);run (uvloop:92);main (node:10);burn (node:4) 49\n"
    "<module> (node:11);run (uvloop:92);main (node:10) 3\n"
    "no file;again 1\n"
)
SUBJECT = Subject(node_id=2, started_ns=1_795_835_525_000_000_000, seconds=5)
TITLE = "of node 2, 2026-11-28 03:12:05 UTC, 5 s"
HEADER = ProfileHeader(
    value_types=(ValueType("samples", "count"),),
    period_type=ValueType("cpu", "nanoseconds"),
    period=10_101_010,
    time_ns=1_700_000_000_000_000_000,
    duration_ns=5_000_000_000,
    default_type="samples",
    comment="of nothing",
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
        name, own_name, file = (strings[function[field][0]] for field in (2, 3, 4))
        assert name == str(Frame(own_name, file)), "what pprof shows has the module behind the function"
        functions[function[1][0]] = (own_name, file)
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
        "comment": strings[profile[13][0]] if 13 in profile else "",
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
    assert to_folded(SAMPLES) == SHOWN
    assert to_folded(parse_folded(SHOWN)) == SHOWN


def test_lines_that_are_no_stack_are_left_out() -> None:
    assert parse_folded("\n12\nstack x\nstack -1\na;b 2\n") == [StackSample((Frame("a"), Frame("b")), (2,))]


def test_folded_text_can_not_be_torn_by_names() -> None:
    sample = StackSample((Frame("a;b\nc"), Frame("d")), (0, 5))
    assert to_folded([sample], 1) == "a,b c;d 5\n"
    assert to_folded([sample], 0) == ""


def test_equal_stacks_are_merged() -> None:
    one, two = StackSample((Frame("a"),), (1, 0)), StackSample((Frame("b"),), (5, 5))
    assert merge([one, two, StackSample((Frame("a"),), (2, 7))]) == [StackSample((Frame("a"),), (3, 7)), two]


def test_files_are_named_from_where_they_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["", "/opt/app", "/opt/app/lib/", "relative"])
    relative_path.cache_clear()
    assert relative_path("/opt/app/metasrv/state/machine.py") == "metasrv/state/machine.py"
    assert relative_path("/opt/app/lib/uvloop/__init__.py") == "uvloop/__init__.py"
    assert relative_path("/home/somebody/secret/place/tool.py") == "place/tool.py"
    assert (relative_path("main.py"), relative_path("<frozen runpy>")) == ("main.py", "<frozen runpy>")
    relative_path.cache_clear()


def test_a_frame_shows_its_function_first() -> None:
    assert (
        str(Frame("StateMachine.apply", "metasrv/state/machine.py", 88))
        == "StateMachine.apply (metasrv.state.machine:88)"
    )
    assert str(Frame("run", "uvloop/__init__.py")) == "run (uvloop)"
    assert str(Frame("_run_code", "<frozen runpy>", 88)) == "_run_code (<frozen runpy>:88)"
    assert str(Frame("(other stacks)")) == "(other stacks)"


def test_threads_that_wait_for_work_are_told_apart() -> None:
    work = Frame("work", "app.py", 1)
    assert is_waiting((work, Frame("Condition.wait", "threading.py", 320)))
    assert is_waiting(())
    assert not is_waiting((work, Frame("wait", "app.py", 3)))
    assert not is_waiting((Frame("Condition.wait", "threading.py", 320), work))
    loop = (Frame("Runner.run", "asyncio/runners.py", 118),)
    assert (is_waiting(loop), is_waiting(loop, loop_too=True)) == (False, True)


def test_the_places_where_threads_wait_are_those_of_this_python() -> None:
    """They are named by file and function; another release of Python may call them otherwise."""
    import asyncio.runners
    import concurrent.futures.thread
    import queue
    import selectors

    for module, name in ((threading, "Condition.wait"), (threading, "Thread.run"), (queue, "Queue.get")):
        assert is_waiting([_frame_of(module, name)])
    for module, name in ((concurrent.futures.thread, "_worker"), (selectors, "_PollLikeSelector.select")):
        assert is_waiting([_frame_of(module, name)])
    assert is_waiting([_frame_of(storage_thread, "StorageThread._next_job")])
    assert is_waiting([_frame_of(asyncio.runners, "Runner.run")], loop_too=True)


def _frame_of(module: Any, name: str) -> Frame:
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    return Frame(found.__code__.co_qualname, relative_path(found.__code__.co_filename), 1)


# ----------------------------------------------------------------------------- pictures


def test_speedscope_has_one_sampled_profile() -> None:
    document = json.loads(encode_speedscope("CPU", SAMPLES, "none"))
    frames, profile = document["shared"]["frames"], document["profiles"][0]
    assert (profile["type"], profile["endValue"], profile["weights"]) == ("sampled", 53, [49, 3, 1])
    assert [frames[number]["name"] for number in profile["samples"][1]] == [
        "<module> (node:11)",
        "run (uvloop:92)",
        "main (node:10)",
    ]


def test_a_flame_graph_is_one_picture_without_links() -> None:
    evil = StackSample((Frame('<script>"&'),), (10,))
    body = encode_flamegraph("CPU <5 s>", [*SAMPLES, evil], "{} samples".format)
    root = ElementTree.fromstring(body)
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[:2] == ["CPU <5 s>", "all\n63 samples, 100.00 %"]
    assert "burn (node:4)\n49 samples, 77.78 %" in titles
    assert b"href" not in body


def test_a_flame_graph_runs_its_own_script_and_no_other() -> None:
    evil = StackSample((Frame("</title><script>alert(1)</script>"),), (10,))
    root = ElementTree.fromstring(encode_flamegraph("]]><script>", [evil], str))
    (script,) = root.iter("{http://www.w3.org/2000/svg}script")
    assert script.text == f"\n{flamegraph.SCRIPT}"
    digest = base64.b64encode(hashlib.sha256((script.text or "").encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; frame-ancestors 'none'"
    assert policy == flamegraph.CONTENT_SECURITY_POLICY
    assert not re.search(r"https?://(?!www\.w3\.org)|import|fetch|eval", flamegraph.SCRIPT)


def test_a_difference_shows_both_moments() -> None:
    both = [
        StackSample((Frame("main"), Frame("grew")), (10, 30)),
        StackSample((Frame("main"), Frame("gone")), (20, 0)),
        StackSample((Frame("main"), Frame("never")), (0, 0)),
    ]
    root = ElementTree.fromstring(encode_difference("d", both, "{} B".format, 0, 1))
    shown = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        title, rect = group.find("{*}title"), group.find("{*}rect")
        if title is not None and rect is not None:
            name, _, text = (title.text or "").partition("\n")
            shown[name] = (text, float(rect.attrib["width"]), rect.attrib["fill"])
    assert shown.keys() == {"all", "main", "grew", "gone"}
    assert shown["grew"][0] == "10 B before, 30 B after: +20 B"
    assert shown["gone"][0] == "20 B before, 0 B after: -20 B"
    assert shown["grew"][1] == pytest.approx(1180 * 30 / 50)
    assert (shown["grew"][2], shown["gone"][2], shown["main"][2]) == (
        "rgb(240,77,77)",
        "rgb(0,0,240)",
        "rgb(240,230,230)",
    )
    assert to_folded_pair(both, 0, 1) == "main;grew 10 30\nmain;gone 20 0\n"


def test_children_lie_within_their_parent() -> None:
    root = ElementTree.fromstring(encode_flamegraph("t", SAMPLES, str))
    boxes = [
        (float(box.attrib["y"]), float(box.attrib["x"]), float(box.attrib["width"]))
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
        if "x" in box.attrib
    ]
    for top, left, width in boxes:
        above = [(x, w) for y, x, w in boxes if y == top - flamegraph.ROW_PIXELS]
        assert not above or any(x - 0.01 <= left and left + width <= x + w + 0.01 for x, w in above)


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
    decoded = decode(encode_heap([leaked, freed], ProfileFormat.PPROF, SUBJECT))
    assert [name for name, _ in decoded["types"]] == ["inuse_objects", "inuse_space", "peak_objects", "peak_space"]
    assert decoded["default"] == "inuse_space"
    assert decoded["samples"][0][1] == [1, 100, 2, 200]
    assert decode(encode_heap([freed], ProfileFormat.PPROF, SUBJECT))["default"] == "peak_space"
    assert encode_heap([leaked, freed], ProfileFormat.FOLDED, SUBJECT) == b"keep (a:1) 100\n"
    assert encode_heap([freed], ProfileFormat.FOLDED, SUBJECT) == b"drop (a:2) 300\n"
    assert f"Memory {TITLE}, allocated and still in use".encode() in encode_heap([leaked], ProfileFormat.SVG, SUBJECT)


def test_a_heap_profile_against_an_earlier_one() -> None:
    before = [StackSample((Frame("cache"),), (1, 100, 1, 100)), StackSample((Frame("gone"),), (2, 50, 2, 50))]
    after = [StackSample((Frame("cache"),), (3, 400, 3, 400))]

    def change(form: ProfileFormat) -> bytes:
        return encode_change(before, after, form, SUBJECT, SUBJECT._replace(started_ns=SUBJECT.started_ns - 60 * 10**9))

    assert change(ProfileFormat.FOLDED) == b"cache 100 400\ngone 50 0\n"
    decoded = decode(change(ProfileFormat.PPROF))
    signed = [[value - 2**64 if value >= 2**63 else value for value in values] for _, values in decoded["samples"]]
    assert signed == [[2, 300, 2, 300], [-2, -50, -2, -50]]
    assert decoded["comment"] == f"Memory {TITLE}, against 2026-11-28 03:11:05"
    assert json.loads(change(ProfileFormat.SPEEDSCOPE))["profiles"][0]["weights"] == [300]
    assert b"100 bytes before, 400 bytes after: +300 bytes" in change(ProfileFormat.SVG)
    assert [size_text(size) for size in (0, 1023, 1536, 3 * 2**20, 5 * 2**30)] == [
        *("0 bytes", "1023 bytes", "1.5 KiB", "3.0 MiB", "5.0 GiB")
    ]


def test_titles_name_node_moment_and_seconds() -> None:
    for kind, name in ((CPU, "CPU"), (WALL, "Time")):
        assert f">{name} {TITLE}</text>".encode() in encode_times(SAMPLES, SUBJECT, 99, kind, ProfileFormat.SVG)
        assert json.loads(encode_times(SAMPLES, SUBJECT, 99, kind, ProfileFormat.SPEEDSCOPE))["name"] == f"{name} {TITLE}"
        decoded = decode(encode_times(SAMPLES, SUBJECT, 100, kind, ProfileFormat.PPROF))
        assert (decoded["comment"], decoded["default"]) == (f"{name} {TITLE}", kind)
        assert decoded["samples"][0][1] == [49, 490_000_000]
        assert (decoded["time_ns"], decoded["duration_ns"]) == (SUBJECT.started_ns, 5_000_000_000)


@pytest.mark.program
@pytest.mark.skipif(shutil.which("go") is None, reason="not installed: go (Debian's package golang-go)")
def test_go_reads_every_profile(tmp_path: Path) -> None:
    """`go tool pprof -top` shows functions with their modules, and puts no two functions of one name together."""
    samples = [*SAMPLES, StackSample((Frame("run", "other.py", 3),), (7,))]
    kept = StackSample((Frame("keep", "a.py", 1),), (1, 100, 2, 200))
    profiles = {
        "cpu": encode_times(samples, SUBJECT, 100, CPU, ProfileFormat.PPROF),
        "wall": encode_times(samples, SUBJECT, 1, WALL, ProfileFormat.PPROF),
        "memory": encode_heap([kept], ProfileFormat.PPROF, SUBJECT),
        "difference": encode_change([kept], [], ProfileFormat.PPROF, SUBJECT, SUBJECT),
    }
    said = {}
    for name, body in profiles.items():
        (tmp_path / name).write_bytes(body)
        said[name] = top_of(tmp_path / name)
    assert re.search(r"490ms +81\.67% .* burn \(node\)", said["cpu"])
    assert re.search(r"70ms +11\.67% .* run \(other\)", said["cpu"])
    assert "<module> (node)" in said["cpu"]
    assert "Type: wall" in said["wall"]
    assert "Duration: 5s, Total samples = 60s" in said["wall"]
    assert re.search(r"Type: inuse_space\n(.*\n)* +100B +100% .* keep \(a\)", said["memory"])
    assert re.search(r"-100B +100% .* keep \(a\)", said["difference"])


def top_of(file: Path) -> str:
    environment = {**os.environ, "PPROF_TMPDIR": str(file.parent), "HOME": str(file.parent)}
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"{TITLE}" in done.stdout
    return done.stdout


def test_one_profile_at_a_time() -> None:
    slot = ProfileSlot()
    with slot.take("CPU"), pytest.raises(ProfilerBusyError, match="a CPU profile is being taken"), slot.take("memory"):
        raise AssertionError("the slot was taken twice")
    with slot.take("memory"):
        assert slot is not None
