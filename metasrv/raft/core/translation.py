"""The engine's dictionaries as named tuples, and back.

Lets out and in only the kinds that consensus needs: no commands, no utility messages, no pickled pieces (D5, D15,
D17). Pure; runs on the event loop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pysyncobj.node import Node as EngineNode

from metasrv.model.errors import InvariantError
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    LeaderPing,
    Message,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    VoteGranted,
)


class _NumberedNode(EngineNode):  # type: ignore[misc]  # pysyncobj is untyped
    """Hashes as its number: the engine sends in the order of its sets, which is then the same in every process."""

    def __hash__(self) -> int:
        return int(self._id)


@lru_cache(maxsize=64)
def engine_node(node_id: int) -> EngineNode:
    """The engine's object for a node: a key of its tables, needed several times a step and therefore made once."""
    return _NumberedNode(str(node_id))


def from_engine(message: dict[str, Any], current_term: int) -> Message | None:
    """A message of the engine as a named tuple; None for kinds that are not let out (D5, D15)."""
    kind = message["type"]
    if kind == "append_entries":
        if "prevLogIdx" in message:
            return AppendEntries(
                message["term"],
                message["commit_index"],
                message["prevLogIdx"],
                message["prevLogTerm"],
                tuple(message["entries"]),
                0,
            )
        serialized = message["serialized"]
        if serialized is None:
            return LeaderPing(message["term"], 0)
        chunk: SnapshotChunk = serialized[0]
        return chunk._replace(term=message["term"])
    if kind == "next_node_idx":
        return AppendReply(current_term, message["next_node_idx"], message["success"], message["reset"], 0)
    if kind == "request_vote":
        return RequestVote(message["term"], message["last_log_index"], message["last_log_term"], False)
    if kind == "response_vote":
        return VoteGranted(message["term"])
    if kind == "timeout_now":
        return TimeoutNow(message["term"])
    return None


def to_engine(message: Message) -> dict[str, Any]:
    """A checked message as the engine's dictionary; raises InvariantError for kinds that it must not see."""
    if isinstance(message, AppendEntries):
        return {
            "type": "append_entries",
            "term": message.term,
            "commit_index": message.commit_index,
            "entries": message.entries,
            "prevLogIdx": message.previous_index,
            "prevLogTerm": message.previous_term,
        }
    if isinstance(message, AppendReply):
        return {
            "type": "next_node_idx",
            "next_node_idx": message.next_index,
            "success": message.success,
            "reset": message.reset,
        }
    if isinstance(message, RequestVote):
        return {
            "type": "request_vote",
            "term": message.term,
            "last_log_index": message.last_index,
            "last_log_term": message.last_term,
        }
    if isinstance(message, VoteGranted):
        return {"type": "response_vote", "term": message.term}
    if isinstance(message, TimeoutNow):
        return {"type": "timeout_now", "term": message.term}
    if isinstance(message, LeaderPing):
        # D1: neither branch of append_entries runs, and a commit index of 0 commits nothing.
        return {"type": "append_entries", "term": message.term, "commit_index": 0, "serialized": None}
    raise InvariantError(f"{type(message).__name__} is not a message for the engine")
