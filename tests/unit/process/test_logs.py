"""Log sinks: levels, formats, rotation, secrets, a full queue, a refused directory."""

from __future__ import annotations

import io
import json
import logging
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.config.sections import LogConfig
from metasrv.model.errors import ConfigError
from metasrv.model.limits import LOG_QUEUE_RECORDS_MAX
from metasrv.process.logs import BoundedQueueHandler, RunningLogs, start_logging
from metasrv.process.logs_file import RotatingFileHandler

NOON = 1_763_985_600.0
"""2025-11-24 12:00:00 UTC."""


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    assert root.handlers == handlers
    assert root.level == level


def stderr_only(level: str = "Info", line_format: str = "text") -> LogConfig:
    return LogConfig.model_validate(
        {"file": {"on": False}, "stderr": {"on": True, "level": level, "format": line_format}}
    )


def file_lines(directory: Path) -> list[str]:
    return [line for path in sorted(directory.glob("*.log")) for line in path.read_text("utf-8").splitlines()]


def test_file_sink_writes_json_lines(tmp_path: Path) -> None:
    logs = start_logging(LogConfig.model_validate({"file": {"dir": str(tmp_path / "a" / "b"), "level": "Info"}}))
    logging.getLogger("metasrv.node.meta_node").info("node %d started", 7, extra={"node_id": 7})
    logs.stop()
    (line,) = file_lines(tmp_path / "a" / "b")
    fields = json.loads(line)
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {"level": "INFO", "target": "metasrv.node.meta_node", "message": "node 7 started", "node_id": 7}


def test_each_sink_has_its_own_levels(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = LogConfig.model_validate(
        {
            "file": {"dir": str(tmp_path), "level": "Warn,metasrv.raft=Debug", "format": "text"},
            "stderr": {"on": True, "level": "Error,databend_=Info"},
        }
    )
    logs = start_logging(config, stderr=stream)
    logging.getLogger("metasrv.raft.core.engine").debug("one")
    logging.getLogger("metasrv.admin").info("two")
    logging.getLogger("other").warning("three")
    logging.getLogger("other").info("four")
    assert not logging.getLogger("other").isEnabledFor(logging.INFO)
    logs.stop()
    assert [line.rpartition(" ")[2] for line in file_lines(tmp_path)] == ["one", "three"]
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["two"]


def test_the_engines_logger_is_included() -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only("Warn,openraft=Info"), stderr=stream)
    logging.getLogger("pysyncobj.syncobj").info("elected")
    logs.stop()
    assert "INFO pysyncobj.syncobj: elected" in stream.getvalue()


def test_a_record_is_one_text_line() -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only(), stderr=stream)
    logging.getLogger("x").info("a\nb\r%s", "c\nforged line", extra={"key": "v"})
    logs.stop()
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("INFO x: a\\nb\\rc\\nforged line key=v")


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_secrets_never_reach_a_sink(line_format: str) -> None:
    stream = io.StringIO()
    secrets = ["planted", 'quo"ted\\planted', "ünplanted"]
    logs = start_logging(stderr_only(line_format=line_format), secrets, stream)
    logger = logging.getLogger("x")
    logger.info("message %s %s %s", *secrets)
    logger.info("extra", extra={"secrets": secrets, "one": secrets[1]})
    try:
        raise ValueError(f"trace {secrets[0]} {secrets[2]}")
    except ValueError:
        logger.exception("failed")
    logs.stop()
    text = stream.getvalue()
    assert "planted" not in text
    assert text.count("***") >= 6


def test_secrets_that_are_loaded_later_never_reach_a_sink_and_earlier_ones_stay_hidden() -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only(), ["first"], stream)
    logs.hide(["second"])
    logging.getLogger("x").info("first, then second")
    logs.stop()
    assert stream.getvalue().endswith("x: ***, then ***\n")


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_traces_are_kept(line_format: str) -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only(line_format=line_format), stderr=stream)
    try:
        raise ValueError("why it failed")
    except ValueError:
        logging.getLogger("x").exception("failed")
    logs.stop()
    text = stream.getvalue()
    assert "Traceback (most recent call last)" in text
    assert "why it failed" in text
    if line_format == "json":
        assert json.loads(text)["message"] == "failed"
    else:
        assert text.count("Traceback") == 1


def test_arguments_are_read_when_logged_not_when_written() -> None:
    pipe = _Blocking()
    logs = start_logging(stderr_only(), stderr=pipe)
    values = [1]
    logging.getLogger("x").info("values %s", values)
    values.append(2)
    pipe.released.set()
    logs.stop()
    assert "values [1]" in pipe.getvalue()


def test_a_message_that_does_not_fit_its_arguments_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only(), stderr=stream)
    # Only our handler: the test runner's own would raise.
    logger = logging.getLogger("x")
    made = logger.makeRecord("x", logging.INFO, __file__, 1, "%d and %d", ("one",), None)
    (ours,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, BoundedQueueHandler)]
    ours.handle(made)
    ours.handle(logger.makeRecord("x", logging.INFO, __file__, 1, "next", (), None))
    logs.stop()
    assert "Logging error" in capsys.readouterr().err
    assert stream.getvalue().endswith("x: next\n")


def test_levels_can_be_overridden_while_running() -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only("Warn,metasrv.raft=Error"), stderr=stream)
    raft, other = logging.getLogger("metasrv.raft.core.engine"), logging.getLogger("other")
    raft.info("hidden")
    logs.set_level("metasrv.raft", "Debug")
    raft.debug("shown-1")
    other.info("hidden")
    logs.set_level("", "Info")
    other.info("shown-2")
    raft.debug("shown-3")
    assert logs.level_overrides() == {"metasrv.raft": logging.DEBUG, "": logging.INFO}
    logs.set_level("metasrv.raft", None)
    raft.debug("hidden")
    logs.set_level("", None)
    raft.warning("hidden")
    other.warning("shown-4")
    with pytest.raises(ValueError, match="not a log level"):
        logs.set_level("x", "loud")
    logs.stop()
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == [
        "shown-1", "shown-2", "shown-3", "shown-4",
    ]  # fmt: skip


def test_stop_restores_levels_and_may_be_called_twice() -> None:
    before = logging.getLogger("metasrv.raft").level
    logs = start_logging(stderr_only("Warn,metasrv.raft=Debug"), stderr=io.StringIO())
    assert logging.getLogger("metasrv.raft").level == logging.DEBUG
    logs.stop()
    logs.stop()
    assert logging.getLogger("metasrv.raft").level == before


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_what_a_terminal_would_obey_does_not_get_into_a_log(line_format: str) -> None:
    stream = io.StringIO()
    logs = start_logging(stderr_only(line_format=line_format), stderr=stream)
    logging.getLogger("x").info("a\x1b[31mb\u009bc\x7f\td", extra={"color_message": "\x1b[36mx\x1b[0m"})
    logs.stop()
    (line,) = stream.getvalue().splitlines()
    assert "color_message" not in line
    if line_format == "text":
        assert line.endswith(r"x: a\x1b[31mb\x9bc\x7f\td")
    else:
        assert "\x1b" not in line


def test_no_sink_at_all() -> None:
    logs = start_logging(LogConfig.model_validate({"file": {"on": False}}))
    assert not logging.getLogger("x").isEnabledFor(logging.CRITICAL)
    logs.stop()


class _Blocking(io.StringIO):
    """A pipe that nobody reads until `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str, /) -> int:
        self.reached.set()
        assert self.released.wait(30)
        return super().write(text)


def _fill(logs: RunningLogs, pipe: _Blocking, count: int) -> None:
    """Put `count` records into the queue after one that the helper thread holds."""
    logger = logging.getLogger("x")
    logger.info("held")
    assert pipe.reached.wait(30)
    for number in range(count):
        logger.info("line %d", number)
    assert logs.dropped == max(0, count - LOG_QUEUE_RECORDS_MAX)


@pytest.mark.parametrize("past", [0, 1])
def test_a_full_queue_drops_and_says_so(past: int) -> None:
    pipe = _Blocking()
    logs = start_logging(stderr_only(), stderr=pipe)
    _fill(logs, pipe, LOG_QUEUE_RECORDS_MAX + past)
    pipe.released.set()
    logs.stop()
    lines = pipe.getvalue().splitlines()
    assert len(lines) == LOG_QUEUE_RECORDS_MAX + 1 + past
    assert [line for line in lines if "1 log lines were dropped" in line] == lines[len(lines) - past :]


def test_refused_directory_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: Not a directory") as caught:
        start_logging(LogConfig.model_validate({"file": {"dir": str(tmp_path / "file" / "logs")}}))
    assert caught.value.exit_code == 2


def test_a_loose_directory_of_the_logs_is_tightened_with_a_line(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    directory.chmod(0o755)
    old = directory / "metasrv.2020-01-01-00.log"
    old.touch()
    old.chmod(0o644)
    logs = start_logging(LogConfig.model_validate({"file": {"dir": str(directory)}}))
    logs.stop()
    files = {path.name: path for path in directory.iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (newest,) = files.keys() - {old.name}
    assert "was open to other users (mode 0755)" in files[newest].read_text()


def test_a_directory_of_logs_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "somebody's").touch()
    with pytest.raises(ConfigError, match=r"`log.file.dir`: .* other users \(mode 0777\) can write to it"):
        start_logging(LogConfig.model_validate({"file": {"dir": str(tmp_path)}}))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777


# ----------------------------------------------------------------------------- rotation


def record(text: str, created: float) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None)
    made.created = created
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers open their first file at noon."""
    real = RotatingFileHandler.__init__

    def at_noon(self: RotatingFileHandler, *arguments: Any) -> None:
        monkeypatch.setattr("metasrv.process.logs_file.time", lambda: NOON)
        real(self, *arguments)

    monkeypatch.setattr(RotatingFileHandler, "__init__", at_noon)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.usefixtures("clock")
def test_a_file_an_hour_and_a_limit(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    handler = RotatingFileHandler(str(tmp_path), 2, 1000)
    for hour in range(3):
        handler.emit(record(f"hour {hour}", NOON + hour * 3600))
    handler.emit(record("late", NOON))
    handler.close()
    assert names(tmp_path) == ["metasrv.2025-11-24-13.log", "metasrv.2025-11-24-14.log", "notes.txt"]
    assert file_lines(tmp_path) == ["hour 1", "hour 2", "late"]


@pytest.mark.usefixtures("clock")
def test_a_file_that_would_grow_past_its_size_is_followed_by_another(tmp_path: Path) -> None:
    handler = RotatingFileHandler(str(tmp_path), 10, 10)
    for text in ("1234", "5678", "9", "a line longer than a whole file", "z"):
        handler.emit(record(text, NOON))
    handler.close()
    assert names(tmp_path) == [
        "metasrv.2025-11-24-12.1.log",
        "metasrv.2025-11-24-12.2.log",
        "metasrv.2025-11-24-12.3.log",
        "metasrv.2025-11-24-12.log",
    ]
    assert (tmp_path / "metasrv.2025-11-24-12.log").read_text() == "1234\n5678\n"
    assert (tmp_path / "metasrv.2025-11-24-12.3.log").read_text() == "z\n"


@pytest.mark.usefixtures("clock")
def test_a_restart_goes_on_in_the_newest_file(tmp_path: Path) -> None:
    for text in ("1234", "5678", "90"):
        handler = RotatingFileHandler(str(tmp_path), 10, 10)
        handler.emit(record(text, NOON))
        handler.close()
    assert (tmp_path / "metasrv.2025-11-24-12.log").read_text() == "1234\n5678\n"
    assert (tmp_path / "metasrv.2025-11-24-12.1.log").read_text() == "90\n"


@pytest.mark.usefixtures("clock")
def test_a_directory_that_vanishes_costs_lines_and_is_reported_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "logs"
    handler = RotatingFileHandler(str(directory), 10, 10)
    (directory / "metasrv.2025-11-24-12.log").unlink()
    directory.rmdir()
    for _ in range(3):
        handler.emit(record("lost", NOON + 3600))
    assert capfd.readouterr().err.count("log lines are lost") == 1
    directory.mkdir()
    handler.emit(record("kept", NOON + 3600))
    handler.close()
    assert file_lines(directory) == ["kept"]


@pytest.mark.usefixtures("clock")
def test_a_file_that_was_renamed_is_followed_by_one_of_the_old_name_when_reopened(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    handler = RotatingFileHandler(str(directory), 10, 1000)
    handler.emit(record("first", NOON))
    (directory / "metasrv.2025-11-24-12.log").rename(tmp_path / "rotated")
    handler.emit(record("second", NOON))
    handler.reopen()
    assert names(directory) == ["metasrv.2025-11-24-12.log"], "it is there before the next line"
    handler.emit(record("third", NOON))
    handler.close()
    assert (tmp_path / "rotated").read_text() == "first\nsecond\n"
    assert file_lines(directory) == ["third"]


@pytest.mark.usefixtures("clock")
def test_reopening_makes_a_directory_that_was_removed(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    handler = RotatingFileHandler(str(directory), 10, 1000)
    (directory / "metasrv.2025-11-24-12.log").unlink()
    directory.rmdir()
    handler.reopen()
    handler.emit(record("kept", NOON))
    handler.close()
    assert file_lines(directory) == ["kept"]


def test_running_logs_reopen_behind_the_lines_that_wait(tmp_path: Path) -> None:
    logs = start_logging(LogConfig.model_validate({"file": {"dir": str(tmp_path / "logs"), "level": "Info"}}))
    logging.getLogger("metasrv.x").info("first")
    logs.reopen()
    logging.getLogger("metasrv.x").info("second")
    logs.stop()
    assert [json.loads(line)["message"] for line in file_lines(tmp_path / "logs")] == ["first", "second"]
