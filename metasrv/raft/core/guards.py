"""Filters between the transport and the engine: what pysyncobj trusts too readily (docs/defects.md).

 * pre-vote and stickiness: no campaign without a majority that also misses the leader; a vote request does not depose a
   live leader, unless the leader asked for it (transfer); a node's term does not grow while it is cut off;
 * acknowledgements and votes count only in their own term, once per node, and from members;
 * entries that the log already holds are not deleted and written again (D12), so nothing committed is ever truncated;
 * while a snapshot is on its way, nothing is matched against the old log and nothing is committed from it (D1).

Pure decisions over the engine's values: no clock of its own, no input or output. Runs on the event loop, in a step.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from enum import Enum, auto

from metasrv.model.types import Membership
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    LeaderPing,
    LeaderSeen,
    Message,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    VoteGranted,
)
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.log.format import TERM
from metasrv.raft.log.store import LogStore

logger = logging.getLogger(__name__)


_HESITATION_FACTOR = 4


class ElectionStep(Enum):
    """What `Guards.on_election` is told of."""

    BEGINS = auto()
    """This voter's election timer fired, and it asks the others whether they miss the leader too."""
    STANDS = auto()
    """A majority does: this node asks for votes."""
    IS_ASKED_TO_STAND = auto()
    """The leader hands over to this node, which asks for votes."""
    VOTES = auto()
    """This node gives another one its vote."""
    VOTES_ON_REQUEST = auto()
    """The same, because the leader hands over to that node."""
    GETS_VOTE = auto()
    """Another node votes for this one."""


class Guards:
    """One node's filters. `now` is monotonic seconds, given by the caller."""

    def __init__(
        self,
        *,
        node_id: int,
        engine: Engine,
        store: LogStore,
        reads: ReadIndex,
        send: Callable[[int, Message], None],
        reachable: Callable[[int], bool],
        snapshot_chunk: Callable[[int, SnapshotChunk], None],
        snapshot_expected: Callable[[int], bool],
        on_election: Callable[[ElectionStep, int, int], None],
        may_stand: Callable[[], bool],
        incarnation: str,
        election_timeout_min_seconds: float,
    ) -> None:
        self._own_id = node_id
        self._engine = engine
        self._store = store
        self._reads = reads
        self._send = send
        self._reachable = reachable
        self._snapshot_chunk = snapshot_chunk
        self._snapshot_expected = snapshot_expected
        self._incarnation = incarnation
        self._timeout_min = election_timeout_min_seconds
        self._leader_heard_at: float | None = None
        self._round_seen = 0
        self._votes: set[tuple[int, int]] = set()
        self._pre_votes: set[int] | None = None
        self._pre_vote_term = 0
        self._may_campaign = False
        self._transfer_campaign = False
        self._last_tick: float | None = None
        self._quorum_until = 0.0
        self._quorum_of: Membership | None = None
        self.silent = False
        """This node is out of its cluster: it neither campaigns nor votes."""
        self.reluctant = False
        """This node must not lead while another one can: it waits for several elections' time before it campaigns."""
        self._hesitated = False
        self.electing = False
        """This voter's election timer fired and no leader has been heard since."""
        self.on_election = on_election
        """Told of each step with the other node, or this one, and the term."""
        self.may_stand = may_stand
        """Whether this node could serve as a leader: False while its disk stalls. It votes for others all the same."""

    # ------------------------------------------------------------------ timers

    def leader_heard_at(self) -> float | None:
        return self._leader_heard_at

    def hears_leader(self, now: float) -> bool:
        """A live leader is known: this node itself, or one heard within the minimum election timeout."""
        if self._engine.role() == LEADER:
            return self.leads_with_quorum(now)
        return self._leader_heard_at is not None and now - self._leader_heard_at < self._timeout_min

    def leads_with_quorum(self, now: float) -> bool:
        """Whether a majority answered this leader within the minimum election timeout (invariant 6)."""
        engine = self._engine
        membership = engine.membership()
        # Answers only get newer, so a quorum that holds until some moment cannot end earlier.
        if now < self._quorum_until and membership is self._quorum_of:
            return True
        answers = sorted((now if i == self._own_id else engine.last_response(i) for i in membership.voters), reverse=True)
        if not answers:
            return False
        self._quorum_of = membership
        self._quorum_until = answers[membership.majority - 1] + self._timeout_min
        return now < self._quorum_until

    def leader_connection_lost(self, node_id: int, now: float) -> None:
        """The leader's connection broke, as when its process dies: wait for a part of the election timeout only.

        Safe because of the pre-vote: nodes that still hear the leader refuse it.
        """
        if self._engine.role() != LEADER and self._engine.leader_id() == node_id:
            self._leader_heard_at = None
            soon = now + self._timeout_min * random.uniform(0.05, 0.35)  # noqa: S311  # spread, not secrecy
            self._engine.set_election_deadline(min(self._engine.election_deadline(), soon))

    def leader_sends(self, node_id: int, now: float, answers: bool) -> bool:
        """A part of a large message of the leader arrived: it counts as a heartbeat, since those wait behind it.

        A few times in an election timeout; returns whether it did. With `answers` the leader is told, or it would step
        down for want of answers. Both speak of a term and a round of confirmation that this node has seen already.
        """
        engine, heard_at = self._engine, self._leader_heard_at
        if heard_at is None or now - heard_at < self._timeout_min / 4:
            return False
        if engine.role() == LEADER or engine.leader_id() != node_id or engine.transfer_asked():
            return False
        self._leader_heard_at = now
        engine.set_election_deadline(now + engine.random_timeout())
        if answers:
            self._send(node_id, LeaderSeen(engine.term(), self._round_seen))
        return True

    def before_tick(self, now: float) -> None:
        """Decide whether the engine's election timer may fire in the coming tick."""
        stalled = self._last_tick is not None and now - self._last_tick > self._timeout_min / 2
        self._last_tick = now
        engine = self._engine
        if engine.role() == LEADER:
            self.electing = False
            self._pre_votes = None
            return
        if not self.is_voter():
            self.electing = False
            engine.set_election_deadline(math.inf)
            return
        if engine.election_deadline() >= now:
            return
        if engine.membership().majority > 1 and not self.may_stand():
            engine.forget_leader()
            engine.forget_transfer()
            self._may_campaign, self._pre_votes = False, None
            engine.set_election_deadline(now + engine.random_timeout())
            return
        if engine.transfer_asked():
            self._transfer_campaign = True
            self.on_election(ElectionStep.IS_ASKED_TO_STAND, self._own_id, engine.term() + 1)
            return
        if self._may_campaign or engine.membership().majority == 1:
            self._may_campaign = False
            return
        if self.reluctant and not self._hesitated:
            self._hesitated = True
            engine.set_election_deadline(now + _HESITATION_FACTOR * engine.random_timeout())
            return
        if stalled:
            # This process was paused: messages of the leader may still be in the sockets.
            engine.set_election_deadline(now + engine.random_timeout())
            return
        self._start_pre_vote(now)

    def _start_pre_vote(self, now: float) -> None:
        engine = self._engine
        engine.forget_leader()
        if not self.electing:
            self.on_election(ElectionStep.BEGINS, self._own_id, engine.term() + 1)
        self.electing = True
        others = [i for i in engine.membership().voters if i != self._own_id and self._reachable(i)]
        if len(others) + 1 < engine.membership().majority:
            self._pre_votes = None
            engine.set_election_deadline(now + self._timeout_min / 4)
            return
        engine.set_election_deadline(now + engine.random_timeout())
        self._pre_votes = {self._own_id}
        self._pre_vote_term = engine.term() + 1
        question = PreVote(self._pre_vote_term, self._store.last_index, self._store.last_term)
        for node_id in others:
            self._send(node_id, question)

    # ------------------------------------------------------------------ outgoing

    def outgoing(self, message: Message) -> Message:
        """Add what the engine does not know: the round of confirmation, and whether a transfer asked for the campaign."""
        if isinstance(message, AppendEntries | LeaderPing | SnapshotChunk):
            return message._replace(round=self._reads.round)
        if isinstance(message, AppendReply):
            return message._replace(round=self._round_seen)
        if isinstance(message, RequestVote) and self._transfer_campaign:
            return message._replace(transfer=True)
        return message

    def after_tick(self) -> None:
        self._transfer_campaign = False

    # ------------------------------------------------------------------ incoming

    def incoming(self, node_id: int, message: Message, now: float) -> None:
        """Check one message and hand the engine what it can trust."""
        if isinstance(message, AppendEntries | LeaderPing | SnapshotChunk):
            self._from_leader(node_id, message, now)
        elif isinstance(message, AppendReply):
            self._append_reply(node_id, message, now)
        elif isinstance(message, LeaderSeen):
            if self._in_term(node_id, message.term):
                self._engine.note_response(node_id, now)
                self._reads.acknowledged(node_id, message.round)
        elif isinstance(message, RequestVote):
            self._request_vote(node_id, message, now)
        elif isinstance(message, VoteGranted):
            self._vote_granted(node_id, message)
        elif isinstance(message, PreVote):
            self._pre_vote(node_id, message, now)
        elif isinstance(message, PreVoteGranted):
            self._pre_vote_granted(node_id, message)
        elif isinstance(message, TimeoutNow):
            if self.is_voter() and message.term == self._engine.term() and self.may_stand():
                self._engine.receive(node_id, message)
        else:
            self._higher_term(node_id, message.term)

    def _from_leader(self, node_id: int, message: AppendEntries | LeaderPing | SnapshotChunk, now: float) -> None:
        engine = self._engine
        if message.term < engine.term():
            self._send(node_id, HigherTerm(engine.term()))
            return
        if message.term == engine.term() and engine.role() == LEADER:
            logger.critical("node %d claims leadership in term %d, which is this node's own", node_id, message.term)
            return
        if message.term > engine.term():
            self._round_seen = 0
        self._leader_heard_at = now
        self._hesitated = False
        self.electing = False
        self._pre_votes = None
        self._may_campaign = False
        self._round_seen = message.round
        if isinstance(message, AppendEntries) and not self._snapshot_expected(message.term):
            self._append(node_id, message)
            return
        engine.receive(node_id, LeaderPing(message.term, 0))
        if isinstance(message, SnapshotChunk):
            self._snapshot_chunk(node_id, message)
        self._send(node_id, LeaderSeen(engine.term(), message.round))

    def _append(self, node_id: int, message: AppendEntries) -> None:
        """Skip entries that are already in the log; give the engine only new and conflicting ones (D12)."""
        previous_index, previous_term, skipped = message.previous_index, message.previous_term, 0
        here = self._store.entry_at(previous_index)
        if here is not None and here[TERM] == previous_term:
            for _, index, term in message.entries:
                entry = self._store.entry_at(index)
                if entry is None or entry[TERM] != term:
                    break
                previous_index, previous_term, skipped = index, term, skipped + 1
            if skipped == len(message.entries) and self._store.last_index > previous_index:
                self._engine.receive(node_id, LeaderPing(message.term, 0))
                self._engine.learn_commit(min(message.commit_index, previous_index))
                self._engine.reply_append(node_id, previous_index + 1)
                return
        rest = message.entries[skipped:] if skipped else message.entries
        self._engine.receive(
            node_id,
            message._replace(previous_index=previous_index, previous_term=previous_term, entries=rest),
        )

    def _append_reply(self, node_id: int, message: AppendReply, now: float) -> None:
        if not self._in_term(node_id, message.term):
            return
        if message.success and message.next_index > self._store.last_index + 1:
            logger.critical(
                "node %d acknowledged entry %d, which this leader does not have", node_id, message.next_index - 1
            )
            return
        self._reads.acknowledged(node_id, message.round)
        self._engine.receive(node_id, message)
        self._engine.note_response(node_id, now)

    def _in_term(self, node_id: int, term: int) -> bool:
        """The message answers this leader in its present term (D9), and comes from a member."""
        if term > self._engine.term():
            self._higher_term(node_id, term)
            return False
        return self._engine.role() == LEADER and term == self._engine.term() and node_id in self._engine.membership()

    def _request_vote(self, node_id: int, message: RequestVote, now: float) -> None:
        if not self._may_vote():
            return
        if not message.transfer and self.hears_leader(now):
            return
        if message.term < self._engine.term():
            self._send(node_id, HigherTerm(self._engine.term()))
            return
        before = self._store.getVotedForNodeId(), self._store.getCurrentTerm()
        self._engine.receive(node_id, message)
        vote = self._store.getVotedForNodeId(), self._store.getCurrentTerm()
        if vote != before and vote == (str(node_id), message.term):
            step = ElectionStep.VOTES_ON_REQUEST if message.transfer else ElectionStep.VOTES
            self.on_election(step, node_id, message.term)

    def _vote_granted(self, node_id: int, message: VoteGranted) -> None:
        """Count a vote once, in its own term, and only from a voter."""
        vote = (message.term, node_id)
        counts = message.term == self._engine.term() and node_id in self._engine.membership().voters
        if counts and vote not in self._votes:
            self._votes = {other for other in self._votes if other[0] == message.term} | {vote}
            self.on_election(ElectionStep.GETS_VOTE, node_id, message.term)
            self._engine.receive(node_id, message)

    def _pre_vote(self, node_id: int, message: PreVote, now: float) -> None:
        if not self._may_vote() or self.hears_leader(now):
            return
        if message.term <= self._engine.term():
            self._send(node_id, HigherTerm(self._engine.term()))
            return
        if (message.last_term, message.last_index) >= (self._store.last_term, self._store.last_index):
            self._send(node_id, PreVoteGranted(message.term))

    def _pre_vote_granted(self, node_id: int, message: PreVoteGranted) -> None:
        if self._pre_votes is None or message.term != self._pre_vote_term or message.term != self._engine.term() + 1:
            return
        if node_id in self._engine.membership().voters:
            self._pre_votes.add(node_id)
        if len(self._pre_votes) >= self._engine.membership().majority:
            self._pre_votes = None
            self.on_election(ElectionStep.STANDS, self._own_id, self._pre_vote_term)
            self._may_campaign = True
            self._engine.set_election_deadline(0.0)

    def is_voter(self) -> bool:
        """Whether this node, with this data directory, is a voter in the configuration in force."""
        member = self._engine.membership().voters.get(self._own_id)
        return member is not None and member.incarnation == self._incarnation and not self.silent

    def _may_vote(self) -> bool:
        """False for a node that never joined, or whose directory is not the one the members know (it was wiped).

        Such a node may have forgotten a vote it gave.
        """
        membership = self._engine.membership()
        member = membership.member(self._own_id)
        return bool(membership.voters) and not self.silent and (member is None or member.incarnation == self._incarnation)

    def _higher_term(self, node_id: int, term: int) -> None:
        """Take over a newer term, by a vote request that cannot be granted: the engine offers no other way."""
        if term > self._engine.term():
            self._engine.receive(node_id, RequestVote(term, 0, 0, False))
