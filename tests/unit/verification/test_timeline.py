"""The picture of a violation: well-formed, self-contained, with every operation and the culprit marked."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from metasrv.testing.history import UNKNOWN_OUTCOME, Operation
from metasrv.testing.linearizability import Violation, check
from metasrv.testing.models import CounterModel, RegisterModel
from verification.timeline import COLOURS, timeline_html, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"


def violation() -> Violation:
    history = [
        Operation(1, "k", "write", "a<b>&", None, 0.0, 1.0),
        Operation(3, "k", "write", "c", UNKNOWN_OUTCOME, 1.5, None),
        Operation(2, "k", "write", "d", None, 2.0, 3.0),
        Operation(2, "k", "read", None, "c", 3.5, 3.6),
        Operation(2, "k", "read", None, "a<b>&", 4.0, 4.0001),
    ]
    [found] = check(history, RegisterModel())
    return found


def part(group: ET.Element, name: str) -> ET.Element:
    found = group.find(f"{SVG}{name}")
    assert found is not None, name
    return found


def text_of(element: ET.Element) -> str:
    assert element.text is not None
    return element.text


def test_the_picture_has_a_bar_for_every_operation_of_the_core() -> None:
    found = violation()
    picture = ET.fromstring(timeline_svg(found))
    titles = [title.text for title in picture.iter(f"{SVG}title")]
    assert titles == [str(one) for one in sorted(found.core.operations, key=lambda one: one.called_at)]


def test_the_culprit_is_red_and_the_unknown_one_is_dashed() -> None:
    picture = ET.fromstring(timeline_svg(violation()))
    bars = {text_of(part(group, "title")): part(group, "rect") for group in picture.iter(f"{SVG}g")}
    assert bars["read() -> 'a<b>&'"].get("stroke") == COLOURS["culprit"]
    dashed = [title for title, bar in bars.items() if bar.get("stroke-dasharray")]
    assert all(title.endswith("unknown") for title in dashed)


def test_labels_do_not_reach_into_the_next_bar_of_their_row() -> None:
    picture = ET.fromstring(timeline_svg(violation()))
    for group in picture.iter(f"{SVG}g"):
        bar, label = part(group, "rect"), part(group, "text")
        if bar.get("stroke-dasharray") is None:
            assert len(text_of(label)) * 6 <= float(bar.attrib["width"])


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = timeline_html(violation())
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in page
    assert "cannot be explained" in page


@pytest.mark.parametrize("count", [2, 40])
def test_counters_are_drawn_too(count: int) -> None:
    history = [Operation(1, "c", "add", 1, number + 1, number, number + 0.5) for number in range(count)]
    history.append(Operation(2, "c", "add", 1, count + 2, count + 1, count + 2))
    [found] = check(history, CounterModel())
    assert f"add(1) -&gt; {count + 2}" in timeline_svg(found)
