"""What is wrong with the cluster, in sentences, as this node sees it, each with the runbook that helps.

Pure functions over what is known at one instant: a status, who is heard, and what the members said of themselves. Must
not know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from metasrv.model.reach import LAG_ENTRIES_MAX, Tolerance
from metasrv.model.summary import CheckResult, NodeSummary
from metasrv.model.types import RaftStatus
from metasrv.node.health import DRAINED_TEXT, QUOTA_WARNING_SHARE

RUNBOOK_OF_CHECK: Mapping[str, str] = {
    "joined": "no-leader",
    "member": "removed-node",
    "leader": "no-leader",
    "apply_lag": "lagging-node",
    "disk": "disk-stalls",
    "snapshot": "lagging-node",
    "copy": "damaged-copy",
    "data_directory": "disk-full",
    "clock": "wrong-clock",
    "writes": "quota",
}
SLOW_SYNC_MICROSECONDS = 100_000
"""A disk whose writes take longer, in the mean of some seconds, is slow."""
_CRITICAL, _WARNING = "critical", "warning"
_TITLES: Mapping[str, tuple[str, str]] = {
    "member": (_CRITICAL, "Node {} was removed from the cluster"),
    "apply_lag": (_WARNING, "Node {} lags behind"),
    "disk": (_CRITICAL, "The disk of node {} does not answer"),
    "data_directory": (_CRITICAL, "The disk of node {} is full or cannot be written"),
    "clock": (_WARNING, "The clock of node {} is off"),
    "copy": (_CRITICAL, "Copies of the state differ"),
    "draining": (_WARNING, "Node {} is drained"),
    "engine": (_CRITICAL, "Node {} has stopped"),
    "loop": (_CRITICAL, "Node {} is stuck"),
}
"""Severity and title of what a node says of itself; other checks follow from what is said of the cluster."""
_LASTING = frozenset({"disk", "data_directory", "copy"})
"""Checks that fail for as long as nobody mends something: of a node that fell silent since, they are probably why."""


class Problem(NamedTuple):
    """One thing that somebody should look at."""

    severity: str
    title: str
    text: str
    node_id: int | None
    runbook: str | None

    def view(self) -> dict[str, Any]:
        return self._asdict()


class Seen(NamedTuple):
    """What is known at one instant."""

    status: RaftStatus
    tolerance: Tolerance
    heard: frozenset[int]
    """The other members that this node hears."""
    silent_ms: Mapping[int, int | None]
    """The other members that it does not hear, with the time since it did, None for never."""
    summaries: Mapping[int, NodeSummary]
    """What this node says of itself, and the newest of each node that is heard."""
    lags: Mapping[int, int]
    last_words: Mapping[int, tuple[CheckResult, ...]]
    """The checks that failed when silent members last told of themselves."""
    removed: str | None


def problems(seen: Seen) -> list[dict[str, Any]]:
    """The gravest first, and each only once."""
    found = dict.fromkeys([*_of_the_cluster(seen), *_of_the_members(seen), *_of_the_nodes(seen)])
    return [problem.view() for problem in sorted(found, key=lambda problem: problem.severity != _CRITICAL)]


def _of_the_cluster(seen: Seen) -> Iterator[Problem]:
    status, tolerance = seen.status, seen.tolerance
    if seen.removed is not None or not tolerance.voters:
        return
    if not tolerance.has_majority:
        text = f"{tolerance.text}. Reads that need a majority fail as well, stale reads are answered."
        yield Problem(_CRITICAL, "No majority", _sentence(text), None, "no-leader")
    elif status.leader_id is None:
        yield Problem(_CRITICAL, "No leader", "No leader is known, writes are refused.", None, "no-leader")
    limits, size_bytes = status.limits, status.data_size_bytes
    if limits.read_only is not None:
        since = datetime.fromtimestamp(limits.read_only_since_ms / 1000, UTC)
        text = f"An operator turned writes off at {since:%Y-%m-%d %H:%M:%S} UTC"
        text += f": {limits.read_only}" if limits.read_only else ""
        text += "; `metactl cluster read-only off` takes them again"
        yield Problem(_WARNING, "The cluster is read-only", _sentence(text), None, "quota")
    if limits.quota_bytes and size_bytes >= limits.quota_bytes * QUOTA_WARNING_SHARE:
        text = f"Keys and values take {size_bytes:,} of {limits.quota_bytes:,} bytes. Writes past that are refused."
        used_up = size_bytes >= limits.quota_bytes
        title = "The quota is used up" if used_up else "The quota is nearly used up"
        yield Problem(_CRITICAL if used_up else _WARNING, title, text, None, "quota")


def _of_the_members(seen: Seen) -> Iterator[Problem]:
    if seen.removed is not None:
        return
    for node_id, silent_ms in seen.silent_ms.items():
        if any(other == node_id for other, _ in _other_clusters(seen)):
            continue
        kind = "voter" if node_id in seen.status.membership.voters else "learner"
        since = "since this node started" if silent_ms is None else f"for {silent_ms / 1000:,.1f} s"
        text = f"Node {node_id}, a {kind}, was not heard {since}: it is down, stopped or cut off."
        last_words = seen.last_words.get(node_id, ())
        if last_words:
            text += f" It last said: {last_words[0].reason}."
        yield Problem(_WARNING, f"Node {node_id} is silent", text, node_id, "silent-node")
        for check in last_words:
            if check.name in _LASTING:
                severity, title = _TITLES[check.name]
                said = f"It last said: {check.reason}."
                yield Problem(severity, title.format(node_id), said, node_id, RUNBOOK_OF_CHECK.get(check.name))
    for node_id, lag in seen.lags.items():
        if lag > LAG_ENTRIES_MAX and node_id in seen.heard:
            text = f"It lacks {lag:,} entries of the log, the limit is {LAG_ENTRIES_MAX:,}."
            yield Problem(_WARNING, f"Node {node_id} lags behind", text, node_id, "lagging-node")
    for node_id, cluster_id in _other_clusters(seen):
        text = f"Cluster {cluster_id} answers at the address of node {node_id}: clients may read and write there."
        yield Problem(_CRITICAL, f"Another cluster answers for node {node_id}", text, node_id, "another-cluster")


def _of_the_nodes(seen: Seen) -> Iterator[Problem]:
    lagging = {node_id for node_id, lag in seen.lags.items() if lag > LAG_ENTRIES_MAX}
    for node_id, summary in seen.summaries.items():
        for check in summary.checks:
            severity, title = _TITLES.get(check.name, (_WARNING, ""))
            if not title or (check.passed and not check.deserves_a_look):
                continue
            if check.name == "apply_lag" and node_id in lagging:
                continue
            if check.name == "clock" and not check.reason.startswith("this node's clock"):
                continue  # the node whose clock is off says so itself
            if check.name == "draining" and not check.reason.startswith(DRAINED_TEXT):
                continue  # it stops, as its event says
            # Said by that node of itself; here it stands beside what is said of others.
            text = _sentence(check.reason.replace("this node", f"node {node_id}"))
            yield Problem(severity, title.format(node_id), text, node_id, RUNBOOK_OF_CHECK.get(check.name))
        sync = summary.sync_microseconds
        if sync is not None and sync > SLOW_SYNC_MICROSECONDS:
            text = f"A write of its log takes {sync / 1000:,.0f} ms in the mean."
            yield Problem(_WARNING, f"The disk of node {node_id} is slow", text, node_id, "slow-writes")


def _other_clusters(seen: Seen) -> list[tuple[int, str]]:
    """Each once, whoever sees it."""
    found = (pair for summary in seen.summaries.values() for pair in summary.other_clusters)
    return list(dict.fromkeys(found))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
