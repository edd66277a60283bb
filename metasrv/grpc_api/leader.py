"""Tells clients where the leader is: a header with its client address (docs/contract/grpc.md section e).

Building a status costs more than a call's own work, so the header is remembered for `HINT_SECONDS`. It is only a hint:
a stale one costs the client one more hop. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.protocol.methods import LEADER_METADATA_KEY

HINT_SECONDS = 0.2


class LeaderHint:
    """The leader's client address as this node knows it."""

    def __init__(self, context: GrpcContext) -> None:
        self._consensus = context.consensus
        self._monotonic = context.clock.monotonic
        self._metadata: Metadata = ()
        self._valid_until = float("-inf")

    def metadata(self) -> Metadata:
        """The header for a successful answer; empty on the leader and while no address is known."""
        now = self._monotonic()
        if now >= self._valid_until:
            address = self.address()
            self._metadata = ((LEADER_METADATA_KEY, address),) if address else ()
            self._valid_until = now + HINT_SECONDS
        return self._metadata

    def address(self) -> str | None:
        """The leader's client address now; None on the leader, or when it is not known."""
        status = self._consensus.status()
        leader = status.leader
        if status.is_leader or leader is None:
            return None
        return leader.grpc_api_advertise_address or None
