"""A node without an engine: a `NodeContext` over `FakeConsensus`, and statuses to give to it.

For tests of everything above consensus (admin API, gRPC API, metrics, health). Nothing is replicated. Runs on any
event loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metasrv.config.model import Config
from metasrv.consensus import JoinRequest, Standing
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.errors import PeerUnreachableError
from metasrv.model.summary import NodeSummary, SummaryAnswer, SummaryQuestion
from metasrv.model.types import (
    Endpoint,
    LogId,
    Member,
    Membership,
    Node,
    PeerProgress,
    RaftLogStatus,
    RaftState,
    RaftStatus,
    SnapshotStatus,
)
from metasrv.node.context import NodeContext
from metasrv.node.members import Members
from metasrv.node.own_summary import OwnSummary
from metasrv.process.clock import Clock, SystemClock
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus

BINARY_VERSION = "1.2.3"


def sample_node(node_id: int) -> Node:
    return Node(node_id, Endpoint("localhost", 28102 + node_id), f"0.0.0.0:919{node_id}", f"127.0.0.1:919{node_id}")


def sample_status(**changes: Any) -> RaftStatus:
    """Node 1 follows node 2, of three voters; everything is caught up."""
    nodes = {node_id: sample_node(node_id) for node_id in (1, 2, 3)}
    status = RaftStatus(
        node_id=1,
        cluster_id="c0ffee",
        state=RaftState.FOLLOWER,
        term=67,
        leader_id=2,
        last_log_id=LogId(67, 53067, 2),
        commit_index=53067,
        last_applied=LogId(67, 53067, 2),
        purged=LogId(66, 50000, 3),
        membership=Membership({node_id: Member(node.endpoint, "x") for node_id, node in nodes.items()}),
        membership_committed=True,
        nodes=nodes,
        replication=None,
        peers=(PeerProgress(2, None, 12, True, clock_offset_ms=3), PeerProgress(3, None, None, False)),
        leader_contact_ms=12,
        has_quorum=True,
        contact_bound_ms=2_500,
        proposals_pending=0,
        proposals_failed=4,
        leader_changes=3,
        last_seq=60665,
        raft_log=RaftLogStatus(10, 2000, 30_000, 20_000, 40_000, 1, 10_000, {"ChunkId(00_000)": 10_000}),
        state_size_bytes=70_000,
        state_log_size_bytes=20_000,
        snapshot=SnapshotStatus(LogId(66, 50000, 3), 90, 10, 8192, building=False, installing=False),
        fatal=None,
        clock_offset_ms=-2,
    )
    return replace(status, **changes)


def leader_status(**changes: Any) -> RaftStatus:
    """Node 1 leads; node 2 is caught up, node 3 lags and is gone."""
    positions = {1: LogId(67, 53067, 1), 2: LogId(67, 53067, 1), 3: None}
    leading: dict[str, Any] = {
        "state": RaftState.LEADER,
        "leader_id": 1,
        "leader_contact_ms": 0,
        "contact_bound_ms": 1_500,
        "replication": positions,
        "peers": (PeerProgress(2, positions[2], 3, True, clock_offset_ms=3), PeerProgress(3, None, None, False)),
    }
    return sample_status(**{**leading, **changes})


class FakeMembers:
    """The other members, as `raft/forwarding.py` reaches them: those that the status calls connected answer."""

    def __init__(self, consensus: FakeConsensus) -> None:
        self._consensus = consensus
        self.asked: list[tuple[Any, ...]] = []
        """Every request but those for summaries: its name and arguments."""
        self.standings: dict[Endpoint, Standing] = {}
        """What runs at addresses of nodes that are no members."""
        self.failures: dict[int, Exception] = {}
        """Raised for summaries of these nodes."""

    async def summary(self, target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        del question
        status = self._consensus.status()
        if target in self.failures:
            raise self.failures[target]
        if not any(peer.node_id == target and peer.connected for peer in status.peers):
            raise PeerUnreachableError(f"node {target} did not answer within {timeout_ms} ms")
        index = status.last_log_id.index
        told = NodeSummary(
            node_id=target,
            role="leader" if target == status.leader_id else "follower",
            term=status.term,
            leader_id=status.leader_id,
            version=BINARY_VERSION,
            admin_address="127.0.0.1:28101",
            admin_tls=False,
            uptime_ms=60_000,
            clock_offset_ms=3,
            last_log_index=index,
            applied_index=index - target,
            database_bytes=70_000,
            log_bytes=40_000,
            sync_microseconds=150,
            checks=(),
            lags=(),
            other_clusters=(),
            started_at_ms=1_795_000_000_000,
            certificates=(("grpc", 1_795_000_000),),
        )
        return SummaryAnswer(told, "run", ())

    async def transfer(self, leader_id: int, to_id: int, timeout_ms: int) -> None:
        del timeout_ms
        self.asked.append(("transfer", leader_id, to_id))
        self._consensus.follow(to_id)

    async def standing(self, target: Endpoint, timeout_ms: int) -> Standing:
        if target not in self.standings:
            raise PeerUnreachableError(f"{target} did not answer within {timeout_ms} ms")
        return self.standings[target]

    async def join(self, target: int | Endpoint, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        del timeout_ms, hops
        self.asked.append(("join", target, request))

    async def leave(self, target: int | Endpoint, node_id: int, timeout_ms: int, hops: int) -> None:
        del timeout_ms, hops
        self.asked.append(("leave", target, node_id))


def fake_context(
    machine: StateMachine, config: Config, status: RaftStatus, clock: Clock | None = None, *, commits: bool = False
) -> tuple[NodeContext, FakeConsensus]:
    """A node that has joined and whose loop beats; with `commits`, what is proposed is applied to `machine` at once."""
    clock = clock or SystemClock()
    consensus = FakeConsensus(status, machine if commits else None, clock)
    context = NodeContext(
        config=config,
        consensus=consensus,
        machine=machine,
        metrics=MetricsRegistry(BINARY_VERSION, "abcdef0"),
        clock=clock,
        started_at_ms=clock.wall_ms(),
        binary_version=BINARY_VERSION,
        joined=True,
        loop_beat_at=clock.monotonic(),
    )
    context.members = Members(consensus, FakeMembers(consensus), clock, OwnSummary(context).own)
    return context, consensus
