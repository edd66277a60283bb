"""Whether an empty node that may begin a cluster begins one, joins one, or waits, and what it says meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from metasrv.consensus import Standing
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.types import Endpoint, Node
from metasrv.node import beginning
from metasrv.node.beginning import begin_or_find
from metasrv.testing.hand_clock import HandClock

OWN = Node(2, Endpoint("own", 1), "own:2", None)
EMPTY, WITH_CLUSTER = Standing(3, None, False), Standing(4, "cluster-b", False)
SILENT = PeerUnreachableError("refused")


class Others:
    """The other nodes, whose answers change from round to round; the last ones stay."""

    def __init__(self, *rounds: dict[str, Standing | PeerUnreachableError], heard: bool = False) -> None:
        self.rounds = list(rounds)
        self.heard = heard
        self.begun = False
        self.meant = False
        self.asked: list[str] = []
        self.forwarding = self.beginning = self
        self.said: list[str] = []

    async def standing(self, target: Endpoint, timeout_ms: int) -> Standing:
        del timeout_ms
        self.asked.append(target.addr)
        answer = self.rounds[0][target.addr]
        if isinstance(answer, Standing):
            return answer
        raise answer

    def waiting(self, text: str) -> None:
        self.said.append(text)
        if len(self.rounds) > 1:
            del self.rounds[0]

    def heard_of_another(self) -> bool:
        return self.heard

    async def begin(self) -> None:
        self.begun = True

    def cluster_id(self) -> str:
        return "cluster-a"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "_FIRST_PAUSE_SECONDS", 0.0)


async def decide(others: Others, *, forced: bool = False) -> bool:
    addresses = ["own:1", *(f"{name}:1" for name in others.rounds[0])]
    consensus: Any = others
    async with asyncio.timeout(5):
        began = await begin_or_find(
            consensus=consensus,
            node=OWN,
            addresses=addresses,
            forced=forced,
            clock=HandClock(),
            waiting=others.waiting,
        )
    assert began is others.begun
    assert "own" not in others.asked
    return began


async def test_it_begins_once_every_address_belongs_to_none() -> None:
    others = Others({"a": EMPTY, "b": SILENT}, {"a": SILENT, "b": EMPTY}, {"a": EMPTY, "b": EMPTY})
    assert await decide(others)
    assert len(others.said) == 2, "answers of different rounds do not add up"
    assert others.said[0].startswith("b:1 has not answered: refused. ")
    assert "--begin-cluster" in others.said[0]


async def test_one_that_knows_a_cluster_is_enough_to_begin_none() -> None:
    others = Others({"a": SILENT, "b": WITH_CLUSTER})
    assert not await decide(others)
    assert not others.meant
    assert not await decide(Others({"a": SILENT, "b": WITH_CLUSTER}), forced=True)


async def test_forced_it_takes_silence_for_an_answer() -> None:
    others = Others({"a": SILENT, "b": SILENT})
    assert await decide(others, forced=True)
    assert others.said == []


async def test_of_two_nodes_that_mean_to_begin_the_lower_id_does() -> None:
    assert await decide(Others({"a": EMPTY, "b": Standing(3, None, True)}))
    others = Others({"a": EMPTY, "b": Standing(1, None, True)}, {"a": EMPTY, "b": Standing(1, "cluster-b", False)})
    assert not await decide(others)
    assert others.said[0].startswith("b:1 is node 1, which is about to begin the cluster itself")


async def test_a_node_that_was_sent_messages_of_a_cluster_begins_none() -> None:
    others = Others({"a": EMPTY}, {"a": WITH_CLUSTER}, heard=True)
    assert not await decide(others)
    assert "a member of some cluster has sent messages" in others.said[0]


async def test_alone_it_begins_at_once() -> None:
    assert await decide(Others({}))
