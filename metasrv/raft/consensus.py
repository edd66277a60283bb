"""Consensus as the services see it: `RaftConsensus` implements `metasrv.consensus.Consensus`.

Turns requests into proposals, read indexes and membership changes, with a deadline on each, and forwards to the leader
what only the leader can do. Runs on the node's event loop. The order of the engine's work is decided in `core/driver.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from metasrv.consensus import CopyState, JoinRequest, Place, Standing, TransferResult
from metasrv.model.codec import encode_command
from metasrv.model.commands import KNOWN_FEATURES, Command, Reply
from metasrv.model.errors import (
    DamagedCopyError,
    FatalError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    StoppingError,
)
from metasrv.model.summary import SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, RaftStatus
from metasrv.raft.address_changes import AddressChanges
from metasrv.raft.asking_leader import AskingLeader
from metasrv.raft.beginning import Beginning
from metasrv.raft.belonging import Belonging
from metasrv.raft.draining import Draining
from metasrv.raft.forwarded_writes import ForwardedWrites
from metasrv.raft.forwarding import Answering, Forwarding, no_summary
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.leader_watch import clock_rounds_of, stalled_leader_of, transfer_of
from metasrv.raft.member_features import known_by, refuse_ignorant
from metasrv.raft.member_search import MemberSearch
from metasrv.raft.membership import MembershipChanges
from metasrv.raft.outside_calls import fatal_here
from metasrv.raft.read_barriers import ReadBarriers
from metasrv.raft.replica import Replica
from metasrv.raft.replica_parts import ReplicaHandlers, ReplicaResources
from metasrv.raft.role_events import RoleEvents
from metasrv.raft.tidying import Tidying
from metasrv.state.scrubbing import RangeDigests, range_digests
from metasrv.tracing.times import CURRENT
from metasrv.tracing.watch import RequestWatch


class RaftConsensus:
    """One node's consensus. `start` opens the peer listener; `close` ends everything."""

    def __init__(self, resources: ReplicaResources, fatal: Callable[[FatalError], None]) -> None:
        """`fatal` is called once, with the error that stops consensus for good."""
        self._stopping = False
        self.damage = ""
        """What is wrong with this node's copy of the state, for the other nodes (`node/damage.py`)."""
        self.summary: Callable[[SummaryQuestion], Awaitable[SummaryAnswer]] = no_summary
        """What this node says of itself to other members (`node/own_summary.py`)."""
        self._serving = True
        replica = self.replica = Replica(resources, self._handlers(fatal))
        self.node_id = replica.node_id
        self._clock = resources.clock
        self.forwarding = Forwarding(replica.peers.transport, resources.observer.forwarded)
        self.leaders = AskingLeader(self._clock, replica.leader_id, self.forwarding, self.refuse_if_stopping)
        self._barriers = ReadBarriers(replica, self.leaders, self.refuse_if_stopping, self.refuse_if_damaged)
        self.beginning = Beginning(replica, self.adopt_cluster)
        self.belonging = Belonging(replica, self.forwarding)
        self.watch = RequestWatch(self.node_id, replica.engine.term)
        """Watches requests of clients, and those that other nodes forward; off until it is set."""
        watched = ForwardedWrites(self, self.watch, resources.clock)
        self._answering = Answering(self, self, self.forwarding, watched)
        self._holders = IdHolders(
            clock=resources.clock,
            engine=replica.engine,
            registered=lambda node_id: replica.machine.nodes.get(node_id),
            directory_of=replica.peers.directory_of,
            last_contact=replica.peers.transport.last_contact,
            election_timeout_max_seconds=resources.settings.election_timeout_max_ms / 1000,
        )
        self.secure = replica.peers.transport.secure
        """Prove and demand something else of peers from the next connection on."""
        self._membership = MembershipChanges(
            node_id=self.node_id,
            clock=resources.clock,
            engine=replica.engine,
            store=resources.store,
            free=replica.until_free,
            append=replica.driver.append,
            propose=self.propose_local,
            leader_id=replica.leader_id,
            applied_index=replica.applied_index,
            holders=self._holders,
            registered=lambda node_id: replica.machine.nodes.get(node_id),
        )
        self._addresses = AddressChanges(
            clock=resources.clock,
            engine=replica.engine,
            machine=resources.machine,
            changes=self._membership,
            leads=lambda: replica.leader_id() == self.node_id,
        )
        self._search = MemberSearch(
            clock=resources.clock,
            engine=replica.engine,
            peers=replica.peers,
            forwarding=self.forwarding,
            leader_id=replica.leader_id,
            hints=resources.settings.hints,
            patience_seconds=resources.settings.election_timeout_max_ms / 1000,
        )
        self._transfer = transfer_of(replica)
        self._draining = Draining(replica, self._transfer, resources.settings.election_timeout_max_ms)
        self._tidying = Tidying(replica, resources.writer, lambda: self.status().file_sizes_bytes())
        replica.sources.drained, replica.sources.compaction = lambda: self._draining.on, self._tidying.status
        self._clock_rounds = clock_rounds_of(replica, self._transfer, self.forwarding)
        self._stalled_leader = stalled_leader_of(replica, self._transfer)
        self._role_events = RoleEvents.of(replica, self._transfer)

    # ------------------------------------------------------------------ life

    async def start(self, host: str, port: int) -> Endpoint:
        """Listen for peers and begin to step. Raises BindError."""
        bound = await self.replica.peers.transport.listen(host, port)
        self.replica.peers.refresh()
        self.replica.driver.start()
        self._clock_rounds.start()
        self.belonging.start()
        self._search.start()
        return bound

    def load_snapshots(self) -> None:
        """Look, in the snapshot thread, at what an earlier run left."""
        self.replica.snapshots.load_existing()

    def fail(self, error: FatalError) -> None:
        """Stop consensus for good: what is asked from now on is refused."""
        self.replica.driver.fail(error)

    async def hand_over(self, timeout_ms: int) -> bool:
        """Move leadership away before stopping; True when another node leads or none was needed."""
        return await self._transfer.hand_over(timeout_ms)

    async def close(self) -> None:
        """Stop stepping, end what waits, close connections and threads."""
        self._stopping = True
        await self._clock_rounds.stop()
        self._stalled_leader.close()
        self._draining.close()
        await self._tidying.close()
        self.belonging.stop()
        await self._search.stop()
        await self._addresses.stop()
        await self.replica.close()

    # ------------------------------------------------------------------ Consensus

    def status(self) -> RaftStatus:
        return self.replica.status()

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        now = self._clock.monotonic()
        if (times := CURRENT.get()) is not None:
            times.asked_at = now
        deadline = now + timeout_ms / 1000
        while True:
            leader_id = self.replica.leader_id()
            if leader_id is None:
                leader_id = await self.leaders.known(deadline)
            left_ms = max(1, int((deadline - self._clock.monotonic()) * 1000))
            try:
                if leader_id == self.node_id:
                    return await self.propose_local(command, left_ms)
                self.refuse_if_stopping()
                return await self.leaders.propose(leader_id, command, left_ms)
            except (OverloadedError, StoppingError) as error:
                if isinstance(error, OverloadedError) or self._stopping:
                    raise
                await self.leaders.pause(deadline, error)
            except NotDoneError as error:  # certainly not executed: safe to send again (D15)
                await self.leaders.pause(deadline, error)

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        self.refuse_if_stopping()
        self.refuse_if_damaged()
        if not self.replica.leads():
            raise NotLeaderError(self.replica.leader_id())
        replica = self.replica
        now = self._clock.monotonic()
        if (times := CURRENT.get()) is not None:
            times.submit(now)
        future = replica.driver.submit(command, encode_command(command), now, timeout_ms / 1000, times)
        replica.driver.wake_for_proposal(now)
        return await future

    def read_barrier(self, timeout_ms: int) -> Coroutine[Any, Any, None]:
        return self._barriers.barrier(timeout_ms)

    def read_barrier_local(self, timeout_ms: int) -> Coroutine[Any, Any, None]:
        return self._barriers.local_barrier(timeout_ms)

    def read_index(self, timeout_ms: int) -> Coroutine[Any, Any, int]:
        """The index that a read must have applied, once a majority has confirmed this leader after the call."""
        return self._barriers.read_index(timeout_ms)

    async def trigger_snapshot(self) -> None:
        self.refuse_if_stopping()
        with fatal_here(self.fail):
            self.replica.snapshots.request(self.replica.machine.last_applied.index)

    def compact(self) -> None:
        self.refuse_if_stopping()
        self._tidying.start()

    async def drain(self, timeout_ms: int) -> None:
        self.refuse_if_stopping()
        await self._draining.drain(timeout_ms)

    def end_drain(self) -> None:
        self.refuse_if_stopping()
        self._draining.end()

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        voter_ids = sorted(self.replica.engine.membership().voters)
        if to_id is None:
            position = voter_ids.index(self.node_id) if self.node_id in voter_ids else 0
            to_id = voter_ids[(position + 1) % len(voter_ids)] if voter_ids else self.node_id
        if not self.status().is_leader:
            raise NotLeaderError(self.replica.leader_id())
        if to_id != self.node_id and to_id in voter_ids:
            await self._transfer.start(to_id)
        return TransferResult(self.node_id, to_id, voter_ids)

    async def known_features(self) -> dict[int, frozenset[str] | None]:
        membership = self.replica.engine.membership()
        others = [i for i in (*membership.voters, *membership.learners) if i != self.node_id]
        return {self.node_id: frozenset(KNOWN_FEATURES), **await known_by(self.forwarding.features, others)}

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        if self.replica.leader_id() == self.node_id:
            await refuse_ignorant(self.forwarding.features, request.node, self.replica.machine.features)
        await self._membership.join(request, timeout_ms)

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        await self._membership.leave(node_id, timeout_ms)

    # ------------------------------------------------------------------ for joining

    def cluster_id(self) -> str | None:
        """The cluster that this node belongs to, None before it has joined one."""
        return self.replica.resources.directory.identity.cluster_id

    def standing(self) -> Standing:
        """The cluster that this node belongs to, and whether it is about to begin one."""
        return self.beginning.standing()

    def wall_ms(self) -> int:
        """This node's wall clock, for a peer that measures it."""
        return self._clock.wall_ms()

    async def place(self, node_id: int, incarnation: str, timeout_ms: int) -> Place:
        """Whether a node is a member with this data directory, once a majority has confirmed that this node leads."""
        await self.read_index(timeout_ms)
        return self.belonging.place(node_id, incarnation)

    def places(self) -> dict[int, Endpoint]:
        """Where this node is, and where the members are that it is connected to; it comes last."""
        return self.replica.peers.places()

    def adopt_cluster(self, cluster_id: str) -> None:
        """This node is about to join `cluster_id`: from now on it refuses nodes of other clusters."""
        self.replica.resources.directory.set_cluster_id(cluster_id)
        self.replica.machine.set_cluster_id(cluster_id)
        self.replica.peers.set_cluster_id(cluster_id)

    # ------------------------------------------------------------------ for comparing copies

    def copy_state(self) -> CopyState:
        """The hashes of this node's state, and what is wrong with it."""
        return CopyState(self.damage, self.replica.state_hashes.known())

    async def range_digests(self, bounds: tuple[str, ...]) -> RangeDigests:
        """What this node's records between these keys add up to; reads every key, in a helper thread."""
        with fatal_here(self.fail):
            self.replica.machine.commit()
        return await asyncio.to_thread(range_digests, self.replica.machine.path, bounds)

    async def answer_summary(self, question: SummaryQuestion) -> SummaryAnswer:
        """What this node says of itself. Raises NotDoneError while it is being built."""
        return await self.summary(question)

    def set_serving(self, serving: bool) -> None:
        """Whether this node may answer from its state; while not, it takes no proposals and is slow to campaign."""
        self._serving = serving
        self.replica.guards.reluctant = not serving

    # ------------------------------------------------------------------ called by the replica

    def _handlers(self, fatal: Callable[[FatalError], None]) -> ReplicaHandlers:
        """What the replica calls: parts that are made after it and on top of it."""
        return ReplicaHandlers(
            answer=self._answer,
            refuse_foreign=lambda remote: self._holders.refuse_foreign(remote),
            may_stand=lambda: not self._draining.on,
            election=lambda step, node_id, term: self._role_events.election(step, node_id, term, self._clock.monotonic()),
            timer=self._on_timer,
            role_changed=lambda now: self._role_events.look(now),
            fatal=fatal,
            keep_up=self._keep_up,
        )

    async def _answer(self, method: str, payload: bytes) -> bytes:
        return await self._answering.answer(method, payload)

    def _on_timer(self, now: float) -> None:
        self._stalled_leader.look(now)
        self._role_events.look(now)

    def _keep_up(self) -> None:
        self._addresses.consider()
        self._draining.consider()

    # ------------------------------------------------------------------ helpers

    def refuse_if_stopping(self) -> None:
        """Raise StoppingError once this node stops."""
        if self._stopping or self.replica.driver.fatal is not None:
            raise StoppingError

    def refuse_if_damaged(self) -> None:
        """Raise DamagedCopyError while this node must not answer from its state."""
        if not self._serving:
            raise DamagedCopyError
