"""metactl's commands about members and restarts: what they ask, what they print, when they wait and give up."""

from __future__ import annotations

import json
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli import ctl, ctl_members, ctl_restart
from metasrv.cli.ctl_admin import AdminClient
from metasrv.model.errors import NotDoneError
from metasrv.testing.hand_clock import HandClock

CHANGED = {
    "id": 4,
    "changed": "node 4 votes",
    "failure_tolerance": 1,
    "failure_tolerance_text": "one more failure is tolerated",
    "next_step": "rest",
    "configuration": None,
}
JOINING = {**CHANGED, "configuration": "a = 1\nb = 2\n"}


def member(node_id: int, role: str = "voter", **fields: Any) -> dict[str, Any]:
    given = {"id": node_id, "role": role, "votes": role != "learner", "raft_address": f"h:{node_id}", "reachable": True}
    state = {"error": None, "ready": True, "not_ready": None, "warnings": None, "lag": 0, "started_at_ms": 1}
    return {**given, **state, **fields}


def members(*rows: dict[str, Any], tolerance: int = 1) -> dict[str, Any]:
    leader = next((row["id"] for row in rows if row["role"] == "leader"), None)
    voters = sum(row["votes"] for row in rows)
    text = f"{tolerance} may fail"
    return {
        "members": list(rows),
        "leader": leader,
        "voters": voters,
        "failure_tolerance": tolerance,
        "failure_tolerance_text": text,
    }


THREE = members(member(1, "leader"), member(2), member(3), member(4, "learner"))


class Node:
    """Answers as one node's admin API would, and remembers what it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch, answer: dict[str, Any], *views: dict[str, Any] | Exception) -> None:
        """`views` are what it says of the members, one after the other; the last one stays."""
        self.asked: list[tuple[Any, ...]] = []
        coming = list(views)

        def act(_client: AdminClient, method: str, path: str, sent: bytes | None, query: dict[str, object]) -> str:
            self.asked.append((method, path, None if sent is None else json.loads(sent), query))
            return json.dumps(answer)

        def text(_client: AdminClient, _path: str, **_query: object) -> str:
            view = coming.pop(0) if len(coming) > 1 else coming[0]
            if isinstance(view, Exception):
                raise view
            return json.dumps(view)

        patch.setattr(AdminClient, "_act", act)
        patch.setattr(AdminClient, "text", text)
        for module in (ctl_members, ctl_restart):
            patch.setattr(module, "_POLL_SECONDS", 0.0)


def test_each_change_is_one_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(monkeypatch, CHANGED)
    for arguments in (["remove", "4"], ["remove", "4", "--force"], ["promote", "4"], ["replace", "4", "--new-id", "5"]):
        assert ctl.main(["member", *arguments]) == 0
        assert capsys.readouterr().out == "node 4 votes\none more failure is tolerated\nnext: rest\n"
    path = "/v1/cluster/members/4"
    assert node.asked == [
        ("DELETE", path, None, {}),
        ("DELETE", path, None, {"force": "true"}),
        ("POST", f"{path}/promote", {}, {}),
        ("POST", f"{path}/replace", {"id": 5}, {}),
    ]
    assert ctl.main(["member", "promote", "4", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == CHANGED


def test_a_configuration_is_printed_or_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    node = Node(monkeypatch, JOINING)
    adding = ["member", "add", "--raft-address", "h:4", "--learner", "--new-raft-dir", "d"]
    assert ctl.main(adding) == 0
    assert capsys.readouterr().out.endswith("next: rest\n\na = 1\nb = 2\n")
    assert node.asked[0][2] == {"raft_address": "h:4", "learner": True, "raft_dir": "d"}
    file = tmp_path / "node.toml"
    assert ctl.main([*adding, "--config-out", str(file)]) == 0
    assert file.read_text() == JOINING["configuration"]
    assert "a = 1" not in capsys.readouterr().out
    assert ctl.main([*adding, "--config-out", str(file)]) == 1
    assert "exists already; nothing was asked" in capsys.readouterr().err
    assert len(node.asked) == 2
    assert ctl.main([*adding, "--config-out", str(tmp_path / "none" / "node.toml")]) == 1
    assert "a = 1\nb = 2\n" in capsys.readouterr().err, "what was changed already must not be lost"


def test_an_addition_is_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    views: list[dict[str, Any] | Exception] = [members(member(1, "leader")), NotDoneError("nobody listens"), THREE]
    Node(monkeypatch, JOINING, *views, members(member(1, "leader"), member(4)))
    adding = ["member", "add", "--raft-address", "h:4", "--wait", "5"]
    assert ctl.main(adding) == 0
    assert capsys.readouterr().err == "node 4 is a member, ready and level\n"
    Node(monkeypatch, JOINING, THREE)
    assert ctl.main([*adding, "--learner"]) == 0
    clock = HandClock(step_seconds=2.0)
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    capsys.readouterr()
    assert ctl.main(adding) == 1
    assert capsys.readouterr().err == "Error: node 4 is not there after 5 s: it does not vote yet\n"


# ----------------------------------------------------------------------------- looking


def test_health_ends_with_3_and_says_who_is_not_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Node(monkeypatch, {}, THREE)
    assert ctl.main(["endpoint", "health"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 may fail"
    Node(monkeypatch, {}, members(member(1), member(2, ready=False, not_ready="its disk is full"), tolerance=0))
    assert ctl.main(["endpoint", "health", "-o", "json"]) == 3
    printed = capsys.readouterr()
    assert printed.err == "Error: no leader is known; node 2: its disk is full\n"
    assert json.loads(printed.out)["members"][1] == {
        "id": 2,
        "role": "voter",
        "healthy": False,
        "why": "its disk is full",
    }


def test_watching_goes_on_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = members(member(1), member(2, reachable=False, ready=None, error="it is gone"), tolerance=0)
    Node(monkeypatch, {}, THREE, NotDoneError("nothing listens"), silent)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", pause)
    assert ctl.main(["endpoint", "health", "--watch", "7"]) == 130
    printed = capsys.readouterr()
    assert (pauses, printed.err) == ([7, 7, 7], "Error: nothing listens\n")
    assert "it is gone" in printed.out


# ----------------------------------------------------------------------------- restarts


def test_the_leader_is_restarted_last_and_a_learner_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Node(monkeypatch, {}, THREE)
    assert ctl.main(["cluster", "restart-plan", "-o", "jsonl"]) == 0
    assert [json.loads(line)["restart"] for line in capsys.readouterr().out.splitlines()] == [4, 2, 3, 1]


def test_a_restart_that_would_interrupt_writes_is_not_called_safe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Node(monkeypatch, {}, members(member(1, "leader"), member(2), tolerance=0))
    assert ctl.main(["cluster", "restart-plan"]) == 3
    assert "so a restart interrupts writes" in capsys.readouterr().err
    Node(monkeypatch, {}, members(member(1, "leader"), tolerance=0))
    assert ctl.main(["cluster", "restart-plan"]) == 0, "a single node knows no other way"


def test_each_node_is_named_when_the_one_before_is_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = members(member(1, "leader"), member(2))
    down = members(member(1, "leader"), member(2, reachable=False, ready=None, error="it is gone"))
    lagging = members(member(1, "leader"), member(2, started_at_ms=20_000, lag=1000))
    back = members(member(1, "leader"), member(2, started_at_ms=20_000))
    moved = members(member(1, started_at_ms=30_000), member(2, "leader", started_at_ms=20_000))
    node_down = NotDoneError("nothing listens")
    Node(monkeypatch, {}, before, before, before, down, lagging, back, back, back, node_down, moved, moved)
    assert ctl.main(["cluster", "restart-plan", "--wait", "60"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "step 1 of 2: restart node 2, a voter, now",
        "step 2 of 2: restart node 1, a leader, now",
        "every node was restarted, is ready and level",
    ]


@pytest.mark.parametrize(
    ("later", "sentence"),
    [
        (THREE, "node 4 is not back after 5 s: it was not restarted"),
        (members(member(1, "leader")), "node 4 is not back after 5 s: it is no longer a member"),
    ],
)
def test_a_node_that_does_not_come_back_ends_the_walk(
    later: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Node(monkeypatch, {}, THREE, THREE, later)
    monkeypatch.setattr("time.monotonic", HandClock(step_seconds=2.0).monotonic)
    assert ctl.main(["cluster", "restart-plan", "--wait", "5"]) == 1
    assert capsys.readouterr().err == f"Error: {sentence}\n"


# ----------------------------------------------------------------------------- several endpoints


class Connection:
    """One that is taken only by `good`."""

    asked: list[str]

    def __init__(self, address: str, asked: list[str]) -> None:
        self.address = address
        self.asked = asked
        self.status = 200
        self.headers = Message()

    def connect(self) -> None:
        self.asked.append(self.address)
        if self.address != "good":
            raise OSError("refused")

    def request(self, *_: object) -> None:
        """Nothing is sent."""

    def getresponse(self) -> Connection:
        return self

    def read(self, _size_bytes: int) -> bytes:
        return b"{}"

    def close(self) -> None:
        """Nothing is open."""


def test_the_first_endpoint_that_takes_a_connection_is_asked_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(AdminClient, "_connection", lambda client: Connection(client._places[0].host, asked))
    client = AdminClient("bad:1, good:2,other:3")
    assert client.text("/x") == client.text("/x") == "{}"
    assert asked == ["bad", "good", "good"]
    with pytest.raises(NotDoneError, match="no endpoint can be connected to: bad:1: refused; other:3: refused"):
        AdminClient("bad:1,other:3").text("/x")
