"""Tells of elections, leaders, step-downs, members that come and go, and stalls of the disk: as events, and in the log.

It looks at the engine with each tick of the driver's timer, forty times a second, and when this node begins or ends to
lead; the guards tell the steps of an election as they happen. Nothing is called for a message or an entry. What began and
ended between two looks is told from what it left behind. Changes nothing. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model.events import EventKind, Severity
from metasrv.model.types import Membership
from metasrv.process.event_ring import EventRing
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.guards import ElectionStep, Guards
from metasrv.raft.disk_stall import DiskStall
from metasrv.raft.missing_quorum import MissingQuorum
from metasrv.raft.replica import Replica
from metasrv.raft.silent_peers import SilentPeers
from metasrv.raft.telling import Telling
from metasrv.raft.transfer import LeadershipTransfer
from metasrv.state.machine import StateMachine


class RoleEvents:
    """Compares what is now with what was at the last look."""

    def __init__(
        self,
        *,
        node_id: int,
        engine: Engine,
        guards: Guards,
        machine: StateMachine,
        disk: DiskStall,
        events: EventRing,
        last_contact: Callable[[int], float | None],
        timeouts_seconds: tuple[float, float],
        hands_over_to: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`last_contact` gives monotonic seconds; `timeouts_seconds` are the shortest and longest of an election.

        `hands_over_to` names the node to which this one is handing leadership.
        """
        self._node_id = node_id
        self._engine = engine
        self._guards = guards
        self._machine = machine
        self._disk = disk
        self._telling = Telling(node_id, events, engine.term)
        self._last_contact = last_contact
        self._timeout_min, self._timeout_max = timeouts_seconds
        self._hands_over_to = hands_over_to
        self._silent_peers = SilentPeers(engine, self._telling, self._timeout_max)
        self._quorum = MissingQuorum(engine, self._telling, self._voters_heard, self._timeout_max)
        self._looked_at: float | None = None
        self._stood_still: tuple[float, float] | None = None
        """When this process last ran on after a standstill, and the seconds of it."""
        self._leads = False
        self._leader_id: int | None = None
        self._term = engine.term()
        self._previous_leader_id: int | None = None
        """Who led last, as far as this node knows."""
        self._heard_at: float | None = None
        """When that leader was last heard; the guards forget it when the connection breaks."""
        self._asked_in: int | None = None
        """The term for which a leader asked this node to stand."""
        self._voters: set[int] = set()
        """Who voted for this node in its last election."""
        self._stalled = False
        self._stalled_seconds = 0.0
        self._membership = machine.membership

    @classmethod
    def of(cls, replica: Replica, transfer: LeadershipTransfer) -> RoleEvents:
        """Those of this node."""
        resources = replica.resources
        settings = resources.settings
        return cls(
            node_id=replica.node_id,
            engine=replica.engine,
            guards=replica.guards,
            machine=replica.machine,
            disk=replica.disk,
            events=resources.events,
            last_contact=replica.peers.transport.last_contact,
            timeouts_seconds=(settings.election_timeout_min_ms / 1000, settings.election_timeout_max_ms / 1000),
            hands_over_to=lambda: transfer.target,
        )

    def look(self, now: float) -> None:
        """Tell what is new; `now` in monotonic seconds."""
        self._look_at_standstill(now)
        engine, guards = self._engine, self._guards
        leads, term = engine.role() == LEADER, engine.term()
        leader_id = self._node_id if leads else engine.leader_id()
        if leader_id == self._node_id and not leads:
            leader_id = None
        if self._leads and not leads:
            self._tell_step_down(now, term)
        if leader_id is not None and (leader_id != self._leader_id or term != self._term):
            self._tell_leader(leader_id, term, now)
        heard_at = guards.leader_heard_at()
        if heard_at is not None and not leads:
            self._heard_at = heard_at
        self._leads = leads
        if leader_id is not None:  # a leader that comes back in its own term is no news
            self._leader_id, self._term = leader_id, term
        self._quorum.look(leader_id is None or guards.electing, guards.is_voter(), now)
        self._silent_peers.look(now)
        self._look_at_disk()
        if self._machine.membership is not self._membership:
            before, self._membership = self._membership, self._machine.membership
            self._tell_members(before, self._membership)

    def _look_at_standstill(self, now: float) -> None:
        looked_at, self._looked_at = self._looked_at, now
        if looked_at is not None and now - looked_at > self._timeout_min / 2:
            self._stood_still = (now, now - looked_at)
            self._silent_peers.stood_still(now)

    # ------------------------------------------------------------------ elections

    def election(self, step: ElectionStep, node_id: int, term: int, now: float) -> None:
        """A step of an election, as the guards take it; `node_id` is the other node, `term` that of the election."""
        own_id, telling = self._node_id, self._telling
        if step is ElectionStep.BEGINS:
            text = f"node {own_id} begins an election: {self._why(now)}"
            telling.tell(EventKind.ELECTION, Severity.WARNING, text)
        elif step is ElectionStep.STANDS:
            self._voters = {own_id}
            telling.log(Severity.INFO, f"node {own_id} stands in term {term}: a majority misses the leader too", term)
        elif step is ElectionStep.IS_ASKED_TO_STAND:
            self._voters, self._asked_in = {own_id}, term
            leader_id = self._previous_leader_id
            by = "the leader hands over" if leader_id is None else f"leader {leader_id} hands over"
            telling.log(Severity.INFO, f"node {own_id} stands in term {term}: {by} to it", term)
        elif step is ElectionStep.GETS_VOTE:
            self._voters.add(node_id)
            telling.log(Severity.INFO, f"node {node_id} votes for node {own_id} in term {term}", term)
        elif step is ElectionStep.VOTES_ON_REQUEST:
            text = f"node {own_id} votes for node {node_id} in term {term}: the leader hands over to it"
            telling.log(Severity.INFO, text, term)
        else:
            text = f"node {own_id} votes for node {node_id} in term {term}: {self._why(now)}"
            telling.log(Severity.INFO, text, term)

    def _why(self, now: float) -> str:
        leader_id = self._previous_leader_id
        if leader_id is None:
            return "no leader has been heard since this node started"
        if leader_id == self._node_id:
            return "this node has led last, and no leader has been heard since"
        if self._guards.leader_heard_at() is None:
            return f"the connection of leader {leader_id} was lost"
        if self._heard_at is None:
            return f"leader {leader_id} was not heard"
        return f"leader {leader_id} not heard for {(now - self._heard_at) * 1000:,.0f} ms"

    def _voters_heard(self, now: float) -> int:
        """This node among them."""
        heard = 0
        for node_id in self._engine.membership().voters:
            contact = self._last_contact(node_id)
            heard += node_id == self._node_id or (contact is not None and now - contact < self._timeout_max)
        return heard

    # ------------------------------------------------------------------ leaders

    def _tell_leader(self, leader_id: int, term: int, now: float) -> None:
        text = f"node {leader_id} leads in term {term}"
        previous = self._previous_leader_id
        if leader_id == self._node_id:
            if len(self._voters) > 1:
                text += f", elected by nodes {', '.join(map(str, sorted(self._voters)))}"
            if previous not in (None, leader_id):
                heard_at = self._guards.leader_heard_at()
                planned = self._asked_in == term or (heard_at is not None and now - heard_at < self._timeout_min)
                text += f"; node {previous} handed over" if planned else f"; {self._why(now)}"
            self._voters = set()
        self._telling.tell(EventKind.LEADER, Severity.INFO, text, term)
        self._previous_leader_id, self._heard_at = leader_id, None

    def _tell_step_down(self, now: float, term: int) -> None:
        text, severity = f"node {self._node_id} no longer leads", Severity.WARNING
        heard, voters = self._voters_heard(now), len(self._engine.membership().voters)
        target = self._hands_over_to()
        if self._disk.part is not None:
            text += f": {self._disk.sentence()}"
        elif target is not None and term > self._term:
            text, severity = f"{text}: it hands over to node {target}, term {term} has begun", Severity.INFO
        elif term > self._term:
            text, severity = f"{text}: term {term} has begun{self._after_standstill(now)}", Severity.INFO
        elif self._after_standstill(now):
            text += f": no majority of the voters could answer{self._after_standstill(now)}"
        elif heard < self._engine.membership().majority:
            text, severity = f"{text}: {heard} of {voters} voters heard, writes are refused", Severity.CRITICAL
            self._quorum.told(now)
        else:
            text += ": no majority of the voters answered in time"
        self._telling.tell(EventKind.STEP_DOWN, severity, text, self._term)

    def _after_standstill(self, now: float) -> str:
        """Whether this process was the one that did not answer."""
        if self._stood_still is None or now - self._stood_still[0] > self._timeout_max:
            return ""
        return f", while this process stood still for {self._stood_still[1] * 1000:,.0f} ms"

    # ------------------------------------------------------------------ members and disk

    def _tell_members(self, before: Membership, after: Membership) -> None:
        for node_id in sorted({*after.voters, *after.learners} - {*before.voters, *before.learners}):
            role = "voter" if node_id in after.voters else "learner"
            member = after.member(node_id)
            place = f", at {member.endpoint}" if member is not None else ""
            self._telling.event(EventKind.JOIN, Severity.INFO, f"node {node_id} joined as a {role}{place}")
        for node_id in sorted(set(after.voters) & set(before.learners)):
            self._telling.event(EventKind.JOIN, Severity.INFO, f"node {node_id} votes from now on")
        for node_id in sorted({*before.voters, *before.learners} - {*after.voters, *after.learners}):
            severity = Severity.CRITICAL if node_id == self._node_id else Severity.WARNING
            self._telling.event(EventKind.LEAVE, severity, f"node {node_id} left the cluster")

    def _look_at_disk(self) -> None:
        stalled = self._disk.part is not None
        if stalled:
            self._stalled_seconds = self._disk.seconds()
        if stalled and not self._stalled:
            self._telling.event(EventKind.DISK, Severity.CRITICAL, str(self._disk.sentence()))
        elif self._stalled and not stalled:
            text = f"the disk answers again, after {self._stalled_seconds:.1f} s"
            self._telling.event(EventKind.DISK, Severity.INFO, text)
        self._stalled = stalled
