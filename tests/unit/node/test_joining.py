"""Whom a node asks to be let in."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from metasrv.consensus import JoinRequest
from metasrv.model.errors import JoinError, PeerUnreachableError
from metasrv.model.types import Endpoint, Member, Membership, Node
from metasrv.node.joining import join_cluster
from metasrv.testing.hand_clock import HandClock

NODE = Node(3, Endpoint("own", 1), "own:2", None)
LEARNER = Membership({1: Member(Endpoint("one", 1), "directory-1")}, {3: Member(NODE.endpoint, "directory-3")})


class Cluster:
    """A learner's consensus: every address of its configuration is old; it may hear the leader."""

    def __init__(self, leader_id: int | None) -> None:
        self.node_id = 3
        self.forwarding = self.replica = self
        self.belonging = SimpleNamespace(asks_to_join=False)
        self.leader = leader_id
        self.asked: list[int | Endpoint] = []
        self.joined: list[JoinRequest] = []
        self.on_asked: Callable[[], None] = lambda: None

    def leader_id(self) -> int | None:
        return self.leader

    def status(self) -> Any:
        return SimpleNamespace(membership=LEARNER)

    def adopt_cluster(self, cluster_id: str) -> None:
        assert cluster_id == "cluster"

    async def cluster_id(self, target: int | Endpoint, timeout_ms: int) -> str:
        del timeout_ms
        self.asked.append(target)
        self.on_asked()
        if isinstance(target, Endpoint):
            raise PeerUnreachableError(f"{target} cannot be reached")
        return "cluster"

    async def join(self, target: int | Endpoint, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        del target, timeout_ms, hops
        self.joined.append(request)


async def ask(cluster: Any, clock: HandClock, machine: Any = None, timeout_ms: int = 0) -> None:
    found: Any = machine or SimpleNamespace(membership=LEARNER)
    await join_cluster(
        consensus=cluster,
        machine=found,
        node=NODE,
        incarnation="directory-3",
        learner=False,
        addresses=["own:1", "old:1"],
        clock=clock,
        timeout_ms=timeout_ms,
    )


async def test_a_learner_asks_the_leader_that_it_hears_when_its_addresses_are_old() -> None:
    cluster = Cluster(leader_id=1)
    await ask(cluster, HandClock())
    assert cluster.asked == [Endpoint("old", 1), 1]
    assert cluster.joined == [JoinRequest(NODE, "directory-3", False)]


@pytest.mark.parametrize("leader_id", [None, 3])
async def test_without_a_leader_it_gives_up_at_the_deadline(leader_id: int | None) -> None:
    cluster = Cluster(leader_id)
    with pytest.raises(JoinError, match="fail to join node-3 to cluster via") as raised:
        await ask(cluster, HandClock())
    assert str(raised.value).endswith("errors: old:1 cannot be reached"), "the address stands there once"
    assert cluster.asked == [Endpoint("old", 1)]


@pytest.mark.virtual_time
async def test_a_node_that_learns_meanwhile_that_it_votes_asks_nobody_any_more() -> None:
    """It was killed before it had applied its promotion, and may even lead by now: every other node would refuse it."""
    cluster, machine = Cluster(leader_id=None), SimpleNamespace(membership=LEARNER)

    def applied() -> None:
        machine.membership = Membership({**LEARNER.voters, **LEARNER.learners}, {})

    cluster.on_asked = applied
    await ask(cluster, HandClock(), machine, 60_000)
    assert cluster.asked == [Endpoint("old", 1)]
    assert not cluster.joined
    assert not cluster.belonging.asks_to_join
