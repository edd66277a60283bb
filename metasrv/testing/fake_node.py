"""A node without an engine: a `NodeContext` whose consensus answers what the test told it.

For tests of everything that only looks at a node (admin API, metrics, health). Nothing is replicated; `FakeConsensus`
records what was asked of it. Runs on any event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from metasrv.config.model import Config
from metasrv.consensus import JoinRequest, TransferResult
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.commands import Command, ErrorReply, FeatureReply, Reply, SetFeature
from metasrv.model.errors import NotLeaderError
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
from metasrv.process.clock import SystemClock
from metasrv.state.machine import StateMachine

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
        peers=(PeerProgress(2, None, 12, True), PeerProgress(3, None, None, False)),
        leader_contact_ms=12,
        has_quorum=True,
        proposals_pending=0,
        proposals_failed=4,
        leader_changes=3,
        last_seq=60665,
        raft_log=RaftLogStatus(10, 2000, 30_000, 20_000, 40_000, 1, 10_000, {"ChunkId(00_000)": 10_000}),
        state_size_bytes=70_000,
        state_log_size_bytes=20_000,
        snapshot=SnapshotStatus(LogId(66, 50000, 3), 90, 10, 8192, building=False, installing=False),
        fatal=None,
    )
    return replace(status, **changes)


def leader_status(**changes: Any) -> RaftStatus:
    """Node 1 leads; node 2 is caught up, node 3 lags and is gone."""
    positions = {1: LogId(67, 53067, 1), 2: LogId(67, 53067, 1), 3: None}
    leading: dict[str, Any] = {
        "state": RaftState.LEADER,
        "leader_id": 1,
        "leader_contact_ms": 0,
        "replication": positions,
        "peers": (PeerProgress(2, positions[2], 3, True), PeerProgress(3, None, None, False)),
    }
    return sample_status(**{**leading, **changes})


@dataclass
class FakeConsensus:
    """Implements `Consensus`: gives `current`, records calls in `asked`, raises `failure` when there is one."""

    current: RaftStatus
    failure: Exception | None = None
    status_failure: Exception | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def status(self) -> RaftStatus:
        if self.status_failure is not None:
            raise self.status_failure
        return self.current

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        self._ask("propose", command, timeout_ms)
        if isinstance(command, SetFeature):
            return FeatureReply((command.feature,) if command.enable else ())
        return ErrorReply(f"the fake has no reply to {type(command).__name__}")

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        return await self.propose(command, timeout_ms)

    async def read_barrier(self, timeout_ms: int) -> None:
        self._ask("read_barrier", timeout_ms)

    async def read_barrier_local(self, timeout_ms: int) -> None:
        self._ask("read_barrier_local", timeout_ms)

    async def wait_applied(self, index: int, timeout_ms: int) -> None:
        self._ask("wait_applied", index, timeout_ms)

    async def trigger_snapshot(self) -> None:
        self._ask("trigger_snapshot")

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        self._ask("transfer_leadership", to_id)
        status = self.current
        if not status.is_leader:
            raise NotLeaderError(status.leader_id)
        voters = sorted(status.membership.voters)
        following = [node_id for node_id in voters if node_id > status.node_id] or voters
        return TransferResult(status.node_id, following[0] if to_id is None else to_id, voters)

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        self._ask("join", request, timeout_ms)

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        self._ask("leave", node_id, timeout_ms)

    def _ask(self, *call: Any) -> None:
        self.asked.append(call)
        if self.failure is not None:
            raise self.failure


def fake_context(machine: StateMachine, config: Config, status: RaftStatus) -> tuple[NodeContext, FakeConsensus]:
    """A node that has joined and whose loop beats."""
    clock = SystemClock()
    consensus = FakeConsensus(status)
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
    return context, consensus
