"""How far a long command is: written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from metasrv.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_what_is_done_now_takes_the_place_of_what_was(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("")
    shown.say("exporting")
    shown.say("reading")
    shown.end()
    assert terminal.getvalue() == "\rexporting\x1b[K\rreading\x1b[K\r\x1b[K"


def test_elsewhere_it_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1_000.0
    monkeypatch.setattr("metasrv.cli.progress.time.monotonic", lambda: now)
    shown = Progress("")
    shown.say("first")
    now += 9.9
    shown.say("too soon")
    now += 0.2
    shown.say("second")
    shown.end()
    assert capsys.readouterr().err == "first\nsecond\n"
