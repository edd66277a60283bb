"""`--rebuild` moves data aside only when another node says where new data comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import RaftConfig
from metasrv.consensus import Standing
from metasrv.model.errors import ConfigError, IdentityError, JoinError, NotDoneError
from metasrv.model.types import Endpoint
from metasrv.node import rebuilding
from metasrv.node.rebuilding import set_aside
from metasrv.process.data_directory import DataDirectory
from metasrv.testing.hand_clock import HandClock

Answers = dict[str, Standing | NotDoneError]


class Others:
    """The transport and the questions that are asked over it."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.closed = False

    async def standing(self, target: Endpoint, timeout_ms: int) -> Standing:
        del timeout_ms
        answer = self.answers[str(target)]
        if isinstance(answer, NotDoneError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


def used(root: Path) -> Path:
    directory = DataDirectory.open(str(root), 3)
    directory.complete("cluster-a")
    directory.close()
    return root


async def rebuild(root: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> str | None:
    others: Any = Others(answers)
    monkeypatch.setattr(rebuilding, "one_shot_transport", lambda _raft, _clock: others)
    monkeypatch.setattr(rebuilding, "Forwarding", lambda _transport: others)
    raft = RaftConfig(id=3, raft_dir=str(root), join=tuple(answers))
    try:
        return await set_aside(raft, HandClock())
    finally:
        assert others.closed or not answers


KNOWS = Standing(1, "cluster-a", False)
EMPTY = Standing(2, None, True)
SILENT = NotDoneError("connection refused")


async def test_one_node_that_knows_the_cluster_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = await rebuild(used(tmp_path), {"a:1": SILENT, "b:2": KNOWS}, monkeypatch)
    assert place is not None
    assert (Path(place) / "node.json").exists()
    assert not (tmp_path / "node.json").exists()
    assert await rebuild(tmp_path, {"b:2": KNOWS}, monkeypatch) is None, "there is nothing left to move"


@pytest.mark.parametrize(
    ("answers", "error", "said"),
    [
        ({}, ConfigError, ""),
        ({"a:1": SILENT}, JoinError, ": a:1: connection refused"),
        ({"a:1": NotDoneError("a:1 cannot be reached")}, JoinError, ": a:1 cannot be reached"),
        ({"a:1": EMPTY, "b:2": SILENT}, JoinError, ": a:1: cluster none; b:2: connection refused"),
        ({"a:1": KNOWS, "b:2": Standing(2, "cluster-b", False)}, JoinError, "; b:2: cluster cluster-b"),
        ({"a:1": Standing(1, "cluster-b", False)}, IdentityError, ""),
    ],
)
async def test_otherwise_nothing_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: Answers, error: type[Exception], said: str
) -> None:
    used(tmp_path)
    with pytest.raises(error) as raised:
        await rebuild(tmp_path, answers, monkeypatch)
    assert str(raised.value).endswith(said)
    assert (tmp_path / "node.json").exists()
