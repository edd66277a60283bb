"""What services may ask of consensus; no name of the engine appears here.

Implemented by `raft/consensus.py`; the tests have an in-memory twin in `metasrv.testing`. Runs on the node's
event loop: no method may be called from another thread.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from metasrv.model.commands import Command, Reply
from metasrv.model.types import Endpoint, Node, RaftStatus


class TransferResult(NamedTuple):
    """Answer of a leadership transfer (docs/contract/admin-api.md section 1.5)."""

    from_id: int
    to_id: int
    voter_ids: list[int]


class JoinRequest(NamedTuple):
    """A node asks to become a member."""

    node: Node
    incarnation: str
    learner: bool


class Standing(NamedTuple):
    """Which cluster a node belongs to; what nodes ask each other before one of them begins a cluster."""

    node_id: int
    cluster_id: str | None
    """None for a node that has never belonged to any."""
    begins: bool
    """It will begin a cluster itself once it knows that there is none."""


class Place(NamedTuple):
    """What a cluster's leader says of a node and its data directory, after a majority has confirmed that it leads."""

    member: bool
    """It is a member, voter or learner, with this data directory."""
    holder: Endpoint | None
    """Where the node that has its id with another data directory runs; None when nobody has the id."""


class CopyState(NamedTuple):
    """What a node says about its copy of the state."""

    damage: str
    """What is wrong with it, as one sentence; mostly empty."""
    hashes: dict[int, bytes]
    """By applied index (`raft/state_hashes.py`)."""


class ClientConsensus(Protocol):
    """The part that serves clients: proposals, linearizable reads and the status of one instant."""

    def status(self) -> RaftStatus:
        """The status of this instant; cheap, never blocks, callable before the node has joined."""
        ...

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        """Replicate a command, from any node (a follower forwards it, one hop).

        Returns once it is committed, applied and durable on a majority.
        Raises NotDoneError (NoLeaderError, NotLeaderError, OverloadedError, StoppingError) when it was
        certainly not executed, UnknownOutcomeError when it may have been, TooLargeError before it was sent.
        """
        ...

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        """As `propose`, but raises NotLeaderError instead of forwarding."""
        ...

    async def read_barrier(self, timeout_ms: int) -> None:
        """Return when local applied state includes every write acknowledged before the call (invariant 5).

        It then holds nothing that had expired by the leader's log time either, so the reader hides nothing by a clock.
        On a follower it asks the leader for its read index. Raises NotDoneError.
        """
        ...

    async def read_barrier_local(self, timeout_ms: int) -> None:
        """As `read_barrier`, but raises NotLeaderError on a node that is not the leader."""
        ...


class Consensus(ClientConsensus, Protocol):
    """The same with membership and leadership."""

    async def trigger_snapshot(self) -> None:
        """Have a snapshot file written in the background, as soon as there is a state; no effect while one is written."""
        ...

    def compact(self) -> None:
        """Write a snapshot, purge the log and give free space back, in the background; the status says how far it is.

        No effect while one runs. Raises StoppingError.
        """
        ...

    async def drain(self, timeout_ms: int) -> None:
        """Lead no more: hand leadership over if this node has it, and stand for no election until `end_drain`.

        Raises NotDoneError when nobody else can lead, or took over in time; this node is as before then.
        """
        ...

    def end_drain(self) -> None:
        """Let this node lead again. Raises StoppingError."""
        ...

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        """Hand leadership to `to_id`, by default the next voter in ascending order, wrapping.

        Returns once the request is sent; an impossible target changes nothing. Raises NotLeaderError.
        """
        ...

    async def known_features(self) -> dict[int, frozenset[str] | None]:
        """The features that each member's release knows, this node's included; None for one that gives no answer."""
        ...

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        """Leader only: admit a node (learner first, voter after it caught up). Idempotent.

        A node whose release does not know a feature that is on is refused.

        Raises NotLeaderError, ChangeInProgressError, MembershipError, TooLargeError for an address past its limit.
        """
        ...

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        """Leader only: remove a node. Succeeds when the node is not a member.

        Raises NotLeaderError, LeaveSelfError, ChangeInProgressError, MembershipError.
        """
        ...
