"""Lines that repeat are counted; the newest lines stay in memory, within bounds and without secrets."""

from __future__ import annotations

import io
import logging
import time
from typing import Any

import pytest

from metasrv.config.sections import LogConfig
from metasrv.model.limits import (
    LOG_FOLDED_CHARACTERS_MAX,
    LOG_FOLDED_LINES_MAX,
    LOG_RECENT_LINE_CHARACTERS_MAX,
    LOG_RECENT_LINES_MAX,
    LOG_RECENT_SIZE_CHARACTERS_MAX,
)
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.process.logs_folding import FOLD_SECONDS, Folding
from metasrv.process.logs_recent import CUT, RecentLines


class Written:
    """A folding over a clock by hand; `texts` is what it wrote."""

    def __init__(self) -> None:
        self.now = 100.0
        self.texts: list[str] = []
        self.folding = Folding(
            lambda record, _: self.texts.append(str(record.msg)), lambda record: vars(record)["fields"]
        )
        self.folding._clock = lambda: self.now

    def line(self, text: str, level: int = logging.WARNING, name: str = "x", **fields: Any) -> None:
        record = logging.LogRecord(name, level, __file__, 1, text, None, None)
        record.__dict__["fields"] = fields
        self.folding.take(record, ())


@pytest.fixture
def written() -> Written:
    return Written()


def test_repetitions_are_one_line_with_their_count(written: Written) -> None:
    for _ in range(1_235):
        written.line("the disk is full")
        written.line("another")
    written.line("once")
    assert written.texts == ["the disk is full", "another", "once"]
    assert written.folding.seconds_left() == FOLD_SECONDS
    written.now += FOLD_SECONDS - 0.1
    written.folding.write_due()
    assert len(written.texts) == 3
    written.now += 0.1
    written.folding.write_due()
    assert written.texts[3:] == [f"{text} (1,234 times more within 10 s)" for text in ("the disk is full", "another")]
    assert written.folding.seconds_left() is None
    written.line("the disk is full")
    assert written.texts[-1] == "the disk is full", "the next one is written at once"


def test_what_differs_is_another_line(written: Written) -> None:
    written.line("text")
    written.line("text", level=logging.ERROR)
    written.line("text", name="y")
    written.line("text", node=1)
    written.line("text", node=2)
    written.line("text", node=2)
    assert len(written.texts) == 5
    written.folding.write_all()
    assert written.texts[5:] == ["text (once more within 1 s)"]


def test_audit_lines_debugging_and_long_lines_are_never_folded(written: Written) -> None:
    for _ in range(2):
        written.line("audited", name="metasrv.audit")
        written.line("looked at", level=logging.DEBUG)
        written.line("x" * (LOG_FOLDED_CHARACTERS_MAX + 1))
    assert len(written.texts) == 6
    written.line("x" * LOG_FOLDED_CHARACTERS_MAX)
    written.line("x" * LOG_FOLDED_CHARACTERS_MAX)
    assert len(written.texts) == 7


def test_so_many_lines_are_remembered(written: Written) -> None:
    written.line("the oldest")
    written.line("the oldest")
    for number in range(LOG_FOLDED_LINES_MAX):
        written.line(f"line {number}")
    assert written.texts[-2:] == ["the oldest (once more within 1 s)", f"line {LOG_FOLDED_LINES_MAX - 1}"]


def started(secrets: tuple[str, ...] = ()) -> tuple[RunningLogs, io.StringIO]:
    stream = io.StringIO()
    config = LogConfig.model_validate({"file": {"on": False}, "stderr": {"on": True, "level": "Info", "format": "json"}})
    return start_logging(config, secrets, stream), stream


def test_the_log_folds_and_writes_the_count_at_its_end() -> None:
    logs, stream = started()
    for _ in range(3):
        logging.getLogger("metasrv.x").warning("again")
    logs.stop()
    assert [line.count('"message": "again') for line in stream.getvalue().splitlines()] == [1, 1]
    assert "again (2 times more within 1 s)" in stream.getvalue()


def test_the_count_is_written_when_it_is_due_although_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.process.logs_folding.FOLD_SECONDS", 0.05)
    logs, stream = started()
    for _ in range(2):
        logging.getLogger("metasrv.x").warning("again")
    deadline = time.monotonic() + 30
    while "once more" not in stream.getvalue() and time.monotonic() < deadline:
        time.monotonic()
    written = stream.getvalue()
    logs.stop()
    assert "again (once more within 1 s)" in written


def test_the_newest_lines_are_kept_as_text_whatever_the_format() -> None:
    logs, _ = started(("planted",))
    logging.getLogger("metasrv.x").info("planted, and late", extra={"color_message": "\x1b[31mred\x1b[0m"})
    logging.getLogger("metasrv.x").debug("not wanted by any sink")
    logs.hide(["late"])
    logs.stop()
    (line,) = logs.recent_lines()
    assert line.endswith("INFO metasrv.x: ***, and ***")


def recent(*texts: str) -> list[str]:
    handler = RecentLines(lambda line: line)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for text in texts:
        handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None))
    return handler.lines()


def test_the_newest_lines_are_bounded_in_number_length_and_size() -> None:
    many = [f"line {number}" for number in range(LOG_RECENT_LINES_MAX + 1)]
    assert recent(*many) == many[1:]
    assert recent("x" * LOG_RECENT_LINE_CHARACTERS_MAX) == ["x" * LOG_RECENT_LINE_CHARACTERS_MAX]
    assert recent("y" * 50_000_000) == ["y" * LOG_RECENT_LINE_CHARACTERS_MAX + CUT]
    count = LOG_RECENT_SIZE_CHARACTERS_MAX // LOG_RECENT_LINE_CHARACTERS_MAX
    kept = recent(*[str(number % 10) * LOG_RECENT_LINE_CHARACTERS_MAX for number in range(count + 3)])
    assert len(kept) == count
    assert kept[0][0] == "3"
