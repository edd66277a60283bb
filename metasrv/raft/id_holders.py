"""An id in use is in use: while the member that holds an id is heard, no other data directory takes its place.

Asked by `membership.py` before a member with another data directory is removed. It reads what the engine knows of the
member's answers. Only those of the admitted directory count there (`peer_set.py`); a new leader counts from the moment
of its election. Changes nothing. Runs on the leader's event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from metasrv.model.errors import MembershipError
from metasrv.model.types import Endpoint, Member, Node
from metasrv.process.clock import Clock
from metasrv.raft.core.engine import Engine

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
        election_timeout_max_seconds: float,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._registered = registered
        self._silence_seconds = SILENCE_ELECTION_TIMEOUTS * election_timeout_max_seconds

    def refuse_if_heard(self, node_id: int, holder: Member) -> None:
        """Raise MembershipError while the holder answers this leader; say where it runs and what to do.

        The sentence stays the same while nothing changes, so that the node that asks again and again logs it once.
        """
        if self._clock.monotonic() - self._engine.last_response(node_id) > self._silence_seconds:
            return
        node = self._registered(node_id)
        endpoint: Endpoint = holder.endpoint if node is None else node.endpoint
        raise MembershipError(
            f"node id {node_id} is in use by the node at {endpoint}, which has another data directory: give the joining "
            f"node an id of its own; if it shall take the place of that node, stop that one, and this one is let in "
            f"once it has been silent for {self._silence_seconds:g} s"
        )
