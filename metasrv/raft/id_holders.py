"""An id in use is in use: while the member that holds an id is heard, no other data directory takes its place.

Asked by `membership.py` before a member with another data directory is removed, and by `peer_set.py` whenever a node
introduces itself. A leader goes by the answers that the engine has of the member. Only those of the admitted directory
count there; a new leader counts from the moment of its election. Changes nothing. Runs on the node's event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model.errors import MembershipError
from metasrv.model.types import Endpoint, Member, Node
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import LEADER, Engine
from metasrv.raft.peers.handshake import RemoteIdentity

SILENCE_ELECTION_TIMEOUTS = 3
"""A holder may be replaced once it has answered nothing for this number of the longest election timeouts."""


class IdHolders:
    """Who holds an id, and whether it is heard."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        registered: Callable[[int], Node | None],
        directory_of: Callable[[int], str | None],
        last_contact: Callable[[int], float | None],
        election_timeout_max_seconds: float,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._registered = registered
        self._directory_of = directory_of
        self._last_contact = last_contact
        self._silence_seconds = SILENCE_ELECTION_TIMEOUTS * election_timeout_max_seconds

    def refuse_if_heard(self, node_id: int, holder: Member) -> None:
        """Raise MembershipError while the holder answers this leader; say where it runs and what to do.

        The sentence stays the same while nothing changes, so that the node that asks again and again logs it once.
        """
        if self._is_silent_since(self._engine.last_response(node_id)):
            return
        raise MembershipError(
            f"{self._in_use(node_id, holder)}: give the joining "
            f"node an id of its own; if it shall take the place of that node, stop that one, and this one is let in "
            f"once it has been silent for {self._silence_seconds:g} s"
        )

    def refuse_foreign(self, remote: RemoteIdentity) -> str | None:
        """The reason to refuse a node with a member's id and another data directory, while the member is heard.

        Otherwise the connection of the one would replace that of the other (`peers/listener.py`), and answers of the
        member would not count. A node that does not lead goes by what the member sends to it.
        """
        node_id = remote.node_id
        holder = None if node_id is None else self._engine.membership().member(node_id)
        if node_id is None or holder is None or holder.incarnation == remote.incarnation:
            return None
        heard_at: float | None = None
        if self._engine.role() == LEADER:
            heard_at = self._engine.last_response(node_id)
        elif self._directory_of(node_id) == holder.incarnation:
            heard_at = self._last_contact(node_id)
        if heard_at is None or self._is_silent_since(heard_at):
            return None
        return self._in_use(node_id, holder)

    def _is_silent_since(self, heard_at: float) -> bool:
        return self._clock.monotonic() - heard_at > self._silence_seconds

    def _in_use(self, node_id: int, holder: Member) -> str:
        node = self._registered(node_id)
        endpoint: Endpoint = holder.endpoint if node is None else node.endpoint
        return f"node id {node_id} is in use by the node at {endpoint}, which has another data directory"
