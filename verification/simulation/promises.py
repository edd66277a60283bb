"""What nodes promise: no message says more than the sender's disk holds, and a restart finds what was promised.

Checks invariant 1 from outside: executed log writes show what is durable, messages that leave show what is promised, and
each start shows what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from metasrv.model.errors import CodecError
from metasrv.raft.core.messages import AppendReply, Message, RequestVote, VoteGranted, decode_message
from metasrv.raft.log.format import PendingWrite
from metasrv.raft.log.store import LogStore

_SPEAKING = b"\x01\x04\x05"
"""Tags of the messages that speak of the sender's disk: acknowledgements, vote requests, votes."""


class Durable(NamedTuple):
    """What the disk of a node holds."""

    term: int
    vote: str | None
    last_index: int


class Promises:
    """The promises of all nodes, by node id; `violated` is called with each sentence about a broken one."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        self._violated = violated
        self._durable: dict[int, Durable] = {}

    def durable(self, node_id: int) -> Durable:
        return self._durable[node_id]

    def opened(self, node_id: int, store: LogStore, *, damaged: bool) -> None:
        """A process has read its files: they must hold at least what earlier lives wrote."""
        found = Durable(store.getCurrentTerm(), store.getVotedForNodeId(), store.last_index)
        before = self._durable.get(node_id)
        self._durable[node_id] = found
        if before is None or damaged:
            return
        if found.term < before.term or (found.term == before.term and before.vote not in (None, found.vote)):
            self._violated(f"node {node_id} had written term and vote {before[:2]}, and starts with {found[:2]}")
        if found.last_index < before.last_index:
            self._violated(
                f"node {node_id} had written entries up to {before.last_index}, its log ends at {found.last_index}"
            )

    def emptied(self, node_id: int) -> None:
        """The node got an empty disk."""
        self._durable.pop(node_id, None)

    def written(self, node_id: int, pending: PendingWrite) -> None:
        """A write of the log was executed and synced."""
        before = self._durable[node_id]
        term, vote = (pending.term, pending.voted_for) if pending.changes_meta else before[:2]
        self._durable[node_id] = Durable(term, vote, pending.last_index)

    def installed(self, node_id: int, index: int) -> None:
        """A snapshot has durably replaced the state; the log follows, at the latest at the next start."""
        self._durable[node_id] = self._durable[node_id]._replace(last_index=index)

    def sending(self, node_id: int, to_id: int, payload: bytes) -> None:
        """A raft message leaves the node."""
        if payload[1] not in _SPEAKING:
            return
        try:
            message = decode_message(payload)
        except CodecError:
            self._violated(f"node {node_id} sends what is no message")
            return
        wrong = _unkept(message, to_id, node_id, self._durable[node_id])
        if wrong:
            self._violated(f"node {node_id} tells node {to_id} {message}, but {wrong} (sync before send)")


def _unkept(message: Message, to_id: int, own_id: int, durable: Durable) -> str:
    """What the disk holds instead of what the message says; empty when they agree."""
    match message:
        case VoteGranted(term) if not _holds_vote(durable, term, to_id):
            return f"its disk holds term and vote {durable[:2]}"
        case RequestVote(term=term) if not _holds_vote(durable, term, own_id):
            return f"its disk holds term and vote {durable[:2]}"
        case AppendReply(term=term, next_index=next_index, success=True) if (
            term > durable.term or next_index - 1 > durable.last_index
        ):
            return f"its disk holds term {durable.term} and entries up to {durable.last_index}"
    return ""


def _holds_vote(durable: Durable, term: int, node_id: int) -> bool:
    """Whether the node can never vote otherwise in this term; also true once its disk holds a later term."""
    return durable.term > term or (durable.term == term and durable.vote == str(node_id))
