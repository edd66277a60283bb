"""A node without an engine: a `NodeContext` over `FakeConsensus`, and statuses to give to it.

For tests of everything above consensus (admin API, gRPC API, metrics, health). Nothing is replicated. Runs on any
event loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metasrv.config.model import Config
from metasrv.metrics.registry import MetricsRegistry
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
        "replication": positions,
        "peers": (PeerProgress(2, positions[2], 3, True, clock_offset_ms=3), PeerProgress(3, None, None, False)),
    }
    return sample_status(**{**leading, **changes})


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
    return context, consensus
