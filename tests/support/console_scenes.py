"""What a node tells the console of its cluster, one scene a state: the answers of `GET /v1/console`.

The statuses are made up; the sentences, checks and problems are those of the node's own code, so that no picture and no
test of the page shows what no node says. `tests/support/console_server.py` serves them. Deterministic, but for the wall
clock of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from metasrv.config.model import Config, RaftConfig
from metasrv.console.known_nodes import KnownNode, KnownNodes
from metasrv.console.sampling import PeerRates
from metasrv.console.state import Knowledge, state_view
from metasrv.model.summary import NodeSummary
from metasrv.model.types import (
    Endpoint,
    LogId,
    Member,
    Membership,
    Node,
    PeerProgress,
    RaftState,
    RaftStatus,
    WriteLimits,
)
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryReport
from metasrv.node.own_summary import OwnSummary
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status
from metasrv.testing.hand_clock import HandClock

View = dict[str, Any]
MEBIBYTE = 1024 * 1024
HEARTBEAT_MS = 62
DAY_MS = 86_400_000
MONOTONIC_SECONDS = 400_000.0
VERSION = "0.3.0+1ed2298a0c11"
CLOCKS_MS = {1: -1, 2: 2, 3: 0, 4: 1, 5: 0, 6: -2, 7: 1}
"""Each node's clock less the majority's."""
DIRECTORY = DirectoryReport(True, "the data directory can be written and has 78.3 GiB left", 80_217 * MEBIBYTE, 0.0)


@dataclass(frozen=True)
class Scene:
    """A cluster at one instant, as node `here` sees it."""

    here: int = 1
    leader: int | None = 1
    voters: tuple[int, ...] = (1, 2, 3)
    learners: tuple[int, ...] = ()
    silent: Mapping[int, int | None] = field(default_factory=dict)
    """Nodes that `here` does not hear, with the milliseconds since it did; None: not since it started."""
    lacks: Mapping[int, int] = field(default_factory=dict)
    """Entries of the leader's log that a node does not have."""
    statuses: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """What differs in a node's status."""
    directories: Mapping[int, DirectoryReport] = field(default_factory=dict)
    """What a node's last look at its data directory found."""
    clocks_ms: Mapping[int, int] = field(default_factory=lambda: CLOCKS_MS)
    sync_seconds: Mapping[int, float] = field(default_factory=dict)
    cluster_name: str = "orders"
    key_count: int = 48_310
    last_index: int = 1_284_467
    term: int = 7
    database_bytes: int = 212 * MEBIBYTE
    log_bytes: int = 18 * MEBIBYTE
    uptime_ms: int = 3 * DAY_MS
    waiting_for: str = ""
    """What `here` waits for before it is a member."""
    is_local: bool = False
    """All nodes run on one machine, as `make run` starts them."""

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted({*self.voters, *self.learners}))

    def hears(self, node_id: int) -> bool:
        return node_id not in self.silent


# ----------------------------------------------------------------------------- what a node knows


def _node(scene: Scene, node_id: int) -> Node:
    if scene.is_local:
        grpc = f"127.0.0.1:{9091 + 100 * node_id}"
        return Node(node_id, Endpoint("127.0.0.1", 28003 + 100 * node_id), grpc, grpc)
    name = f"meta{node_id}.example"
    return Node(node_id, Endpoint(name, 28103), f"0.0.0.0:{9191}", f"{name}:9191")


def _admin(scene: Scene, node_id: int) -> Endpoint:
    return Endpoint("127.0.0.1", 28001 + 100 * node_id) if scene.is_local else Endpoint(f"10.0.4.{10 + node_id}", 28101)


def _status(scene: Scene, node_id: int) -> RaftStatus:
    """The status of one node; of a silent one, as it was when it was last heard."""
    leads = node_id == scene.leader
    index = scene.last_index - scene.lacks.get(node_id, 0)
    log_id = LogId(scene.term, index, scene.leader or 1)
    state = RaftState.LEADER if leads else RaftState.LEARNER if node_id in scene.learners else RaftState.FOLLOWER
    if scene.leader is None and node_id == scene.here and node_id in scene.voters:
        state = RaftState.CANDIDATE
    heard = sum(scene.hears(voter) for voter in scene.voters)
    nodes = {one: _node(scene, one) for one in scene.members}
    base = sample_status()
    status = replace(
        base,
        node_id=node_id,
        cluster_id="6f1c2b7e90aa41d3",
        state=state,
        term=scene.term,
        leader_id=scene.leader,
        last_log_id=log_id,
        commit_index=index,
        last_applied=log_id,
        membership=Membership(
            {one: Member(nodes[one].endpoint, "x") for one in scene.voters},
            {one: Member(nodes[one].endpoint, "x") for one in scene.learners},
        ),
        nodes=nodes,
        peers=tuple(_peer(scene, node_id, one) for one in scene.members if one != node_id),
        leader_contact_ms=None if scene.leader is None else 0 if leads else HEARTBEAT_MS,
        has_quorum=2 * heard > len(scene.voters),
        contact_bound_ms=1_500 if leads else 2_500,
        raft_log=base.raft_log._replace(wal_total_size=scene.log_bytes),
        state_size_bytes=scene.database_bytes,
        clock_offset_ms=scene.clocks_ms.get(node_id),
        data_size_bytes=scene.database_bytes // 2,
    )
    return replace(status, **scene.statuses.get(node_id, {}))


def _peer(scene: Scene, node_id: int, other: int) -> PeerProgress:
    """What `node_id` knows of `other`."""
    index = scene.last_index - scene.lacks.get(other, 0)
    return PeerProgress(
        node_id=other,
        match_log_id=LogId(scene.term, index, node_id) if node_id == scene.leader else None,
        last_contact_ms=scene.silent.get(other, 40 + 11 * other),
        connected=scene.hears(other),
        clock_offset_ms=scene.clocks_ms.get(other, 0) - scene.clocks_ms.get(node_id, 0),
    )


def _context(scene: Scene, node_id: int, status: RaftStatus, clock: HandClock) -> NodeContext:
    config = Config(
        admin_api_address=str(_admin(scene, node_id)),
        raft_config=RaftConfig(id=node_id, cluster_name=scene.cluster_name, raft_dir="/var/lib/metasrv"),
    )
    machine = cast(StateMachine, SimpleNamespace(key_count=scene.key_count))
    context, _ = fake_context(machine, config, status, clock)
    context.binary_version = VERSION
    context.started_at_ms = clock.wall_ms() - scene.uptime_ms - node_id * scene.uptime_ms // 60
    context.listeners["admin"] = _admin(scene, node_id)
    context.directory = scene.directories.get(node_id, DIRECTORY)
    context.copies.compared_at = clock.now - 1.0
    context.log_sync_seconds = scene.sync_seconds.get(node_id, 0.0009)
    context.loop_lag_ms = 2.0
    if scene.waiting_for:
        context.joined = False
        context.set_waiting_for(scene.waiting_for)
    return context


def _told(scene: Scene, node_id: int, clock: HandClock) -> NodeSummary:
    """What the node says of itself to the others."""
    status = _status(scene, node_id)
    return OwnSummary(_context(scene, node_id, status, clock)).summary(status)


def state(scene: Scene, now_ms: int) -> View:
    """What node `scene.here` answers."""
    clock = HandClock(MONOTONIC_SECONDS, epoch_ms=now_ms - round(MONOTONIC_SECONDS * 1000))
    status = _status(scene, scene.here)
    context = _context(scene, scene.here, status, clock)
    known = KnownNodes(context, lambda _node_id, _incarnation, _event: None)
    rates = PeerRates(context)
    peers = context.metrics.peers
    for seconds in (0, 2):  # two looks, as rates need them
        for other in (one for one in scene.members if one != scene.here and scene.hears(one)):
            share = scene.database_bytes // (2**20 * 212 // 1000) if scene.database_bytes > MEBIBYTE else 4
            peers.sent_bytes.add(str(other), seconds * (412 + other) * share)
            peers.received_bytes.add(str(status.nodes[other].endpoint), seconds * (398 + other) * share)
        rates.look(seconds)
    for other in scene.members:
        if other == scene.here or scene.silent.get(other, 0) is None:
            continue
        node = known.all()[other] = KnownNode()
        node.summary = _told(scene, other, clock)
        node.answers = scene.hears(other)
        node.told_at = clock.now - 0.8 - scene.silent.get(other, 0) / 1000  # type: ignore[operator]  # None is left out
        node.round_trip_ms = round(0.31 + other / 10, 2) if node.answers else None
    own = OwnSummary(context).summary(status)
    return state_view(Knowledge(context, status, own, known, rates))


# ----------------------------------------------------------------------------- scenes

NOBODY = {1: 21_400, 2: 21_400, 3: 21_400}
STALLED = "the disk stalls: a write of the raft log has not finished for 14.2 s"
FULL = DirectoryReport(
    False, "the data directory /var/lib/metasrv has 30.0 MiB left, the limit is 64.0 MiB", 31_457_280, 0.0
)
READ_ONLY = WriteLimits(read_only="moving to meta-b", read_only_since_ms=1_795_820_000_000)
QUOTA = WriteLimits(quota_bytes=120 * MEBIBYTE)


def _everywhere(**changes: Any) -> Mapping[int, Mapping[str, Any]]:
    """The same of all three nodes: what the cluster has agreed on."""
    return dict.fromkeys((1, 2, 3), changes)


SCENES: dict[str, Scene] = {
    "healthy": Scene(),
    "one-node-lost": Scene(silent={3: 48_200}, lacks={3: 1_842}),
    "lagging": Scene(lacks={2: 1_310}, sync_seconds={2: 0.48}),
    "no-leader": Scene(leader=None),
    "no-majority": Scene(leader=None, silent={2: 48_200, 3: 51_900}),
    "learner": Scene(here=4, learners=(4,), lacks={4: 220}),
    "removed": Scene(
        here=4,
        learners=(4,),
        silent=NOBODY,
        statuses={
            4: {
                "removed": "node 4 was removed from its cluster",
                "leader_contact_ms": None,
                "clock_offset_ms": None,
                "peers": tuple(PeerProgress(one, None, None, connected=False) for one in (1, 2, 3)),
            }
        },
    ),
    "read-only": Scene(statuses=_everywhere(limits=READ_ONLY)),
    "quota": Scene(statuses=_everywhere(limits=QUOTA)),
    "disk-stalls": Scene(
        here=2,
        leader=2,
        term=8,
        lacks={1: 11_900},
        statuses={1: {"disk_stall": STALLED, "disk_stalled_seconds": 14.2}},
        sync_seconds={1: 2.1},
    ),
    "disk-full": Scene(here=2, leader=2, term=8, directories={1: FULL}),
    "clock-off": Scene(clocks_ms={**CLOCKS_MS, 3: 4_210}),
    "drained": Scene(here=2, statuses={2: {"drained": True}}),
    "first-start": Scene(
        cluster_name="local",
        key_count=0,
        last_index=12,
        term=1,
        database_bytes=84_000,
        log_bytes=16_384,
        uptime_ms=41_000,
        is_local=True,
    ),
    "waiting": Scene(
        here=2,
        leader=None,
        voters=(),
        key_count=0,
        term=0,
        waiting_for="meta1.example:28103: no connection within 2000 ms",
    ),
    "lone": Scene(voters=(1,)),
    "seven": Scene(
        here=2, leader=3, voters=(1, 2, 3, 4, 5, 6), learners=(7,), silent={5: 48_200}, lacks={5: 1_842, 7: 12}
    ),
}

STATES: dict[str, Callable[[int], View]] = {name: partial(state, scene) for name, scene in SCENES.items()}
"""Each takes the wall clock in milliseconds."""
