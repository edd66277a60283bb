"""`metactl profile`: the functions that cost most, files in each form, minutes by the time of day."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli import ctl, ctl_profile
from metasrv.cli.ctl_profile import minute_at, top_lines
from metasrv.model.errors import InvalidRequestError

FOLDED = "main (app:1);apply (state:8);put (store:3) 6\nmain (app:2);apply (state:9) 3\nmain (app:1);main (app:7) 1\n"


class Client:
    """A node's admin API that answers one profile, or the members of one object."""

    def __init__(self, body: bytes = FOLDED.encode(), capture: str | None = None, **answer: Any) -> None:
        self._body = body
        self._answer = answer
        self.headers = Message()
        if capture is not None:
            self.headers["x-profile-capture"] = capture
        self.asked: list[tuple[str, dict[str, object]]] = []

    def profile(self, path: str, timeout_seconds: float, **query: object) -> tuple[bytes, Message]:
        self.asked.append((path, {name: value for name, value in query.items() if value is not None}))
        return self._body, self.headers

    def json(self, path: str, members: tuple[str, ...], **_query: object) -> dict[str, Any]:
        assert set(members) <= self._answer.keys()
        self.asked.append((path, {}))
        return self._answer


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *arguments: str) -> int:
    monkeypatch.setattr(ctl_profile, "client_of", lambda _arguments: client)
    return ctl.main(["profile", *arguments])


def test_functions_are_added_up_whatever_their_lines() -> None:
    assert top_lines(FOLDED, "samples", False) == [
        "10 samples",
        "           own   with callees  function",
        "             6              6  put (store)",
        "             3              9  apply (state)",
        "             1             10  main (app)",
    ]
    assert top_lines("", "samples", False) == ["0 samples"]


def test_of_a_difference_the_largest_change_comes_first() -> None:
    assert top_lines("f (a:1) 100 40\ng (b:1) 0 2000\n", "bytes", True) == [
        "+1,940 bytes more than in the earlier profile",
        "           own   with callees  function",
        "        +2,000         +2,000  g (b)",
        "           -60            -60  f (a)",
    ]


def test_a_profile_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(b"f (a:1) 100 40\n", capture="20261127T031205Z")
    assert run(monkeypatch, client, "memory", "--seconds", "2", "--base", "20261127T030000Z", "--small-objects") == 0
    asked = {"format": "folded", "seconds": 2, "base": "20261127T030000Z", "small_objects": "true"}
    assert client.asked == [("/debug/mem/pprof/profile", asked)]
    assert capsys.readouterr().err == "to compare with this one later: --base 20261127T031205Z\n"


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.svg", "svg"), ("a.folded", "folded"), ("a.json", "speedscope"), ("a.pb", "pprof"), ("a", "pprof")],
)
def test_the_name_of_a_file_says_its_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, form: str) -> None:
    client = Client(b"\x00bytes")
    assert run(monkeypatch, client, "cpu", "--idle", "-o", str(tmp_path / name)) == 0
    assert client.asked == [("/debug/pprof/profile", {"format": form, "seconds": 5, "idle": "true"})]
    assert (tmp_path / name).read_bytes() == b"\x00bytes"


def test_a_file_that_cannot_be_written_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, Client(), "cpu", "-o", str(tmp_path / "missing" / "a.svg")) == 1
    assert "a.svg cannot be written: No such file or directory" in capsys.readouterr().err


def test_minutes_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    minute = {"start_ms": 1_795_860_000_000, "looks": 60, "busy_looks": 15}
    assert run(monkeypatch, Client(frequency_hertz=1, minutes=[minute]), "history") == 0
    assert capsys.readouterr().out.splitlines()[1] == "2026-11-28T10:00Z        60    25.0 %"
    assert run(monkeypatch, Client(frequency_hertz=0, minutes=[]), "history") == 1
    assert "`continuous_profile_hertz` is 0" in capsys.readouterr().err


def test_one_minute_by_its_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.cli.ctl_profile.time.time", lambda: 1_795_860_000.0)
    client = Client()
    assert run(monkeypatch, client, "history", "--at", "09:58", "--minutes", "2") == 0
    start_ms = 1_795_860_000_000 - 120_000
    asked = {"format": "folded", "from_ms": start_ms, "to_ms": start_ms + 120_000}
    assert client.asked == [("/v1/profile/history", asked)]


def test_a_time_of_day_is_the_newest_one() -> None:
    now = datetime(2026, 11, 28, 0, 5, 30, tzinfo=UTC).timestamp()
    assert minute_at("00:05", now) == int(datetime(2026, 11, 28, 0, 5, tzinfo=UTC).timestamp()) * 1000
    assert minute_at("23:58", now) == int(datetime(2026, 11, 27, 23, 58, tzinfo=UTC).timestamp()) * 1000
    with pytest.raises(InvalidRequestError, match="'3' is not a time of the day in UTC, such as 03:12"):
        minute_at("3", now)


def test_captures_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kept = json.loads('[{"capture": "20261127T031205Z", "started_at_ms": 1, "seconds": 5}]')
    assert run(monkeypatch, Client(captures=kept), "captures") == 0
    assert capsys.readouterr().out == "20261127T031205Z  5 s\n"
