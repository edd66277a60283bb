"""Levels of loggers that are changed for a time while the node runs, and go back by themselves.

A second change of a logger replaces the first one and its time. Loggers of libraries do not go below Info: at Debug some
write what clients send, tokens included. Must not know who asks. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from metasrv.config.levels import NAMES, parse_level
from metasrv.model.errors import InvalidRequestError, NotDoneError, OverloadedError
from metasrv.model.events import EventKind, Severity
from metasrv.model.limits import LOG_LEVEL_CHANGES_MAX, LOG_LEVEL_SECONDS_MAX
from metasrv.process.clock import Clock
from metasrv.process.event_ring import EventRing
from metasrv.process.logs_folding import AUDIT_LOGGER

SECONDS_DEFAULT = 300
ROOT = "root"
"""How the logger of everything else is called; Python's own name of it."""
DETAILED = ("metasrv", "pysyncobj")
"""Loggers that may say more than Info, with those below them: they write no secret and no stored value at any level."""
_NAME_SHOWN_CHARACTERS = 80

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Log(Protocol):
    """The log of this process, as `RunningLogs` is."""

    def set_level(self, logger_name: str, level: str | None) -> None: ...

    def level_of(self, logger_name: str) -> int: ...

    def configured_level_of(self, logger_name: str) -> int: ...

    def configured_names(self) -> set[str]: ...

    def recent_lines(self) -> list[str]: ...


class LoggerLevel(NamedTuple):
    """One logger with a level of its own."""

    logger: str
    level: str
    configured: str
    """What it is without a change."""
    expires_at_ms: int | None
    """Wall clock at which a change ends; None where nothing is changed."""


class _Change(NamedTuple):
    level: str
    expires_at_ms: int
    timer: asyncio.TimerHandle


class LogLevels:
    """Changes the levels of `log`; without one, because something else has the log of this process, it refuses."""

    def __init__(self, log: Log | None, clock: Clock, events: EventRing, later: Later | None = None) -> None:
        """`later` calls a function after some seconds; by default the running loop does."""
        self._log = log
        self._clock = clock
        self._events = events
        self._later = later
        self._changes: dict[str, _Change] = {}

    def change(self, logger: str, level: str, seconds: int = SECONDS_DEFAULT) -> LoggerLevel:
        """Give a logger, and those below it, another level. Raises InvalidRequestError, OverloadedError, NotDoneError."""
        log = self._own_log()
        name = _known_name(logger)
        number = _level_for(name, level)
        if not 1 <= seconds <= LOG_LEVEL_SECONDS_MAX:
            raise InvalidRequestError(f"seconds is {seconds}, it must be between 1 and {LOG_LEVEL_SECONDS_MAX}")
        before = self._changes.get(name)
        if before is None and len(self._changes) >= LOG_LEVEL_CHANGES_MAX:
            raise OverloadedError(f"the levels of {LOG_LEVEL_CHANGES_MAX} loggers are changed; wait until one ends")
        if before is not None:
            before.timer.cancel()
        later = self._later or asyncio.get_running_loop().call_later
        timer = later(seconds, lambda: self._end(name))
        self._changes[name] = _Change(NAMES[number], self._clock.wall_ms() + seconds * 1000, timer)
        log.set_level(name, NAMES[number])
        self._tell(f"the log level of {name or ROOT} is {NAMES[number]} for {seconds} s")
        return self._view(log, name)

    def levels(self) -> list[LoggerLevel]:
        """Every logger with a level of its own, the root first. Raises NotDoneError."""
        log = self._own_log()
        return [self._view(log, name) for name in sorted({*log.configured_names(), *self._changes})]

    def close(self) -> None:
        """End what waits; the levels stay until the log ends."""
        for change in self._changes.values():
            change.timer.cancel()

    def recent_lines(self) -> list[str]:
        """The newest lines of the log, oldest first; may be called from any thread. Raises NotDoneError."""
        return self._own_log().recent_lines()

    def _own_log(self) -> Log:
        if self._log is None:
            raise NotDoneError("the log of this process is not the node's own")
        return self._log

    def _end(self, name: str) -> None:
        del self._changes[name]
        if self._log is not None:
            self._log.set_level(name, None)
            level = NAMES[self._log.level_of(name)]
            self._tell(f"the log level of {name or ROOT} is {level} again")

    def _tell(self, text: str) -> None:
        self._events.tell(EventKind.CONFIGURATION, Severity.INFO, text)

    def _view(self, log: Log, name: str) -> LoggerLevel:
        change = self._changes.get(name)
        expires_at_ms = None if change is None else change.expires_at_ms
        configured = NAMES[log.configured_level_of(name)]
        return LoggerLevel(name or ROOT, NAMES[log.level_of(name)], configured, expires_at_ms)


def known_loggers() -> list[str]:
    """Every logger that the modules of this process have, and those above them; the root first."""
    return [ROOT, *sorted(set(logging.root.manager.loggerDict) - {AUDIT_LOGGER})]


def _known_name(logger: str) -> str:
    """The name as the log knows it, empty for the root. Raises InvalidRequestError."""
    if logger == ROOT:
        return ""
    if logger == AUDIT_LOGGER:
        raise InvalidRequestError("the level of metasrv.audit is the configuration's alone: no audit line may be missing")
    if logger not in logging.root.manager.loggerDict:
        shown = logger if len(logger) <= _NAME_SHOWN_CHARACTERS else f"{logger[:_NAME_SHOWN_CHARACTERS]}…"
        raise InvalidRequestError(f"there is no logger {shown!r}; loggers are named as modules, such as metasrv.raft")
    return logger


def _level_for(name: str, level: str) -> int:
    """The level's number. Raises InvalidRequestError for one that there is not, or that says too much."""
    try:
        number = parse_level(level[:_NAME_SHOWN_CHARACTERS])
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
    if number < logging.INFO and name.partition(".")[0] not in DETAILED:
        raise InvalidRequestError(
            f"{name or ROOT} does not go below info: libraries write there what clients send; "
            f"{' and '.join(DETAILED)} do, with the loggers below them"
        )
    return number
