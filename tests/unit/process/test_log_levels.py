"""Levels that are changed for a time: they go back by themselves, and what is refused says why."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metasrv.config.sections import LogConfig
from metasrv.model.errors import InvalidRequestError, NotDoneError, OverloadedError
from metasrv.model.limits import LOG_LEVEL_CHANGES_MAX, LOG_LEVEL_SECONDS_MAX
from metasrv.process.event_ring import EventRing
from metasrv.process.log_levels import ROOT, LoggerLevel, LogLevels, known_loggers
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.testing.hand_clock import HandClock


class Timers:
    """Stands in for the loop: what it would call later, called by hand."""

    def __init__(self) -> None:
        self.waiting: list[Timer] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> Any:
        self.waiting.append(Timer(self, seconds, call))
        return self.waiting[-1]

    def pass_all(self) -> None:
        for timer in tuple(self.waiting):
            self.waiting.remove(timer)
            timer.call()


class Timer:
    def __init__(self, timers: Timers, seconds: float, call: Callable[[], None]) -> None:
        self.timers, self.seconds, self.call = timers, seconds, call

    def cancel(self) -> None:
        self.timers.waiting.remove(self)


class Node:
    """The log of a node, its levels, and what it tells."""

    def __init__(self, level: str = "Info,metasrv.raft=Warn") -> None:
        self.stream = io.StringIO()
        config = LogConfig.model_validate({"file": {"on": False}, "stderr": {"on": True, "level": level}})
        self.log: RunningLogs = start_logging(config, stderr=self.stream)
        self.timers, self.events = Timers(), EventRing(HandClock())
        self.levels = LogLevels(self.log, HandClock(), self.events, self.timers)

    def lines(self) -> list[str]:
        self.log.stop()
        """What was logged, but for the changes themselves."""
        texts = [line.partition(": ")[2] for line in self.stream.getvalue().splitlines()]
        return [text for text in texts if not text.startswith("configuration: ")]

    def told(self) -> list[str]:
        return [event.text for event in self.events.after(0)]


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.log.stop()


def test_a_level_goes_back_by_itself(node: Node) -> None:
    driver = logging.getLogger("metasrv.raft.core.driver")
    driver.debug("before")
    changed = node.levels.change("metasrv.raft", "Debug", 60)
    assert changed == LoggerLevel("metasrv.raft", "debug", "warn", HandClock().wall_ms() + 60_000)
    driver.debug("meanwhile")
    assert [timer.seconds for timer in node.timers.waiting] == [60]
    node.timers.pass_all()
    driver.debug("after")
    driver.warning("still")
    assert node.lines() == ["meanwhile", "still"]
    assert node.told() == [
        "the log level of metasrv.raft is debug for 60 s",
        "the log level of metasrv.raft is warn again",
    ]
    assert node.levels.levels() == [
        LoggerLevel(ROOT, "info", "info", None), LoggerLevel("metasrv.raft", "warn", "warn", None),
    ]  # fmt: skip


def test_a_second_change_takes_the_place_of_the_first(node: Node) -> None:
    node.levels.change("metasrv.raft", "debug", 60)
    node.levels.change("metasrv.raft", "error")
    assert [timer.seconds for timer in node.timers.waiting] == [300]
    assert [level.level for level in node.levels.levels()] == ["info", "error"]
    node.levels.close()
    assert node.timers.waiting == []


def test_the_root_is_every_logger_without_a_level(node: Node) -> None:
    node.levels.change(ROOT, "error", 5)
    logging.getLogger("metasrv.node.meta_node").info("hidden")
    node.timers.pass_all()
    logging.getLogger("metasrv.node.meta_node").info("shown")
    assert node.lines() == ["shown"]


@pytest.mark.parametrize(
    ("logger", "level", "seconds", "sentence"),
    [
        ("metasrv.nowhere", "info", 1, "there is no logger 'metasrv.nowhere'"),
        ("", "info", 1, "there is no logger ''"),
        ("metasrv\n2026-01-01 INFO forged", "info", 1, r"there is no logger 'metasrv\\n2026"),
        ("x" * 10_000, "info", 1, "there is no logger 'x{80}…'"),
        ("metasrv", "loud", 1, "'loud' is not a log level"),
        ("metasrv", "x" * 10_000, 1, "'x{80}' is not a log level"),
        ("metasrv", "info", 0, "seconds is 0, it must be between 1 and"),
        ("metasrv", "info", LOG_LEVEL_SECONDS_MAX + 1, "it must be between 1 and"),
        ("asyncio", "debug", 1, "asyncio does not go below info: libraries write there what clients send"),
        (ROOT, "trace", 1, "root does not go below info"),
        ("metasrv.audit", "error", 1, "no audit line may be missing"),
    ],
)
def test_what_is_refused(node: Node, logger: str, level: str, seconds: int, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence) as caught:
        node.levels.change(logger, level, seconds)
    assert len(str(caught.value)) < 300
    assert node.told() == []
    assert node.timers.waiting == []
    assert logger not in logging.root.manager.loggerDict or logger in known_loggers() or logger == "metasrv.audit"


def test_no_change_hides_an_audit_line(node: Node) -> None:
    for logger in (ROOT, "metasrv"):
        node.levels.change(logger, "off")
    logging.getLogger("metasrv.audit").info("who did what")
    logging.getLogger("metasrv.node").critical("hidden")
    assert node.lines() == ["who did what"]


def test_so_many_loggers_and_no_more(node: Node) -> None:
    names = [f"metasrv.made.{number}" for number in range(LOG_LEVEL_CHANGES_MAX + 1)]
    for name in names:
        logging.getLogger(name)
    for name in names[:LOG_LEVEL_CHANGES_MAX]:
        node.levels.change(name, "error", LOG_LEVEL_SECONDS_MAX)
    node.levels.change(names[0], "info")
    with pytest.raises(OverloadedError, match=f"the levels of {LOG_LEVEL_CHANGES_MAX} loggers are changed"):
        node.levels.change(names[LOG_LEVEL_CHANGES_MAX], "error")


def test_a_process_whose_log_is_not_the_nodes_own() -> None:
    levels = LogLevels(None, HandClock(), EventRing(HandClock()), Timers())
    for ask in (levels.levels, levels.recent_lines, lambda: levels.change("metasrv", "info")):
        with pytest.raises(NotDoneError, match="the log of this process is not the node's own"):
            ask()


def test_names_are_those_of_modules() -> None:
    logging.getLogger("metasrv.raft.core.driver")
    names = known_loggers()
    assert {ROOT, "metasrv", "metasrv.raft"} <= set(names)
    assert "metasrv.audit" not in names
    assert json.dumps(names)
