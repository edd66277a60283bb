"""The kinds of work that hold the event loop, as the metric of slow steps names them.

A step is what runs between two turns of the loop. Pure names.
"""

from __future__ import annotations

from enum import StrEnum


class LoopWork(StrEnum):
    """The label `work` of `metasrv_loop_slow_steps_total`."""

    RAFT_APPLY = "raft_apply"
    """Committed entries are applied to the state, and watchers told."""
    RAFT_MESSAGES = "raft_messages"
    """Messages of peers are decoded and handed to the engine; pieces of a snapshot are written to its file."""
    RAFT_TICK = "raft_tick"
    """The engine looks at its timers."""
    RAFT_SEND = "raft_send"
    """Proposals become an entry; entries and pieces of a snapshot are read, encoded and sent."""
    RAFT_UPKEEP = "raft_upkeep"
    """A snapshot is put in place, the log purged, waiting reads are answered."""
    STORAGE_RESULT = "storage_result"
    """The snapshot thread hands back a result, after which the log may be purged."""
    PEER_FRAMES = "peer_frames"
    """Bytes from a peer are cut into frames and checked."""
    PEER_REQUEST = "peer_request"
    """Another node's request is answered."""
    GRPC_CALL = "grpc_call"
    """A client's call is parsed, answered and encoded."""
    ADMIN_REQUEST = "admin_request"
    """A request to the admin API is answered."""
