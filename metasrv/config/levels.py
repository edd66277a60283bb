"""Log levels as upstream writes them: `Warn,databend_=Info,openraft=Info`, or plainly `INFO`.

Pure text rules, used by the validation of a configuration and by `metasrv.process.logs`. Knows no handlers and no files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

OFF = logging.CRITICAL + 10
"""Above every level: nothing passes."""

TRACE = 5
"""Below debug; upstream has it, the standard library has not."""

LEVELS: Mapping[str, int] = {
    "off": OFF,
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

NAMES: Mapping[int, str] = {
    OFF: "off",
    logging.CRITICAL: "critical",
    logging.ERROR: "error",
    logging.WARNING: "warn",
    logging.INFO: "info",
    logging.DEBUG: "debug",
    TRACE: "trace",
}
"""One name of each level, from the quietest to the one that says most."""

UPSTREAM_TARGETS: Mapping[str, tuple[str, ...]] = {
    "databend_": ("metasrv",),
    "databend_meta": ("metasrv",),
    "openraft": ("metasrv.raft", "pysyncobj"),
}
"""The loggers that correspond to upstream's crate prefixes, so that levels written for upstream work here."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The bare level and the levels of single loggers."""

    root: int
    loggers: Mapping[str, int]

    def level_of(self, logger_name: str) -> int:
        """The level of the longest dotted prefix of `logger_name` that was given, else the bare level."""
        name = logger_name
        while name:
            level = self.loggers.get(name)
            if level is not None:
                return level
            name = name.rpartition(".")[0]
        return self.root


def parse_level(text: str) -> int:
    """One level by name, in any case; raises ValueError with a plain sentence."""
    level = LEVELS.get(text.strip().lower())
    if level is None:
        raise ValueError(f"{text.strip()!r} is not a log level; use Off, Error, Warn, Info, Debug or Trace")
    return level


def parse_levels(text: str) -> Levels:
    """Parse `level` or `level,prefix=level,…`; raises ValueError with a plain sentence.

    The bare level is `Warn` when only prefixes are given.
    """
    root: int | None = None
    loggers: dict[str, int] = {}
    for part in text.split(","):
        target, separator, level_text = part.partition("=")
        if not separator:
            if root is not None:
                raise ValueError(f"{text!r} gives the level of everything else twice")
            root = parse_level(part)
            continue
        target = target.strip().replace("::", ".")
        if not target:
            raise ValueError(f"{text!r} has a level without the name it is for")
        level = parse_level(level_text)
        for name in UPSTREAM_TARGETS.get(target, (target,)):
            loggers[name] = level
    return Levels(logging.WARNING if root is None else root, loggers)
