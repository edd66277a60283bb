"""What consensus reports while it works, for whoever counts it.

`raft/` calls these on the event loop; `metrics/` implements them. A protocol, so that consensus knows nothing of
Prometheus, and simulations need no metrics.
"""

from __future__ import annotations

from typing import Protocol

from metasrv.model.loop_work import LoopWork
from metasrv.process.accepting import AcceptingObserver


class RaftObserver(AcceptingObserver, Protocol):
    """Counts and durations; every method is cheap and never raises."""

    def peer_connected(self, node_id: int, address: str, connected: bool) -> None: ...

    def connect_failed(self, node_id: int, address: str) -> None: ...

    def sent_bytes(self, to_id: int, size_bytes: int) -> None: ...

    def received_bytes(self, from_address: str, size_bytes: int) -> None: ...

    def send_failed(self, to_id: int) -> None: ...

    def append_acknowledged(self, to_id: int, seconds: float) -> None:
        """Time from sending entries to their acknowledgement."""
        ...

    def snapshot_sending(self, to_id: int, change: int) -> None:
        """`change` is +1 when a transfer starts and -1 when it ends."""
        ...

    def snapshot_sent(self, to_id: int, seconds: float, success: bool) -> None: ...

    def snapshot_receiving(self, from_id: int, change: int) -> None: ...

    def snapshot_received(self, from_id: int, seconds: float, success: bool) -> None: ...

    def snapshot_written(self, entries: int) -> None:
        """A snapshot file with this many entries was finished."""
        ...

    def storage_failed(self, operation: str, write: bool) -> None: ...

    def log_synced(self, seconds: float, entries: int) -> None:
        """One write and sync of the raft log."""
        ...

    def state_committed(self, seconds: float) -> None:
        """One commit of applied entries to the state file, on the event loop."""
        ...

    def batch_applied(self, seconds: float, commands: int) -> None:
        """One log entry was applied to the state."""
        ...

    def applying_paused(self, seconds: float) -> None:
        """Committed entries waited so long while the state's write-ahead log began anew."""
        ...

    def disk_stalled(self, part: str) -> None:
        """The disk has stopped answering: a write of the raft log (`log`) or the state (`state`) waits for it."""
        ...

    def batch_committed(self, seconds: float) -> None:
        """A batch of this leader's was committed so long after it had entered the log."""
        ...

    def read_confirmed(self, seconds: float) -> None:
        """A majority confirmed this leader for a read."""
        ...

    def forwarded(self, request: str, seconds: float) -> None:
        """Another node, asked as the leader, answered a `propose` or a `read_index`, or failed to."""
        ...

    def step_took(self, work: LoopWork, seconds: float) -> None:
        """A step of the event loop is over; `work` is what took most of it."""
        ...


class SilentObserver:
    """Ignores everything."""

    def peer_connected(self, node_id: int, address: str, connected: bool) -> None:
        del node_id, address, connected

    def connect_failed(self, node_id: int, address: str) -> None:
        del node_id, address

    def sent_bytes(self, to_id: int, size_bytes: int) -> None:
        del to_id, size_bytes

    def received_bytes(self, from_address: str, size_bytes: int) -> None:
        del from_address, size_bytes

    def send_failed(self, to_id: int) -> None:
        del to_id

    def append_acknowledged(self, to_id: int, seconds: float) -> None:
        del to_id, seconds

    def snapshot_sending(self, to_id: int, change: int) -> None:
        del to_id, change

    def snapshot_sent(self, to_id: int, seconds: float, success: bool) -> None:
        del to_id, seconds, success

    def snapshot_receiving(self, from_id: int, change: int) -> None:
        del from_id, change

    def snapshot_received(self, from_id: int, seconds: float, success: bool) -> None:
        del from_id, seconds, success

    def snapshot_written(self, entries: int) -> None:
        del entries

    def storage_failed(self, operation: str, write: bool) -> None:
        del operation, write

    def log_synced(self, seconds: float, entries: int) -> None:
        del seconds, entries

    def state_committed(self, seconds: float) -> None:
        del seconds

    def batch_applied(self, seconds: float, commands: int) -> None:
        del seconds, commands

    def applying_paused(self, seconds: float) -> None:
        del seconds

    def disk_stalled(self, part: str) -> None:
        del part

    def batch_committed(self, seconds: float) -> None:
        del seconds

    def read_confirmed(self, seconds: float) -> None:
        del seconds

    def forwarded(self, request: str, seconds: float) -> None:
        del request, seconds

    def step_took(self, work: LoopWork, seconds: float) -> None:
        del work, seconds

    def tls_handshakes(self, port: str, change: int) -> None:
        del port, change

    def tls_handshake_failed(self, port: str, reason: str) -> None:
        del port, reason

    def descriptors_short(self, port: str) -> None:
        del port
