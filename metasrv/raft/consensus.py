"""Consensus as the services see it: `RaftConsensus` implements `metasrv.consensus.Consensus`.

Turns requests into proposals, read indexes and membership changes, with a deadline on each, and forwards to the leader
what only the leader can do. Runs on the node's event loop. The order of the engine's work is decided in `core/driver.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from metasrv.consensus import CopyState, JoinRequest, Place, Standing, TransferResult
from metasrv.model.codec import encode_command
from metasrv.model.commands import KNOWN_FEATURES, Command, Reply
from metasrv.model.errors import (
    DamagedCopyError,
    FatalError,
    NoLeaderError,
    NotDoneError,
    NotLeaderError,
    OverloadedError,
    StoppingError,
    UnknownOutcomeError,
)
from metasrv.model.summary import SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, RaftStatus
from metasrv.raft.address_changes import AddressChanges
from metasrv.raft.beginning import Beginning
from metasrv.raft.belonging import Belonging
from metasrv.raft.core.patience import READ_GRACE_SECONDS, WRITE_GRACE_SECONDS, LeaderLostError, Patience
from metasrv.raft.core.reads import give_up, not_confirmed
from metasrv.raft.draining import Draining
from metasrv.raft.forwarding import Answering, Forwarding, no_summary
from metasrv.raft.id_holders import IdHolders
from metasrv.raft.leader_watch import clock_rounds_of, stalled_leader_of, transfer_of
from metasrv.raft.member_features import known_by, refuse_ignorant
from metasrv.raft.member_search import MemberSearch
from metasrv.raft.membership import MembershipChanges
from metasrv.raft.outside_calls import fatal_here
from metasrv.raft.replica import Replica, ReplicaResources
from metasrv.raft.role_events import RoleEvents
from metasrv.raft.tidying import Tidying
from metasrv.state.scrubbing import RangeDigests, range_digests

NO_LEADER_WAIT_MS = 1_800
"""How long a request waits for a leader to become known: its caller has an answer within 2 s."""
_RETRY_SECONDS = 0.02


class RaftConsensus:
    """One node's consensus. `start` opens the peer listener; `close` ends everything."""

    def __init__(self, resources: ReplicaResources) -> None:
        self._stopping = False
        self.damage = ""
        """What is wrong with this node's copy of the state, for the other nodes (`node/damage.py`)."""
        self.summary: Callable[[SummaryQuestion], Awaitable[SummaryAnswer]] = no_summary
        """What this node says of itself to other members (`node/own_summary.py`)."""
        self._serving = True
        replica = self.replica = Replica(resources, self._answer)
        self.node_id = replica.node_id
        self._clock = resources.clock
        self._patience = Patience(replica.leader_id)
        self.forwarding = Forwarding(replica.peers.transport)
        self.beginning = Beginning(replica, self.adopt_cluster)
        self.belonging = Belonging(replica, self.forwarding)
        self._answering = Answering(self, self, self.forwarding)
        holders = IdHolders(
            clock=resources.clock,
            engine=replica.engine,
            registered=lambda node_id: replica.machine.nodes.get(node_id),
            directory_of=replica.peers.directory_of,
            last_contact=replica.peers.transport.last_contact,
            election_timeout_max_seconds=resources.settings.election_timeout_max_ms / 1000,
        )
        replica.peers.refuse_foreign = holders.refuse_foreign
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
            holders=holders,
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
        replica.also_consider = (self._addresses.consider, self._draining.consider)
        self._clock_rounds = clock_rounds_of(replica, self._transfer, self.forwarding)
        self._stalled_leader = stalled_leader_of(replica, self._transfer)
        replica.driver.on_timer = RoleEvents.of(replica).after(self._stalled_leader.look)

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

    def on_fatal(self, callback: Callable[[FatalError], None]) -> None:
        """Have `callback` called with the error that stops consensus for good."""
        self.replica.driver.on_fatal = callback

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
        deadline = self._clock.monotonic() + timeout_ms / 1000
        while True:
            leader_id = self.replica.leader_id()
            if leader_id is None:
                leader_id = await self._known_leader(deadline)
            left_ms = max(1, int((deadline - self._clock.monotonic()) * 1000))
            try:
                if leader_id == self.node_id:
                    return await self.propose_local(command, left_ms)
                self._refuse_if_stopping()
                return await self._propose_at(leader_id, command, left_ms)
            except (OverloadedError, StoppingError) as error:
                if isinstance(error, OverloadedError) or self._stopping:
                    raise
                await self._retry_pause(deadline, error)
            except NotDoneError as error:  # certainly not executed: safe to send again (D15)
                await self._retry_pause(deadline, error)

    async def _propose_at(self, leader_id: int, command: Command, timeout_ms: int) -> Reply:
        """One hop; the other node keeps the deadline too, and says what became of the write."""
        asked = self.forwarding.propose(leader_id, command, timeout_ms)
        try:
            return await self._patience.wait(asked, leader_id, timeout_ms / 1000, WRITE_GRACE_SECONDS)
        except LeaderLostError:
            raise UnknownOutcomeError(
                f"node {leader_id} was sent this write and is no longer the leader; it may still take effect"
            ) from None
        except TimeoutError:
            raise UnknownOutcomeError(
                f"node {leader_id} was sent this write and did not answer within {timeout_ms} ms"
            ) from None

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        self._refuse_if_stopping()
        self._refuse_if_damaged()
        if not self.replica.leads():
            raise NotLeaderError(self.replica.leader_id())
        replica = self.replica
        now = self._clock.monotonic()
        future = replica.proposals.submit(command, encode_command(command), now, timeout_ms / 1000)
        replica.driver.wake_for_proposal(now)
        return await future

    async def read_barrier(self, timeout_ms: int) -> None:
        deadline = self._clock.monotonic() + timeout_ms / 1000
        while True:
            leader_id = self.replica.leader_id()
            if leader_id is None:
                leader_id = await self._known_leader(deadline)
            left_ms = max(1, int((deadline - self._clock.monotonic()) * 1000))
            try:
                if leader_id == self.node_id:
                    index = await self.read_index(left_ms)
                else:
                    self._refuse_if_stopping()
                    asked = self.forwarding.read_index(leader_id, left_ms)
                    index = await self._patience.wait(asked, leader_id, left_ms / 1000, READ_GRACE_SECONDS)
                break
            except OverloadedError:
                raise
            except (LeaderLostError, TimeoutError):
                await self._retry_pause(deadline, NotDoneError(f"node {leader_id}, the leader, did not answer in time"))
            except (NotDoneError, UnknownOutcomeError) as error:  # a read may always be asked again
                await self._retry_pause(deadline, NotDoneError(str(error)))
        if self.replica.applied_index() < index:
            await self._wait_applied(index, max(1, int((deadline - self._clock.monotonic()) * 1000)))

    async def read_barrier_local(self, timeout_ms: int) -> None:
        deadline = self._clock.monotonic() + timeout_ms / 1000
        index = await self.read_index(timeout_ms)
        if self.replica.applied_index() < index:
            await self._wait_applied(index, max(1, int((deadline - self._clock.monotonic()) * 1000)))

    async def read_index(self, timeout_ms: int) -> int:
        """The index that a read must have applied, once a majority has confirmed this leader after the call.

        It covers the deletion of everything that has expired by the log time of the call, so that no clock of the node
        that answers has a say in it.
        """
        self._refuse_if_stopping()
        self._refuse_if_damaged()
        if not self.replica.leads():
            raise NotLeaderError(self.replica.leader_id())
        time_ms = self.replica.log_time.now_ms()
        replica = self.replica
        loop = replica.driver.loop
        give_up_at = loop.time() + timeout_ms / 1000
        future = replica.reads.register(max(replica.engine.commit_index(), replica.engine.noop_index()), loop)
        replica.driver.wake()
        # A timer of its own costs a tenth of `asyncio.timeout`, and nearly every read ends here.
        timer = loop.call_at(give_up_at, give_up, future, timeout_ms)
        try:
            index = await future
        finally:
            timer.cancel()
        if replica.applied_index() < index or replica.machine.expires_before(time_ms):
            try:
                async with asyncio.timeout_at(give_up_at):
                    await replica.applied.wait(index)
                    await replica.ticks.until_swept(time_ms)
            except TimeoutError:
                raise not_confirmed(timeout_ms) from None
        return max(index, replica.applied_index())

    async def _wait_applied(self, index: int, timeout_ms: int) -> None:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self.replica.applied.wait(index)
        except TimeoutError:
            raise NotDoneError(f"this node has not applied entry {index} within {timeout_ms} ms") from None

    async def trigger_snapshot(self) -> None:
        self._refuse_if_stopping()
        with fatal_here(self.fail):
            self.replica.snapshots.request(self.replica.machine.last_applied.index)

    def compact(self) -> None:
        self._refuse_if_stopping()
        self._tidying.start()

    async def drain(self, timeout_ms: int) -> None:
        self._refuse_if_stopping()
        await self._draining.drain(timeout_ms)

    def end_drain(self) -> None:
        self._refuse_if_stopping()
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

    async def _answer(self, method: str, payload: bytes) -> bytes:
        return await self._answering.answer(method, payload)

    # ------------------------------------------------------------------ helpers

    async def _known_leader(self, deadline: float) -> int:
        give_up = min(deadline, self._clock.monotonic() + NO_LEADER_WAIT_MS / 1000)
        while True:
            self._refuse_if_stopping()
            leader_id = self.replica.leader_id()
            if leader_id is not None:
                return leader_id
            if self._clock.monotonic() + _RETRY_SECONDS >= give_up:  # the caller hears of it before its own deadline
                raise NoLeaderError
            await asyncio.sleep(_RETRY_SECONDS)

    async def _retry_pause(self, deadline: float, error: NotDoneError) -> None:
        if self._clock.monotonic() + _RETRY_SECONDS >= deadline:
            raise error
        await asyncio.sleep(_RETRY_SECONDS)

    def _refuse_if_stopping(self) -> None:
        if self._stopping or self.replica.driver.fatal is not None:
            raise StoppingError

    def _refuse_if_damaged(self) -> None:
        if not self._serving:
            raise DamagedCopyError
