"""Frames of `metactl top`: fixed states as golden text, every size, and answers that no node would give."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from rich.cells import cell_len

from metasrv.cli.top import cells
from metasrv.cli.top.sight import Sight
from metasrv.cli.top.source import News
from metasrv.cli.top.view import SORTS, Look, frame
from metasrv.model.limits import TOP_EVENTS_MAX, TOP_POINTS_MAX, TOP_ROWS_MAX
from tests.support import console_scenes, console_states
from tests.support.top_frames import FRAMES, NOW_MS, frames, news_of, sight_of


def shown(news: News, look: Look | None = None) -> str:
    return "\n".join(line.plain for line in frame(news, look or Look(80)))


# ----------------------------------------------------------------------------- frames


def test_the_frames_of_all_states_are_those_that_were_looked_at() -> None:
    """`python -m tests.support.top_frames` writes them again."""
    assert dict(frames()) == {path.name: path.read_text(encoding="utf-8") for path in FRAMES.iterdir()}


@pytest.mark.parametrize("state", sorted(console_scenes.STATES))
def test_a_frame_fits_every_terminal(state: str) -> None:
    news = news_of(state)._replace(trouble="x" * 200)
    for width, height in itertools.product((1, 33, 60, 80, 131), (1, 7, 15, 24, 40)):
        lines = frame(news, Look(width, height, keys=True))
        assert len(lines) == height
        assert max(cell_len(line.plain) for line in lines) <= width


def test_a_frame_of_24_lines_has_what_matters_whatever_else_is_there() -> None:
    text = shown(news_of("no-majority"), Look(80, 24, keys=True))
    for wanted in ("no leader", "No majority", "runbook no-leader", "unreachable", "writes/s", "12:01:52", "q quit"):
        assert wanted in text, wanted


def test_an_ascii_terminal_gets_ascii() -> None:
    for state in console_scenes.STATES:
        assert shown(news_of(state), Look(80, 24, ascii_only=True, keys=True)).isascii()


def test_the_rows_are_sorted_as_asked() -> None:
    def order(sort: str) -> list[str]:
        lines = shown(news_of("seven"), Look(80, sort=sort)).splitlines()
        return [line.split()[0] for line in lines[4:11]]

    assert [order(sort)[0] for sort in SORTS] == ["1", "3", "5", "5", "2"], "that of the node asked is unknown"
    assert order("LAG")[:2] == ["5", "7"]
    assert order("no such column") == list("1234567")


def test_where_the_view_comes_from_is_said() -> None:
    news = news_of("healthy")
    assert "gives no answer" not in shown(news)
    assert "10.0.0.9:1 gives no answer, 10.0.4.11:28101 is asked instead" in shown(news._replace(instead_of="10.0.0.9:1"))
    assert "what is shown is old: nothing listens" in shown(news._replace(trouble="nothing listens"))
    assert "paused" in shown(news, Look(80, 24, paused=True))
    assert "metactl top" in shown(News(Sight(), "10.0.0.9:1", "nothing listens"), Look(80, 24))


def test_why_writes_are_refused_is_said_once() -> None:
    for name in ("no-leader", "removed"):
        assert console_scenes.STATES[name](NOW_MS)["cluster"]["read_only"] is True
        assert "writes are refused:" not in shown(news_of(name))
    state = console_scenes.STATES["healthy"](NOW_MS)
    state["cluster"] |= {"read_only": True, "read_only_reason": "we move"}
    assert "writes are refused: we move" in shown(News(Sight().learnt({"type": "state", "state": state}), "a:1", ""))


# ----------------------------------------------------------------------------- answers that no node gives

GARBAGE: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        1e308,
        float("nan"),
        float("inf"),
        2**70,
        "",
        "\x1b[2J\x1b]0;title\x07",
        "[bold]x[/]",
        [],
        {},
        [[]],
        [{}],
    ),
    *([None] * 1000, {"id": {}}, [{"id": "x", "checks": [{"ok": False, "reason": 7}]}], "\ud800", "\u202e\u200b"),
)


@pytest.mark.parametrize("kind", ["state", "history", "events", "event", "point", "no such type"])
def test_garbage_is_not_known_and_breaks_nothing(kind: str) -> None:
    """Every member of every object of a line, replaced by each of these."""
    whole = sight_of("one-node-lost")
    state, history = console_scenes.STATES["one-node-lost"](NOW_MS), console_states.history(NOW_MS)
    state["nodes"], history["series"] = state["nodes"][:1], {"sync_ms": [1, 2, 3]}
    event = console_states.events(NOW_MS)[0]
    objects: dict[str, dict[str, Any]] = {
        "state": state,
        "history": history,
        "events": {"events": [event]},
        "event": event,
        "point": {"values": {"writes_per_second": 1}},
    }
    for garbage in GARBAGE:
        lines = [{"type": kind, kind: garbage, "values": garbage, "series": garbage}]
        for name in objects.get(kind, {}):
            broken = {**objects[kind], name: garbage}
            lines.append({"type": kind, kind: broken, **broken})
        for part in ("cluster", "nodes", "problems") if kind == "state" else ():
            given = state[part] if isinstance(state[part], dict) else state[part][0]
            for name in given:
                changed = {**given, name: garbage}
                lines.append({"type": "state", "state": {**state, part: changed if part == "cluster" else [changed]}})
        for line in lines:
            assert "\x1b" not in shown(News(whole.learnt(line), "a:1", ""), Look(50, 24))


def test_what_is_kept_is_bounded() -> None:
    sight = Sight()
    state = console_scenes.STATES["lone"](NOW_MS)
    state["nodes"] *= TOP_ROWS_MAX + 1
    sight = sight.learnt({"type": "state", "state": state})
    assert sight.cluster is not None
    assert len(sight.cluster.nodes) == TOP_ROWS_MAX
    series = {"sync_ms": list(range(TOP_POINTS_MAX + 1))}
    sight = sight.learnt({"type": "history", "history": {"step_ms": 2000, "series": series}})
    assert (len(sight.series["sync_ms"]), sight.series["sync_ms"][-1]) == (TOP_POINTS_MAX, TOP_POINTS_MAX)
    sight = sight.learnt({"type": "point", "values": {"sync_ms": 7.5}})
    assert (len(sight.series["sync_ms"]), sight.series["sync_ms"][-1]) == (TOP_POINTS_MAX, 7.5)
    event = console_states.events(NOW_MS)[0]
    sight = sight.learnt({"type": "events", "events": [event] * (TOP_EVENTS_MAX + 1)})
    assert len(sight.events) == TOP_EVENTS_MAX
    sight = sight.learnt({"type": "event", "event": {**event, "text": "the newest"}})
    assert (len(sight.events), sight.events[-1].text) == (TOP_EVENTS_MAX, "the newest")
    assert json.dumps(sight.events[-1])


# ----------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (cells.count(None), "-"),
        (cells.count(9_999), "9,999"),
        (cells.count(12_345), "12.3k"),
        (cells.count(5_000_000), "5.0M"),
        (cells.count(2e14), "2.0e+14"),
        (cells.rate(0.5), "0.5"),
        (cells.rate(0), "0"),
        (cells.size(0), "0B"),
        (cells.size(1023), "1.0K"),
        (cells.size(212 * 2**20), "212M"),
        (cells.size(2**62), "4096P"),
        (cells.milliseconds(0.314), "0.31ms"),
        (cells.milliseconds(999.4), "999ms"),
        (cells.milliseconds(1_234), "1.2s"),
        (cells.milliseconds(125_000), "2m 05s"),
        (cells.age(3), "3ms"),
        (cells.duration(41_999), "41s"),
        (cells.duration(3 * 86_400_000 + 4 * 3_600_000), "3d 04h"),
        (cells.offset(-3), "-3ms"),
        (cells.offset(5_000), "+5.0s"),
        (cells.clock(10**30), "--:--:--"),
        (cells.moment(NOW_MS, NOW_MS), "12:02:04"),
        (cells.moment(NOW_MS - 2 * 86_400_000, NOW_MS), "2d ago  "),
    ],
)
def test_numbers_are_short(made: str, text: str) -> None:
    assert made == text


def test_a_chart_goes_from_zero_to_the_largest() -> None:
    assert cells.chart([0, 1, 2, 4], 4) == "▁▃▅█"
    assert cells.chart([0, 1, None, 4], 6) == "  ▁▃ █"
    assert cells.chart([0, 9, 0, 0, 4, 0], 3) == "█▁▄", "a column has the largest of its points"
    assert cells.chart([0, 0], 2) == "▁▁"
    assert cells.chart([], 3) == "   "
    assert cells.chart([1, 2], 0) == ""
    assert cells.chart([0, 8], 2, cells.ASCII_BLOCKS) == "_#"
