"""What a running node offers to its services: the admin API, the gRPC API, metrics and health.

A plain holder, filled by `meta_node.py`; services take what they need from it and own nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from metasrv.config.model import Config
from metasrv.consensus import Consensus
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.types import Endpoint
from metasrv.node.backups import Backups
from metasrv.node.findings import CopyFindings
from metasrv.process.clock import Clock
from metasrv.process.reloading import Reloader
from metasrv.state.machine import StateMachine


def _nothing(_sentence: str) -> None:
    """Nobody wants to hear of it."""


@dataclass(slots=True)
class NodeContext:
    """References that live as long as the node."""

    config: Config
    """What is in force: some keys change when the configuration file does (`reloads.py`)."""
    consensus: Consensus
    machine: StateMachine
    metrics: MetricsRegistry
    clock: Clock
    started_at_ms: int
    binary_version: str
    draining: bool = False
    """Set at the first termination signal: readiness fails and new requests are refused."""
    joined: bool = False
    """Set once this node is registered with the cluster."""
    waiting_for: str = ""
    """Before it is registered: what this node waits for, as one sentence; empty when it does not wait."""
    loop_lag_ms: float = 0.0
    """How late the event loop's last heartbeat was."""
    loop_beat_at: float = 0.0
    """Monotonic seconds of that heartbeat."""
    copies: CopyFindings = field(default_factory=CopyFindings)
    """What is known about this node's copy of the state and those of the others."""
    backups: Backups | None = None
    """The backups that the leader makes by itself; None where none are configured."""
    damage_found: Callable[[str], None] = _nothing
    """Told when a read finds this node's copy damaged, with one sentence."""
    reloader: Reloader = field(init=False)
    """What is loaded anew when its files change; see `reloads.py`."""
    config_paths: tuple[str, ...] = ()
    """The configuration file, if there is one, for what is loaded anew when it changes."""
    listeners: dict[str, Endpoint] = field(default_factory=dict)
    """Bound addresses by service name: `raft`, `health`, `admin`, `grpc`; a configured port 0 is resolved here."""

    def __post_init__(self) -> None:
        self.reloader = Reloader(self.metrics)

    def set_waiting_for(self, sentence: str) -> None:
        """Say what this node waits for before it serves."""
        self.waiting_for = sentence


class Service(Protocol):
    """A listener that `meta_node.py` starts and stops in order."""

    name: str

    async def start(self) -> Endpoint:
        """Bind and serve; returns the bound address. Raises BindError."""
        ...

    async def stop(self, grace_ms: int) -> None:
        """Stop accepting, give requests in flight `grace_ms` to finish, close."""
        ...
