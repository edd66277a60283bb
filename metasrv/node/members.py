"""Who the members are, how each of them is, and how the membership changes; from any node.

Asks every member over the raft port. What only the leader can do is forwarded to it by the requests with which nodes
join and leave. Refuses what would stop the cluster, with the reason. Must not know HTTP, or what a new node's
configuration looks like. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from metasrv.consensus import Consensus, JoinRequest, Standing
from metasrv.model.errors import (
    ChangeInProgressError,
    InvalidRequestError,
    LeaveSelfError,
    MembershipError,
    MetasrvError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
)
from metasrv.model.reach import LAG_ENTRIES_MAX, Tolerance, counted_tolerance
from metasrv.model.summary import WITHOUT_EVENTS, NodeSummary, SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, Membership, RaftStatus
from metasrv.process.clock import Clock

ASK_TIMEOUT_MS = 1_000
CHANGE_TIMEOUT_MS = 5_000
"""Callers of the admin API wait for ten seconds: for the question to all, a hand-over, and a change."""
HAND_OVER_TIMEOUT_MS = 3_000
_POLL_SECONDS = 0.05


class UnknownMemberError(MembershipError):
    """There is no such member."""


class MemberRequests(Protocol):
    """The part of `raft/forwarding.py` that is used here."""

    async def summary(self, target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer: ...

    async def transfer(self, leader_id: int, to_id: int, timeout_ms: int) -> None: ...

    async def standing(self, target: Endpoint, timeout_ms: int) -> Standing: ...

    async def join(self, target: int | Endpoint, request: JoinRequest, timeout_ms: int, hops: int) -> None: ...

    async def leave(self, target: int | Endpoint, node_id: int, timeout_ms: int, hops: int) -> None: ...


class Overview(NamedTuple):
    """All members at about one instant, as the node that was asked sees them."""

    status: RaftStatus
    summaries: Mapping[int, NodeSummary]
    """What the members said that answered."""
    errors: Mapping[int, str]
    """Why the others did not."""
    older: frozenset[int]
    """Members that are heard, and whose release does not know the question."""

    def answering(self) -> set[int]:
        return {*self.summaries, *self.older}

    def tolerance(self, membership: Membership | None = None) -> Tolerance:
        """With the members that it has, or with other ones."""
        voters = (membership or self.status.membership).voters
        alive = self.answering() & set(voters)
        complete = {node_id for node_id in alive if (self.lag(node_id) or 0) <= LAG_ENTRIES_MAX}
        return counted_tolerance(len(voters), len(alive), len(complete))

    def lag(self, node_id: int) -> int | None:
        """Entries of the leader's log that a member has not applied; None while either is unknown."""
        leader = self.summaries.get(-1 if self.status.leader_id is None else self.status.leader_id)
        summary = self.summaries.get(node_id)
        if leader is None:
            return None
        if summary is not None:
            return max(0, leader.last_log_index - summary.applied_index)
        matched = (self.status.replication or {}).get(node_id)
        return None if matched is None else max(0, leader.last_log_index - matched.index)


class Change(NamedTuple):
    """What an operator is told after a change."""

    changed: str
    tolerance: Tolerance
    next_step: str


class Members:
    """The members of this node's cluster."""

    def __init__(
        self,
        consensus: Consensus,
        requests: MemberRequests,
        clock: Clock,
        own_summary: Callable[[], Awaitable[NodeSummary]],
    ) -> None:
        self._consensus = consensus
        self._requests = requests
        self._clock = clock
        self._own_summary = own_summary
        self._looking = asyncio.Lock()
        self._begun = 0
        self._latest: tuple[int, Overview] | None = None

    async def look(self) -> Overview:
        """An overview that was begun after the call; callers that wait at the same time share one.

        So readers, however many, cost the peers' connections one question at a time.
        """
        begun = self._begun
        async with self._looking:
            if self._latest is not None and self._latest[0] > begun:
                return self._latest[1]
            self._begun += 1
            self._latest = (self._begun, await self.overview())
            return self._latest[1]

    async def overview(self) -> Overview:
        """Ask every member at once; takes no longer than `ASK_TIMEOUT_MS`."""
        status = self._consensus.status()
        members = sorted({*status.membership.voters, *status.membership.learners})
        answers = await asyncio.gather(*(self._ask(status.node_id, node_id) for node_id in members))
        found = dict(zip(members, answers, strict=True))
        return Overview(
            status,
            {node_id: answer for node_id, answer in found.items() if isinstance(answer, NodeSummary)},
            {node_id: str(answer) for node_id, answer in found.items() if isinstance(answer, MetasrvError)},
            frozenset(node_id for node_id, answer in found.items() if isinstance(answer, InvalidRequestError)),
        )

    async def standing(self, endpoint: Endpoint) -> Standing | None:
        """Which node runs at a raft address; None when none answers there."""
        try:
            return await self._requests.standing(endpoint, ASK_TIMEOUT_MS)
        except MetasrvError:
            return None

    async def remove(self, node_id: int, force: bool) -> Change:
        """Remove a member; a leader hands leadership over first. `force` removes one whose loss stops the cluster too.

        Raises UnknownMemberError, MembershipError, NotDoneError, UnknownOutcomeError.
        """
        seen = await self.overview()
        membership = seen.status.membership
        if node_id not in membership and node_id not in seen.status.nodes:
            raise unknown_member(node_id, membership)
        left = without(membership, node_id)
        if node_id in membership.voters:
            refuse_loss(seen, node_id, left, force)
        await self._lead_elsewhere(seen, node_id)
        await self._at_leader(
            lambda left_ms: self._consensus.leave(node_id, left_ms),
            lambda leader_id, left_ms: self._requests.leave(leader_id, node_id, left_ms, hops=1),
        )
        return Change(f"node {node_id} is no longer a member", seen.tolerance(left), after_removal(node_id, left))

    async def promote(self, node_id: int) -> Change:
        """Give a learner its vote, once it has caught up. Raises as `remove`."""
        seen = await self.overview()
        membership = seen.status.membership
        if node_id in membership.voters:
            return Change(f"node {node_id} votes already: nothing was changed", seen.tolerance(), "nothing is to be done")
        member = membership.learners.get(node_id)
        if member is None:
            raise unknown_member(node_id, membership)
        if node_id not in seen.answering():
            raise MembershipError(
                f"node {node_id} does not answer ({seen.errors.get(node_id)}), and a voter that is silent costs the "
                "cluster a failure: start it, then promote it"
            )
        request = JoinRequest(seen.status.registered_or_member(node_id, member), member.incarnation, learner=False)
        await self._at_leader(
            lambda left_ms: self._consensus.join(request, left_ms),
            lambda leader_id, left_ms: self._requests.join(leader_id, request, left_ms, hops=1),
        )
        after = Membership({**membership.voters, node_id: member}, membership.learners)
        next_step = f"take `learner = true` out of the configuration of node {node_id}: a voter does not start with it"
        return Change(
            f"node {node_id} votes from now on", seen.tolerance(after), f"{next_step}{even_hint(len(after.voters))}"
        )

    # ------------------------------------------------------------------------- helpers

    async def _ask(self, own_id: int, node_id: int) -> NodeSummary | MetasrvError:
        try:
            if node_id == own_id:
                return await self._own_summary()
            summary = (await self._requests.summary(node_id, WITHOUT_EVENTS, ASK_TIMEOUT_MS)).summary
        except MetasrvError as error:
            return error
        if summary.started_at_ms is None:
            summary = summary._replace(started_at_ms=max(0, self._clock.wall_ms() - summary.uptime_ms))
        return summary

    async def _lead_elsewhere(self, seen: Overview, node_id: int) -> None:
        """Have another voter lead, if this one does: of those that answer one that is ready, and has applied most."""
        leader_id, own_id = seen.status.leader_id, seen.status.node_id
        if leader_id != node_id:
            return
        others = [other for other in seen.status.membership.voters if other != node_id and other in seen.summaries]
        if not others:
            raise MembershipError(f"node {node_id} leads, and no other voter answers to take leadership over")
        # One that is not ready may be drained, and takes no leadership then.
        to_id = max(others, key=lambda other: (not seen.summaries[other].not_ready, seen.summaries[other].applied_index))
        if leader_id == own_id:
            await self._consensus.transfer_leadership(to_id)
        else:
            await self._requests.transfer(leader_id, to_id, ASK_TIMEOUT_MS)
        deadline = self._clock.monotonic() + HAND_OVER_TIMEOUT_MS / 1000
        while self._consensus.status().leader_id in (None, node_id):
            if self._clock.monotonic() > deadline:
                raise NotDoneError(f"node {node_id} leads, and node {to_id} did not take leadership over in time")
            await asyncio.sleep(_POLL_SECONDS)

    async def _at_leader(
        self, here: Callable[[int], Awaitable[None]], there: Callable[[int, int], Awaitable[None]]
    ) -> None:
        """Have the leader make a change, this node or another one; again, while another change is under way."""
        deadline = self._clock.monotonic() + CHANGE_TIMEOUT_MS / 1000
        while True:
            leader_id = self._consensus.status().leader_id
            left_ms = int((deadline - self._clock.monotonic()) * 1000)
            try:
                if leader_id is None:
                    raise NoLeaderError("no leader is known, and only a leader changes the members")
                if leader_id == self._consensus.status().node_id:
                    await here(max(1, left_ms))
                else:
                    await there(leader_id, max(1, left_ms))
                return
            except (NoLeaderError, NotLeaderError, ChangeInProgressError, LeaveSelfError):
                # Leadership moves, or another change is not committed yet: certainly nothing was done.
                if left_ms <= 0:
                    raise
                await asyncio.sleep(_POLL_SECONDS)


# ----------------------------------------------------------------------------- rules and sentences


def without(membership: Membership, node_id: int) -> Membership:
    """The membership that is left without a node."""
    return Membership(
        {other: member for other, member in membership.voters.items() if other != node_id},
        {other: member for other, member in membership.learners.items() if other != node_id},
    )


def refuse_loss(seen: Overview, node_id: int, left: Membership, force: bool) -> None:
    """Raise MembershipError when the cluster could not go on without this voter."""
    if not left.voters:
        raise MembershipError(
            f"node {node_id} is the last voter; a cluster cannot lose its last member, not by force either: to end the "
            "cluster, stop the node"
        )
    after = seen.tolerance(left)
    if not after.has_majority and not force:
        silent = ", ".join(str(other) for other in sorted(set(left.voters) - seen.answering()))
        raise MembershipError(
            f"node {node_id} cannot be spared: without it {after.counted_text}. Silent: node {silent}. "
            "Start what is silent, or remove that first; with force=true the removal is tried all the same: "
            "it takes effect once a majority of those that stay answers, if no new leader undoes it first"
        )


def unknown_member(node_id: int, membership: Membership) -> UnknownMemberError:
    members = ", ".join(str(other) for other in sorted({*membership.voters, *membership.learners}))
    return UnknownMemberError(f"node {node_id} is no member; the members are {members or 'none yet'}")


def after_removal(node_id: int, left: Membership) -> str:
    """What to do once a node was removed."""
    step = f"stop node {node_id} and move its data directory away: it does not start with it again"
    return step + even_hint(len(left.voters))


def even_hint(count: int) -> str:
    """What to say of an even number of voters; empty for an odd one."""
    if count % 2:
        return ""
    fewer = f"{count - 1} voter{'s' if count > 2 else ''}"
    return f"; {count} voters tolerate no more failures than {fewer}: make the number odd"
