"""Membership changes, one at a time (D6): join as a learner, vote after catching up, move, leave.

Each change is one log entry that holds the configuration before and after it. A new one is refused while any
membership entry is not yet committed, or before the leader's own no-op is applied. Runs on the leader's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from metasrv.consensus import JoinRequest
from metasrv.model.commands import AddNode, Command, RemoveNode, Reply
from metasrv.model.entries import KIND_MEMBERSHIP, encode_membership_entry
from metasrv.model.errors import (
    ChangeInProgressError,
    JoinEndedError,
    LeaveSelfError,
    MembershipError,
    NotLeaderError,
    UnknownOutcomeError,
)
from metasrv.model.types import Member, Membership, Node
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.learners import CATCH_UP_LAG_ENTRIES
from metasrv.raft.log.format import TERM, kind_of
from metasrv.raft.log.store import LogStore
from metasrv.state.command_rules import validate_command

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.02


class MembershipChanges:
    """The leader's side of join and leave."""

    def __init__(
        self,
        *,
        node_id: int,
        clock: Clock,
        engine: Engine,
        store: LogStore,
        free: Callable[[], Awaitable[None]],
        append: Callable[[bytes], tuple[int, int]],
        propose: Callable[[Command, int], Awaitable[Reply]],
        leader_id: Callable[[], int | None],
        applied_index: Callable[[], int],
        holders: IdHolders,
        registered: Callable[[int], Node | None],
    ) -> None:
        self._own_id = node_id
        self._clock = clock
        self._engine = engine
        self._store = store
        self._free = free
        self._append = append
        self._propose = propose
        self._leader_id = leader_id
        self._applied_index = applied_index
        self._holders = holders
        self._registered = registered
        self._lock = asyncio.Lock()
        self._moving = False
        """What holds the lock is a change of addresses: it is over in a moment, so that others wait for it."""
        self._last_change_index = 0

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        """Admit a node, idempotently; see `Consensus.join`."""
        self._require_leader()
        node_id = request.node.node_id
        wanted = Member(request.node.endpoint, request.incarnation)
        present = self._engine.membership()
        if self._settled(present, node_id, wanted, request.learner):
            if request.learner and node_id in present.voters:
                raise MembershipError(f"node {node_id} asks to join as a learner, but it votes already: it has to leave")
            return
        if node_id == self._own_id:
            raise MembershipError(f"node id {node_id} is this leader's own; give the joining node another id")
        # Overriding: the node may come back at another address, and must be dialled there to catch up.
        registration = AddNode(request.node, True)
        validate_command(registration)
        self._refuse_beside_another_change()
        deadline = self._clock.monotonic() + timeout_ms / 1000
        async with self._lock:
            await self._remove_other_directory(node_id, wanted, deadline)
            member = self._engine.membership().member(node_id)
            if member is None or not self._is_at(node_id, wanted):
                await self._propose(registration, self._left_ms(deadline))
            if member is None:
                await self._change(lambda now: _with_learner(now, node_id, wanted), deadline)
                logger.info("node %d joined as a learner, at %s", node_id, request.node.endpoint)
            elif member != wanted:
                await self._change(lambda now: _with_address(now, node_id, wanted), deadline)
                logger.info("node %d asks to join at %s; it was at %s", node_id, wanted.endpoint, member.endpoint)
        if request.learner:
            return
        # Without the lock: a node that cannot be reached must hold up no other change, least of all its own removal.
        await self._catch_up(node_id, wanted, deadline)
        async with self._lock:
            self._require_member(node_id, wanted)
            if node_id not in self._engine.membership().voters:
                await self._change(lambda now: _promoted(now, node_id), deadline)
                logger.info("node %d votes from now on", node_id)

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        """Remove a node, idempotently; see `Consensus.leave`."""
        self._require_leader()
        present = self._engine.membership()
        if node_id == self._own_id:
            if len(present.voters) == 1:
                raise MembershipError(f"node {node_id} is the last voter; a cluster cannot lose its last member")
            raise LeaveSelfError(node_id)
        self._refuse_beside_another_change()
        async with self._lock:
            deadline = self._clock.monotonic() + timeout_ms / 1000
            if node_id in present:
                await self._change(lambda now: _without(now, node_id), deadline)
                logger.info("node %d left the cluster", node_id)
            await self._propose(RemoveNode(node_id), self._left_ms(deadline))

    async def move(self, make: Callable[[Membership], Membership], timeout_ms: int) -> None:
        """Change addresses, and no members. Raises NotLeaderError, ChangeInProgressError, UnknownOutcomeError."""
        if self._lock.locked():
            raise ChangeInProgressError
        async with self._lock:
            self._moving = True
            try:
                await self._change(make, self._clock.monotonic() + timeout_ms / 1000)
            finally:
                self._moving = False

    def _refuse_beside_another_change(self) -> None:
        if self._lock.locked() and not self._moving:
            raise ChangeInProgressError

    def _is_at(self, node_id: int, wanted: Member) -> bool:
        """Whether membership and registry both have the node at this address."""
        member, registered = self._engine.membership().member(node_id), self._registered(node_id)
        registered_there = registered is None or registered.endpoint == wanted.endpoint
        return member is not None and member.endpoint == wanted.endpoint and registered_there

    def _settled(self, present: Membership, node_id: int, wanted: Member, learner: bool) -> bool:
        member = present.member(node_id)
        if member is None or member.incarnation != wanted.incarnation or not self._is_at(node_id, wanted):
            return False
        return node_id in present.voters or learner

    async def _remove_other_directory(self, node_id: int, wanted: Member, deadline: float) -> None:
        """A member with this id but another data directory was wiped: it must leave before it may join.

        It may have forgotten votes and entries, so it must not go on as the voter it was. As long as that member is
        heard it was not wiped: somebody else uses its id, and is refused.
        """
        member = self._engine.membership().member(node_id)
        if member is not None and member.incarnation != wanted.incarnation:
            self._holders.refuse_if_heard(node_id, member)
            logger.warning("node %d comes back with a new data directory; its old membership is removed first", node_id)
            await self._change(lambda now: _without(now, node_id), deadline)

    async def _catch_up(self, node_id: int, wanted: Member, deadline: float) -> None:
        """Wait until the learner has nearly all of the log, and in any case the entry that made it a member.

        Ends with JoinEndedError when it is removed, or admitted with another directory, meanwhile.

        A node votes only once it knows that it is a member. If it counted as a voter before, and the leader then stepped
        down, a small cluster would wait for its vote for ever.
        """
        while True:
            self._require_leader()
            self._require_member(node_id, wanted)
            known = max(self._engine.noop_index(), self._last_change_index)
            if self._engine.match_index(node_id) >= max(self._store.last_index - CATCH_UP_LAG_ENTRIES, known):
                return
            if self._clock.monotonic() > deadline:
                raise MembershipError(
                    f"node {node_id} is a learner now but has not caught up in time "
                    f"({self._engine.match_index(node_id)} of {self._store.last_index} entries); it may ask again"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _change(self, make: Callable[[Membership], Membership], deadline: float) -> None:
        """Append one membership entry and wait until it is applied here."""
        await self._free()
        self._require_leader()
        if self._applied_index() < max(self._engine.noop_index(), self._last_change_index):
            raise ChangeInProgressError
        if self._uncommitted_change():
            raise ChangeInProgressError
        before = self._engine.membership()
        after = make(before)
        if after == before:
            return
        index, term = self._append(encode_membership_entry(self._own_id, before, after))
        self._last_change_index = index
        while self._applied_index() < index:
            if self._clock.monotonic() > deadline:
                raise UnknownOutcomeError("the membership change is in the log but was not committed in time")
            await asyncio.sleep(_POLL_SECONDS / 4)
        entry = self._store.entry_at(index)
        if entry is None and self._engine.term() != term:
            raise UnknownOutcomeError(
                "leadership was lost and the log is past the membership change: look at the members"
            )
        if entry is not None and entry[TERM] != term:
            raise NotLeaderError(self._leader_id(), "another leader's entry took the place of the membership change")

    def _uncommitted_change(self) -> bool:
        """Whether an entry after the applied index changes the membership."""
        applied = self._applied_index()
        return any(
            kind_of(entry) == KIND_MEMBERSHIP
            for index in range(applied + 1, self._store.last_index + 1)
            if (entry := self._store.entry_at(index)) is not None
        )

    def _require_leader(self) -> None:
        if self._engine.role() != LEADER:
            raise NotLeaderError(self._leader_id())

    def _require_member(self, node_id: int, wanted: Member) -> None:
        member = self._engine.membership().member(node_id)
        if member is None or member.incarnation != wanted.incarnation:
            raise JoinEndedError(
                f"node {node_id} was removed while it caught up, or admitted with another data directory"
            )

    def _left_ms(self, deadline: float) -> int:
        return max(1, int((deadline - self._clock.monotonic()) * 1000))


def _with_learner(now: Membership, node_id: int, member: Member) -> Membership:
    return replace(now, learners={**now.learners, node_id: member})


def _with_address(now: Membership, node_id: int, member: Member) -> Membership:
    if node_id in now.voters:
        return replace(now, voters={**now.voters, node_id: member})
    return replace(now, learners={**now.learners, node_id: member})


def _promoted(now: Membership, node_id: int) -> Membership:
    learners = dict(now.learners)
    member = learners.pop(node_id)
    return Membership({**now.voters, node_id: member}, learners)


def _without(now: Membership, node_id: int) -> Membership:
    return Membership(
        {i: member for i, member in now.voters.items() if i != node_id},
        {i: member for i, member in now.learners.items() if i != node_id},
    )
