"""`metactl events`: lines and JSON, what is new with --follow, and nodes that do not tell."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from metasrv.cli import ctl_events


def event(number: int, node_id: int = 2) -> dict[str, Any]:
    return {
        "id": f"{node_id}-run-{number}",
        "time_ms": 1_795_000_000_000 + number,
        "node_id": node_id,
        "kind": "leader",
        "severity": "info",
        "text": f"node 2 leads in term {number}",
        "term": number,
    }


class Client:
    """A node's admin API; each question takes the next answer, and the last one ends the program."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, object]] = []

    def json(self, path: str, members: tuple[str, ...], **query: object) -> dict[str, Any]:
        assert (path, members) == ("/v1/events", ("events", "missing_nodes"))
        self.asked.append(query)
        if not self._answers:
            raise KeyboardInterrupt
        return self._answers.pop(0)


def run(monkeypatch: pytest.MonkeyPatch, client: Client, **arguments: object) -> None:
    monkeypatch.setattr(ctl_events, "client_of", lambda _arguments: client)
    monkeypatch.setattr("metasrv.cli.ctl_events.time.sleep", lambda _seconds: None)
    ctl_events.events(Namespace(**{"follow": False, "output": "text", "limit": 100, "node": None, **arguments}))


def test_each_event_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client({"events": [event(1), event(2)], "missing_nodes": [3]})
    run(monkeypatch, client, limit=7, node=2)
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "2026-11-18T11:06:40.001Z node 2 info     leader         node 2 leads in term 1"
    assert len(out.splitlines()) == 2
    assert err == "without the events of node 3, which does not answer\n"
    assert client.asked == [{"limit": 7, "node": 2}]


def test_json_is_a_line_each_as_it_came(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, Client({"events": [event(1)], "missing_nodes": []}), output="json")
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (event(1), "")


def test_following_prints_only_news(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    late = event(0, node_id=1)
    client = Client(
        {"events": [event(1)], "missing_nodes": [1, 3]},
        {"events": [event(1)], "missing_nodes": [1, 3]},
        {"events": [late, event(1), event(2)], "missing_nodes": []},
    )
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, client, follow=True)
    out, err = capsys.readouterr()
    assert [line.rpartition(" ")[2] for line in out.splitlines()] == ["1", "0", "2"], "an older one of another node, too"
    assert err == "without the events of nodes 1, 3, which do not answer\n", "said once"
    assert client.asked[-1]["since_ms"] == event(2)["time_ms"] - ctl_events.LATE_MS
