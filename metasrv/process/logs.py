"""Log lines: from `[log]` to files and standard error, written by a helper thread, without secrets.

`start_logging` is called once by the process, before the node starts. A log call costs the caller a queue entry; a slow
disk or a full pipe blocks the helper thread only. When the queue is full, lines are dropped and counted, because a
reported gap is better than a node that waits for its log (invariant 10). Does not know what is logged.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeAlias

from metasrv.config.levels import OFF, TRACE, Levels, parse_level, parse_levels
from metasrv.config.sections import LogConfig
from metasrv.model.errors import ConfigError, StorageError
from metasrv.model.limits import LOG_QUEUE_RECORDS_MAX
from metasrv.process.logs_file import RotatingFileHandler
from metasrv.process.logs_folding import AUDIT_LOGGER, Folding
from metasrv.process.logs_lines import JsonFormatter, Redactor, TextFormatter, fields_of
from metasrv.process.logs_recent import RecentLines
from metasrv.process.operating_system import show_thread_name
from metasrv.process.standard_streams import StandardErrorHandler

Items: TypeAlias = "queue.Queue[Any]"
VARYING_FIELDS = frozenset({"term", "request_id"})
"""Fields in which a line may differ from the one that it repeats."""


class Sink:
    """A handler and the levels it wants; `overrides` are shared by all sinks and win."""

    def __init__(self, handler: logging.Handler, levels: Levels, overrides: dict[str, int]) -> None:
        self.handler = handler
        self._levels = levels
        self._overrides = overrides

    def level_of(self, logger_name: str) -> int:
        """The level from which records of the logger are wanted; of audit lines what is configured, always."""
        if self._overrides and logger_name != AUDIT_LOGGER:
            base = self._overrides.get("", self._levels.level_of(logger_name))
            return Levels(base, self._overrides).level_of(logger_name)
        return self._levels.level_of(logger_name)

    def configured_level_of(self, logger_name: str) -> int:
        """The level without overrides."""
        return self._levels.level_of(logger_name)

    @property
    def logger_names(self) -> set[str]:
        """Loggers that have a level of their own, the root as the empty name."""
        return {"", AUDIT_LOGGER, *self._levels.loggers, *self._overrides}

    @property
    def configured_names(self) -> set[str]:
        """Loggers to which the configuration gives a level of their own."""
        return set(self._levels.loggers)


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Hands records to the helper thread; drops and counts them when it cannot keep up.

    Which sinks want a record is decided here, when it is logged, so a level that changes while the record waits does
    not affect it. Queue items are pairs of a record and the handlers that get it.
    """

    def __init__(self, items: queue.Queue[Any], sinks: Sequence[Sink], recent: logging.Handler) -> None:
        super().__init__(items)
        self.fields: Callable[[], Mapping[str, Any]] = dict
        self.dropped = 0
        self._dropped_reported = 0
        self._sinks = sinks
        self._recent = recent

    def emit(self, record: logging.LogRecord) -> None:
        handlers = tuple(sink.handler for sink in self._sinks if record.levelno >= sink.level_of(record.name))
        if not handlers:
            return
        try:
            self.queue.put_nowait((self.prepare(record), (*handlers, self._recent)))
            report = self.dropped_report()
            if report is not None:
                self.queue.put_nowait(report)
        except queue.Full:
            self.dropped += 1
        except Exception:  # arguments that do not fit the message; the standard library prints the mistake
            self.handleError(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix the text now: arguments may change before the thread reads them, and frames must not be kept.

        The fields that every line has are added where it does not have them; an audit line says all itself.
        """
        if record.exc_info and not record.exc_text:
            record.exc_text = _EXCEPTIONS.formatException(record.exc_info)
        fixed = logging.makeLogRecord(vars(record))
        fixed.msg, fixed.args, fixed.exc_info = record.getMessage(), None, None
        if record.name != AUDIT_LOGGER:
            given = vars(fixed)
            for name, value in self.fields().items():
                if given.get(name) is None:
                    given[name] = value
        return fixed

    def dropped_report(self) -> tuple[logging.LogRecord, tuple[logging.Handler, ...]] | None:
        """A queue item that tells all sinks how many lines were dropped since the last report; None if none were."""
        lost, self._dropped_reported = self.dropped - self._dropped_reported, self.dropped
        if lost == 0:
            return None
        text = f"{lost} log lines were dropped because the log could not be written fast enough"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        return record, (*(sink.handler for sink in self._sinks), self._recent)


class _Writer(logging.handlers.QueueListener):
    """The helper thread: gives each record to the handlers it waits for."""

    queue: queue.Queue[Any]

    def __init__(self, items: Items) -> None:
        super().__init__(items)
        self._folding = Folding(_write, _lasting_fields)

    def _monitor(self) -> None:
        threading.current_thread().name = "log-writer"
        show_thread_name()
        super()._monitor()  # type: ignore[misc]  # what the thread runs; the type stubs leave it out

    def dequeue(self, block: bool) -> Any:
        """The next item. While nothing comes, the counts of repeated lines are written when they are due."""
        while True:
            try:
                return self.queue.get(block, self._folding.seconds_left() if block else None)
            except queue.Empty:
                if not block:
                    raise
                self._folding.write_due()

    def handle(self, record: Any) -> None:
        fixed, handlers = record
        if fixed is None:
            _write(fixed, handlers)
        else:
            self._folding.take(fixed, handlers)

    def stop(self) -> None:
        """End the thread when it has written what waits, then write the counts of repeated lines."""
        super().stop()
        self._folding.write_all()

    def enqueue_sentinel(self) -> None:
        """The end mark waits for a place in a full queue; the thread is still writing."""
        self.queue.put(None)


def _write(record: logging.LogRecord | None, handlers: tuple[Any, ...]) -> None:
    for handler in handlers:
        handler.handle(record)


class _Reopening:
    """A queue item's handler that reopens a log file instead of writing to it."""

    def __init__(self, file: RotatingFileHandler) -> None:
        self._file = file

    def handle(self, _record: None) -> None:
        self._file.reopen()


class RunningLogs:
    """The sinks of this process; `stop` writes out what waits and puts the root logger back."""

    def __init__(self, sinks: list[Sink], overrides: dict[str, int], redactor: Redactor) -> None:
        self._sinks = sinks
        self._overrides = overrides
        self.hide = redactor.hide
        """Keep further secrets out of the lines; may be called from any thread."""
        self._touched: dict[str, int] = {}
        items: queue.Queue[Any] = queue.Queue(LOG_QUEUE_RECORDS_MAX)
        self._recent = RecentLines(redactor)
        self._recent.setFormatter(TextFormatter(redactor))
        self.recent_lines = self._recent.lines
        """The newest lines that any sink took, as text; may be called from any thread."""
        self._entrance = BoundedQueueHandler(items, sinks, self._recent)
        self._writer = _Writer(items)
        self._running = False

    @property
    def dropped(self) -> int:
        """Records that were lost because the queue was full."""
        return self._entrance.dropped

    def start(self) -> None:
        """Attach to the root logger."""
        root = logging.getLogger()
        self._apply_levels()
        root.addHandler(self._entrance)
        self._writer.start()
        self._running = True

    def stop(self) -> None:
        """Detach, write out every record that waits, close the files. A second call does nothing."""
        if not self._running:
            return
        self._running = False
        logging.getLogger().removeHandler(self._entrance)
        self._writer.stop()
        report = self._entrance.dropped_report()
        if report is not None:
            self._writer.handle(report)
        for sink in self._sinks:
            sink.handler.flush()
            sink.handler.close()
        for name, level in self._touched.items():
            logging.getLogger(name).setLevel(level)

    def describe(self, fields: Callable[[], Mapping[str, Any]]) -> None:
        """Give every line these fields where it does not have them; None is left out. Called on any thread."""
        self._entrance.fields = fields

    def reopen(self) -> None:
        """Have the helper thread open the log files anew, after the lines that wait: they may have been renamed."""
        files = tuple(_Reopening(sink.handler) for sink in self._sinks if isinstance(sink.handler, RotatingFileHandler))
        try:
            self._entrance.queue.put_nowait((None, files))
        except queue.Full:
            logging.getLogger(__name__).warning("the log files are not opened anew: too many lines wait; ask again")

    def set_level(self, logger_name: str, level: str | None) -> None:
        """Override the level of a logger and those below it in all sinks; None removes the override.

        The empty name is every logger without an override of its own. Raises ValueError for an unknown level.
        """
        if level is None:
            self._overrides.pop(logger_name, None)
        else:
            self._overrides[logger_name] = parse_level(level)
        self._apply_levels()

    def level_overrides(self) -> dict[str, int]:
        """The overrides now in force."""
        return dict(self._overrides)

    def level_of(self, logger_name: str) -> int:
        """The lowest level at which any sink takes the logger's records."""
        return min((sink.level_of(logger_name) for sink in self._sinks), default=OFF)

    def configured_level_of(self, logger_name: str) -> int:
        """The same without overrides."""
        return min((sink.configured_level_of(logger_name) for sink in self._sinks), default=OFF)

    def configured_names(self) -> set[str]:
        """The loggers whose level the configuration gives; the empty name is all others."""
        return set().union(*(sink.configured_names for sink in self._sinks), {""})

    def _apply_levels(self) -> None:
        """Give loggers the lowest level any sink wants, so that unwanted records cost nothing."""
        wanted = set().union(*(sink.logger_names for sink in self._sinks), {""})
        for name in wanted | set(self._touched):
            logger = logging.getLogger(name)
            self._touched.setdefault(name, logger.level)
            logger.setLevel(self.level_of(name))


def start_logging(
    config: LogConfig,
    secrets: Sequence[str] = (),
    stderr: IO[str] | None = None,
    *,
    allowed_group: int | None = None,
) -> RunningLogs:
    """Open the configured sinks and attach them to the root logger.

    `secrets` never reach a sink (see `Config.secret_values`); `stderr` replaces standard error.
    A group with the id `allowed_group` keeps its rights to the directory of the log files.
    Raises ConfigError when that directory cannot be written, or others can write to it.
    """
    logging.addLevelName(TRACE, "TRACE")
    redact = Redactor(secrets)
    overrides: dict[str, int] = {}
    sinks: list[Sink] = []
    notice = ""

    def add(handler: logging.Handler, level: str, line_format: str) -> None:
        handler.setFormatter(JsonFormatter(redact) if line_format == "json" else TextFormatter(redact))
        sinks.append(Sink(handler, parse_levels(level), overrides))

    if config.file.on:
        try:
            file_handler = RotatingFileHandler(config.file.dir, config.file.limit, config.file.max_size, allowed_group)
        except OSError as error:
            raise ConfigError(
                [f"`log.file.dir`: {config.file.dir} cannot be written: {error.strerror or error}"]
            ) from error
        except StorageError as error:
            raise ConfigError([f"`log.file.dir`: {error}"]) from error
        notice = file_handler.opening_notice
        add(file_handler, config.file.level, config.file.format)
    if config.stderr.on:
        handler = StandardErrorHandler() if stderr is None else logging.StreamHandler(stderr)
        add(handler, config.stderr.level, config.stderr.format)
    running = RunningLogs(sinks, overrides, redact)
    running.start()
    if notice:
        logging.getLogger(__name__).warning("%s", notice)
    return running


_EXCEPTIONS = logging.Formatter()


def _lasting_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in fields_of(record).items() if name not in VARYING_FIELDS}
