"""What metactl writes to terminals, pipes, devices and files."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from metasrv.cli import ctl, ctl_admin, terminal
from metasrv.cli.terminal import opened_for_writing, show, show_text, visible
from metasrv.model.errors import StorageError


class _Terminal(io.TextIOWrapper):
    """Standard output that says whether it is a terminal, in some encoding."""

    def __init__(self, is_terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def written(self) -> bytes:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain/key 1", "plain/key 1"),
        ("ü/漢字/🙂", "ü/漢字/🙂"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\rd\0", "a\\nb\\tc\\rd\\x00"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_pipes_get_the_bytes_and_terminals_what_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, expected in ((False, "a\x1bü\nb\n"), (True, "a\\x1bü\\nb\n")):
        stream = _Terminal(is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        show("a\x1bü\nb")
        assert stream.written() == expected.encode()


def test_a_text_of_several_lines_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stdout", stream)
    show_text("a\nb\x1b")
    assert stream.written() == b"a\nb\\x1b\n"


@pytest.mark.parametrize(("is_terminal", "expected"), [(True, b"\\xfc\\u6f22\n"), (False, "ü漢\n".encode())])
def test_an_ascii_locale_ends_nothing(is_terminal: bool, expected: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal(is_terminal, "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(ctl_admin, "metrics", lambda arguments: show("ü漢"))
    assert ctl.main(["metrics"]) == 0
    assert stream.written() == expected


class _Broken(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (
            OSError(28, "No space left on device"),
            1,
            "Error: standard output cannot be written: No space left on device\n",
        ),
    ],
)
@pytest.mark.parametrize("arguments", [["metrics"], ["--help"], []])
def test_output_that_is_not_taken_ends_in_no_traceback(
    arguments: list[str],
    error: OSError,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ctl_admin, "metrics", lambda arguments: show("text"))
    monkeypatch.setattr(sys, "stdout", _Broken(error))
    assert ctl.main(arguments) == code
    assert capsys.readouterr().err == text


def test_closed_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ctl_admin, "metrics", lambda arguments: show("text"))
    monkeypatch.setattr(sys, "stdout", None)
    assert ctl.main(["metrics"]) == 1
    assert capsys.readouterr().err == "Error: standard output is closed\n"
    monkeypatch.setattr(sys, "stderr", None)
    assert ctl.main(["metrics"]) == 1
    terminal.note("nobody hears it")


def test_a_pipe_is_written_through_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with opened_for_writing(str(path)) as file:
            file.write("line\n")
        assert os.read(reading, 100) == b"line\n"
    finally:
        os.close(reading)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_and_a_link_stay_what_they_are(tmp_path: Path) -> None:
    device, link, target = tmp_path / "device", tmp_path / "link", tmp_path / "target"
    device.symlink_to(os.devnull)
    target.write_text("old")
    link.symlink_to(target)
    for path in (device, link):
        with opened_for_writing(str(path)) as file:
            file.write("new\n")
        assert path.is_symlink()
    assert target.read_text() == "new\n"
    assert Path(os.devnull).is_char_device()


def test_standard_output_by_its_name_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with opened_for_writing("/dev/stdout") as file:
        file.write("line\n")
    assert capsys.readouterr().out == "line\n"
    assert os.path.realpath("/dev/stdout") != "/dev/stdout.part"


def test_a_directory_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written: Is a directory"), opened_for_writing(str(tmp_path)):
        raise AssertionError("it was opened")
