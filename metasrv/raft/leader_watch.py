"""What makes a leader give way although it is reachable: a clock far off, a disk that does not answer.

Builds both watches, and what hands leadership over, out of one node's replica. Runs while the node is built, on its
event loop.
"""

from __future__ import annotations

from metasrv.raft.clock_hand_over import ClockHandOver
from metasrv.raft.clock_rounds import ClockRounds, round_seconds
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.replica import Replica
from metasrv.raft.stalled_leader import StalledLeader
from metasrv.raft.transfer import LeadershipTransfer


def transfer_of(replica: Replica) -> LeadershipTransfer:
    """Hands leadership over, for whatever reason."""
    resources = replica.resources
    return LeadershipTransfer(
        clock=resources.clock,
        engine=replica.engine,
        store=resources.store,
        driver=replica.driver,
        free=replica.until_free,
        timeout_seconds=resources.settings.election_timeout_max_ms / 1000,
    )


def stalled_leader_of(replica: Replica, transfer: LeadershipTransfer) -> StalledLeader:
    """Hands leadership over when the disk stalls."""
    resources = replica.resources
    return StalledLeader(
        disk=replica.disk,
        engine=replica.engine,
        store=resources.store,
        driver=replica.driver,
        proposals=replica.proposals,
        reads=replica.reads,
        applied=replica.applied,
        transfer=transfer,
        reachable=replica.peers.transport.is_connected,
        free=replica.until_free,
        hand_over_ms=resources.settings.election_timeout_max_ms,
    )


def clock_rounds_of(replica: Replica, transfer: LeadershipTransfer, forwarding: Forwarding) -> ClockRounds:
    """Measures the clocks of the others; a leader whose clock is far off hands leadership over."""
    resources = replica.resources
    settings = resources.settings
    hand_over = ClockHandOver(
        clock=resources.clock,
        engine=replica.engine,
        offsets=replica.clock_offsets,
        leads=lambda: replica.leader_id() == replica.node_id,
        transfer=transfer.start,
        answer_age_seconds_max=settings.election_timeout_min_ms / 1000,
    )
    return ClockRounds(
        clock=resources.clock,
        offsets=replica.clock_offsets,
        pause_seconds=round_seconds(settings.heartbeat_ms),
        peers=replica.connected_members,
        ask=forwarding.wall_ms,
        after_round=hand_over.consider,
    )
