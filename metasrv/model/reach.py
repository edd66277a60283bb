"""Which members this node hears, how far they lag, how many of them may still fail, and how that is said.

The one place that decides it: the status, the metrics, the console and the members' routes all ask here.

A member whose process is stopped has an open connection all the same. So it counts as reached only when it was heard
within an election timeout; between nodes that do not lead only the questions about clocks pass, and they get a round of
these more. Pure; must not know who asks.
"""

from __future__ import annotations

from typing import NamedTuple

from metasrv.model.types import PeerProgress, RaftStatus

LAG_ENTRIES_MAX = 1_000
"""A voter that lacks more entries would not be a full replacement, and does not count as one."""


def contact_bound_ms(election_timeout_min_ms: int, election_timeout_max_ms: int, leads: bool) -> int:
    """A member that was not heard for longer is not reached; the shorter timeout is two heartbeats."""
    return election_timeout_max_ms + (0 if leads else election_timeout_min_ms)


def is_heard(peer: PeerProgress, status: RaftStatus) -> bool:
    """Whether the member was heard recently; that its connection is open says nothing."""
    return peer.last_contact_ms is not None and peer.last_contact_ms <= status.contact_bound_ms


def members_heard(status: RaftStatus) -> frozenset[int]:
    """The other members that this node heard recently."""
    return frozenset(peer.node_id for peer in status.peers if is_heard(peer, status))


def expects_contact(peer: PeerProgress, status: RaftStatus) -> bool:
    """Whether silence of this member means something: a leader hears all, the others only the leader they follow.

    Who knows of no leader asks every member for its vote, or where the leader is.
    """
    return status.removed is None and status.leader_id in (None, status.node_id, peer.node_id)


def lag_entries(peer: PeerProgress, status: RaftStatus) -> int | None:
    """Entries that it has not acknowledged; None off the leader and while this leader does not know."""
    if not status.is_leader or peer.match_log_id is None:
        return None
    return max(0, status.last_log_id.index - peer.match_log_id.index)


class Tolerance(NamedTuple):
    """How far the cluster is from standing still."""

    voters_heard: int
    """This node among them, if it votes."""
    voters: int
    failures: int | None
    """Voters that may still fail; None while no leader or no majority is there."""
    text: str

    @property
    def majority(self) -> int:
        return self.voters // 2 + 1

    @property
    def has_majority(self) -> bool:
        """Whether a majority of the voters is heard."""
        return self.voters_heard >= self.majority

    @property
    def spare(self) -> int:
        """Voters that may still fail; below zero, there are too few already."""
        return self.voters_heard - self.majority if self.failures is None else self.failures

    @property
    def counted_text(self) -> str:
        """The text with the numbers that it follows from."""
        if self.voters == 1 == self.voters_heard:
            return self.text
        return f"{self.voters_heard} of {self.voters} voters answer, {self.majority} are needed: {self.text}"


def leaders_tolerance(status: RaftStatus) -> int | None:
    """Voters that may still fail, as this leader knows it; None off the leader, which alone knows how far all are."""
    if not status.is_leader:
        return None
    lags = {peer.node_id: lag for peer in status.peers if (lag := lag_entries(peer, status)) is not None}
    return tolerance(status, members_heard(status), lags).failures


def tolerance(status: RaftStatus, heard: frozenset[int], lags: dict[int, int]) -> Tolerance:
    """From the members that are heard, and the lags that are known."""
    voters = status.membership.voters
    alive = {i for i in voters if i == status.node_id or i in heard}
    count = len(voters)
    if status.removed is not None:
        return Tolerance(0, count, None, "this node is no longer a member of its cluster")
    if not count:
        return Tolerance(0, 0, None, "this node does not belong to a cluster yet")
    complete = sum(lags.get(i, 0) <= LAG_ENTRIES_MAX for i in alive)
    counted = counted_tolerance(count, len(alive), complete)
    if not counted.has_majority:
        return counted._replace(text=f"{len(alive)} of {count} voters heard, {counted.text}")
    if status.leader_id is None:
        text = f"{len(alive)} of {count} voters heard, and none of them leads"
        return counted._replace(failures=None, text=text)
    return counted


def counted_tolerance(voters: int, heard: int, complete: int) -> Tolerance:
    """From numbers alone: of the voters, those that are heard, and of these, those that lack little of the log."""
    majority = voters // 2 + 1
    if heard < majority:
        return Tolerance(heard, voters, None, "writes are refused")
    failures = max(0, complete - majority)
    return Tolerance(heard, voters, failures, _words(failures, voters))


def _words(failures: int, voters: int) -> str:
    if voters == 1:
        return "there is one voter: its failure stops the cluster"
    if failures == 0:
        return "one more failure stops the cluster"
    return "one more failure is tolerated" if failures == 1 else f"{failures} more failures are tolerated"
