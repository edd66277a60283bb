"""What a gateway knows of the state without reading it: the tables that its node tells.

Knows neither the link nor where records are read: `file_state.py` and `remote_context.py` do. Runs on the gateway's
event loop.
"""

from __future__ import annotations

from collections.abc import Mapping

from metasrv.gateway.messages import Pulse, Registry
from metasrv.model.types import LogId, WriteLimits


class ToldState:
    """A part of `grpc_api.context.LocalState`. The owner puts in what the node tells anew."""

    touched = None
    """Entries are applied in another process."""

    def __init__(self, registry: Registry, pulse: Pulse) -> None:
        self.registry = registry
        self.pulse = pulse

    @property
    def secrets(self) -> Mapping[str, bytes]:
        return self.registry.secrets

    @property
    def features(self) -> tuple[str, ...]:
        return self.registry.features

    @property
    def limits(self) -> WriteLimits:
        return self.registry.limits

    @property
    def cluster_id(self) -> str | None:
        return self.registry.cluster_id

    @property
    def last_applied(self) -> LogId:
        """The index alone is known."""
        return LogId(0, self.pulse.applied_index, 0)
