"""Liveness and readiness of a node: named checks, each with one sentence why.

Liveness is about this process alone and never about the cluster: a node that waits for a leader must not be killed.
Readiness says whether it makes sense to send requests here. The checks are pure functions over `NodeContext`; of the
data directory they read the last look (`directory_probe.py`). Must not know HTTP. Runs on the node's event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from metasrv.model.summary import ALARM
from metasrv.model.types import RaftState, RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryProbe, DirectoryReport

LOOP_BEAT_AGE_SECONDS_MAX = 10.0
"""A loop whose last beat is older than this is stuck, not busy."""
LEADER_CONTACT_ELECTION_TIMEOUTS_MAX = 2
APPLY_LAG_ENTRIES_MAX = 1000
"""Committed entries that a ready node may still have to apply."""
QUOTA_WARNING_SHARE = 0.8
DRAINED_TEXT = "an operator drained this node"


class Check(NamedTuple):
    """The outcome of one check."""

    name: str
    passed: bool
    reason: str
    """One sentence, whatever the outcome."""
    warns: bool = False
    """It passed, but somebody should look."""


def check_liveness(context: NodeContext) -> list[Check]:
    """Whether the process works: its event loop and its engine."""
    return [_check_loop(context), _check_engine(context.consensus.status())]


def check_readiness(context: NodeContext, directory: DirectoryReport | None) -> list[Check]:
    """Whether to send requests here; liveness included. `directory` is the probe's last report."""
    status = context.consensus.status()
    return [
        _check_loop(context),
        _check_engine(status),
        _check_joined(context),
        _check_member(status),
        _check_draining(context, status),
        _check_leader(context, status),
        _check_apply_lag(status),
        _check_disk(status),
        _check_snapshot(status),
        _check_copy(context),
        _check_directory(directory),
        _check_clock(context, status),
        _check_writes(status),
        _check_gateways(context),
    ]


LIVENESS_CHECKS = ("loop", "engine")
READINESS_CHECKS = (
    *LIVENESS_CHECKS,
    "joined",
    "member",
    "draining",
    "leader",
    "apply_lag",
    "disk",
    "snapshot",
    "copy",
    "data_directory",
    "clock",
    "writes",
    "gateways",
)


# ----------------------------------------------------------------------------- checks


def _check_loop(context: NodeContext) -> Check:
    if not context.loop_beat_at:
        return Check("loop", True, "the event loop has just been started")
    age = context.clock.monotonic() - context.loop_beat_at
    if age > LOOP_BEAT_AGE_SECONDS_MAX:
        return Check("loop", False, f"the event loop has not beaten for {age:.1f} s")
    return Check("loop", True, f"the event loop beat {age:.1f} s ago, {context.loop_lag_ms:.0f} ms late")


def _check_engine(status: RaftStatus) -> Check:
    if status.fatal is not None:
        return Check("engine", False, f"the engine has stopped: {status.fatal}")
    if status.state is RaftState.SHUTDOWN:
        return Check("engine", False, "the engine has been shut down")
    return Check("engine", True, f"the engine runs as {status.state.value.lower()} in term {status.term}")


def _check_gateways(context: NodeContext) -> Check:
    """Fails while none serves: clients cannot connect. Warns while some are missing; they are started again."""
    gateways, remote = context.gateways, context.remote_gateways
    linked = 0 if remote is None else remote.linked
    more = f"; linked gateways on other machines: {linked}" if linked else ""
    if gateways is None:
        return Check("gateways", True, f"this process serves the gRPC API itself{more}")
    text = f"{gateways.up} of {gateways.configured} gateways serve the gRPC API{more}"
    return Check("gateways", gateways.up > 0, text, warns=gateways.up < gateways.configured)


def _check_joined(context: NodeContext) -> Check:
    if not context.joined:
        text = "this node has not yet joined and registered with the cluster"
        return Check("joined", False, f"{text}: {context.waiting_for}" if context.waiting_for else text)
    return Check("joined", True, "this node is registered with the cluster")


def _check_member(status: RaftStatus) -> Check:
    if status.removed is not None:
        return Check("member", False, f"this node is no longer a member: {status.removed}")
    return Check("member", True, "this node has not been removed from the cluster")


def _check_draining(context: NodeContext, status: RaftStatus) -> Check:
    if context.draining:
        return Check("draining", False, "this node is shutting down")
    if status.drained:
        text = f"{DRAINED_TEXT}; `metactl node drain {status.node_id} --off` or a restart ends that"
        return Check("draining", False, text)
    return Check("draining", True, "this node is not shutting down")


def _check_leader(context: NodeContext, status: RaftStatus) -> Check:
    if status.leader_id is None:
        return Check("leader", False, "no leader is known")
    if status.is_leader and not status.has_quorum:
        return Check("leader", False, "this node is the leader but is not in contact with a majority of voters")
    age_ms = status.leader_contact_ms
    if age_ms is None:
        return Check("leader", False, f"node {status.leader_id} is said to lead but has not been heard")
    age_ms_max = LEADER_CONTACT_ELECTION_TIMEOUTS_MAX * context.config.raft_config.election_timeout_max_ms
    if age_ms >= age_ms_max:
        text = f"the leader, node {status.leader_id}, was last heard {age_ms} ms ago, the limit is {age_ms_max} ms"
        return Check("leader", False, text)
    if status.is_leader:
        return Check("leader", True, "this node is the leader and has a majority")
    return Check("leader", True, f"the leader, node {status.leader_id}, was heard {age_ms} ms ago")


def _check_apply_lag(status: RaftStatus) -> Check:
    lag = max(0, status.commit_index - status.last_applied.index)
    text = f"{lag} committed entries are not yet applied, the limit is {APPLY_LAG_ENTRIES_MAX}"
    return Check("apply_lag", lag <= APPLY_LAG_ENTRIES_MAX, text)


def _check_disk(status: RaftStatus) -> Check:
    if status.disk_stall is not None:
        return Check("disk", False, status.disk_stall)
    return Check("disk", True, "the disk answers writes of the log and the state")


def _check_snapshot(status: RaftStatus) -> Check:
    if status.snapshot.installing:
        return Check("snapshot", False, "a snapshot from the leader is being installed")
    return Check("snapshot", True, "no snapshot is being installed")


def _check_copy(context: NodeContext) -> Check:
    copies = context.copies
    if copies.damage:
        return Check("copy", False, f"this node's copy of the state is damaged: {copies.damage}")
    if copies.peers:
        # The other copy is wrong, or nobody can say which one is: not a reason to take all nodes out of service.
        return Check("copy", True, f"{ALARM}: {'; '.join(copies.peers[node_id] for node_id in sorted(copies.peers))}")
    if copies.compared_at is None:
        return Check("copy", True, "no other copy of the state has been compared yet")
    age = context.clock.monotonic() - copies.compared_at
    return Check("copy", True, f"the copies of the state were the same {age:.0f} s ago")


def _check_directory(report: DirectoryReport | None) -> Check:
    if report is None:
        return Check("data_directory", False, "the data directory has not been checked yet")
    return Check("data_directory", report.passed, report.reason)


def _check_clock(context: NodeContext, status: RaftStatus) -> Check:
    """Never fails: safety does not depend on clocks, and other nodes would not serve better for this one's silence."""
    bound_ms = context.config.raft_config.clock_offset_max_ms
    own_ms = status.clock_offset_ms
    if own_ms is not None and abs(own_ms) > bound_ms:
        way = "ahead of" if own_ms > 0 else "behind"
        text = f"this node's clock is {abs(own_ms)} ms {way} the majority's, the limit is {bound_ms} ms"
        return Check("clock", True, text, warns=True)
    far = [peer for peer in status.peers if abs(peer.clock_offset_ms or 0) > bound_ms]
    if far:
        named = ", ".join(f"node {peer.node_id} by {peer.clock_offset_ms} ms" for peer in far)
        text = f"clocks differ from this node's by more than {bound_ms} ms: {named}"
        return Check("clock", True, text, warns=True)
    return Check("clock", True, f"no clock is known to differ by more than {bound_ms} ms")


def _check_writes(status: RaftStatus) -> Check:
    """Never fails: reads are served, and no other node of the cluster would take the writes."""
    limits, size_bytes = status.limits, status.data_size_bytes
    if limits.read_only is not None:
        since = datetime.fromtimestamp(limits.read_only_since_ms / 1000, UTC).isoformat(timespec="seconds")
        text = f"the cluster is read-only since {since}{f': {limits.read_only}' if limits.read_only else ''}"
        return Check("writes", True, text, warns=True)
    if not limits.quota_bytes:
        return Check("writes", True, "the cluster takes writes")
    text = f"keys and values take {size_bytes} of {limits.quota_bytes} bytes"
    return Check("writes", True, text, warns=size_bytes >= limits.quota_bytes * QUOTA_WARNING_SHARE)


# ----------------------------------------------------------------------------- texts


class Verdict(NamedTuple):
    """The answer of a probe: whether it passes, and the lines that say why."""

    passed: bool
    text: str


def judge(probe: str, checks: list[Check], excluded: Sequence[str], verbose: bool) -> Verdict:
    """The answer in the form operators know from etcd and Kubernetes.

    A healthy answer is `ok` unless `verbose`; a failing one always lists every check. Excluded checks cannot fail
    the probe; unknown names in `excluded` are only mentioned.
    """
    passed = all(check.passed or check.name in excluded for check in checks)
    if passed and not verbose:
        return Verdict(True, "ok\n")
    lines = []
    for check in checks:
        if check.name in excluded:
            lines.append(f"[+]{check.name} excluded: ok")
        elif check.warns and check.passed:
            lines.append(f"[!]{check.name} warning: {check.reason}")
        elif check.passed:
            lines.append(f"[+]{check.name} ok: {check.reason}")
        else:
            lines.append(f"[-]{check.name} failed: {check.reason}")
    known = {check.name for check in checks}
    lines += [
        f"warn: the excluded check {name!r} does not exist" for name in dict.fromkeys(excluded) if name not in known
    ]
    lines.append("ok" if passed else f"{probe} check failed")
    return Verdict(passed, "\n".join(lines) + "\n")


# ----------------------------------------------------------------------------- monitor


class HealthMonitor:
    """Runs the checks of one node and counts their outcomes in its metrics."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._directory = DirectoryProbe(context.config.raft_config.raft_dir, context.clock.monotonic)

    async def liveness(self) -> list[Check]:
        return self._counted("livez", check_liveness(self._context))

    async def readiness(self) -> list[Check]:
        report = await self._directory.report()
        if report.free_bytes is not None:
            self._context.metrics.disk_free(report.free_bytes)
        return self._counted("readyz", check_readiness(self._context, report))

    def _counted(self, probe: str, checks: list[Check]) -> list[Check]:
        for check in checks:
            self._context.metrics.health_checked(probe, check.name, check.passed)
        return checks
