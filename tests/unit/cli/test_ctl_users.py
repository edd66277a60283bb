"""metactl's commands about passwords and users."""

from __future__ import annotations

import getpass
import io

import pytest

from metasrv.cli import ctl
from metasrv.model.passwords import is_password


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_password_from_stdin_is_hashed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("open sesame\nmore\n"))
    assert ctl.main(["hash-password"]) == 0
    assert is_password("open sesame", capsys.readouterr().out.rstrip("\n"))


def test_an_empty_password_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert ctl.main(["hash-password"]) == 1
    assert "the password is empty" in capsys.readouterr().err


def test_a_terminal_is_asked_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    answers = ["a", "b", "same", "same"]
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: answers.pop(0))
    assert ctl.main(["hash-password"]) == 1
    assert "the two passwords differ" in capsys.readouterr().err
    assert ctl.main(["hash-password"]) == 0
    assert is_password("same", capsys.readouterr().out.rstrip("\n"))
