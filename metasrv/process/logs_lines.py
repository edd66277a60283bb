"""How a record of the log becomes a line, as text or as JSON, without secrets and without what a terminal would obey.

Must not know where lines go. Runs on the logging helper thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from metasrv.config.levels import TRACE
from metasrv.config.sections import MASK

# What uvicorn adds for terminals, `color_message`, holds escape codes.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    10: "\\n",
    13: "\\r",
    9: "\\t",
}
"""What a terminal would obey, and what would begin another line, is written as an escape sequence."""
_LEVEL_NAMES: Mapping[int, str] = {
    TRACE: "TRACE",
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARN",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}


class Redactor:
    """Replaces the configured secrets wherever they occur in a line."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._texts: set[str] = set()
        self.hide(secrets)

    def hide(self, secrets: Sequence[str]) -> None:
        """Replace these too from now on; earlier ones stay secret."""
        texts = {secret for secret in secrets if secret}
        # JSON lines carry the escaped form. Longer secrets go first, because one may contain another.
        texts |= {json.dumps(text, ensure_ascii=False)[1:-1] for text in texts}
        self._texts |= texts
        self._secrets = sorted(self._texts, key=len, reverse=True)

    def __call__(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        return line


class TextFormatter(logging.Formatter):
    """`2026-11-23T22:31:00.123Z INFO metasrv.node.meta_node: text key=value`."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        line = f"{_timestamp(record)} {_level_name(record)} {record.name}: {record.getMessage()}{extras}"
        # One record is one line, whatever its message contains; traces keep their line breaks.
        if not line.isprintable():
            line = line.translate(_CONTROL_CHARACTERS)
        return self._redact(line + _trace(self, record))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: timestamp, level, target, message, what was given as `extra`, trace."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": _level_name(record),
            "target": record.name,
            "message": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            fields.setdefault(name, value)
        trace = _trace(self, record)
        if trace:
            fields["trace"] = trace.strip("\n")
        return self._redact(json.dumps(fields, ensure_ascii=False, default=str))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`; what is None is not known, and left out."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES and value is not None}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level_name(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The exception and the stack of a record, each beginning on a new line; empty if there are none."""
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    parts = [part for part in (record.exc_text, record.stack_info) if part]
    return "".join(f"\n{part}" for part in parts)
