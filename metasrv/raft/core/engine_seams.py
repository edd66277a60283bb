"""What stands in the places where pysyncobj keeps its transport, its serializer, its journal and its poller.

Messages go out through a function, snapshot chunks come from a source, nothing is polled. `engine.py` puts them in place.
Runs on the event loop, in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pysyncobj import syncobj as engine_module
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node as EngineNode
from pysyncobj.transport import Transport as EngineTransport

from metasrv.model.errors import InvariantError
from metasrv.raft.core.messages import SnapshotChunk
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore


class SnapshotSource(Protocol):
    """Where the engine gets a snapshot for a peer that needs purged entries."""

    def next_chunk(self, node_id: int) -> tuple[SnapshotChunk | None, bool]:
        """The next piece, without term and round, which are filled in later, and whether it is the last one."""
        ...


class NoPoller:
    def poll(self, timeout: float) -> None:
        """The event loop polls; the engine never does."""


class SnapshotSeam:
    """Stands where pysyncobj keeps its Serializer: hands out pieces of snapshots, takes in two log entries."""

    def __init__(self, source: SnapshotSource) -> None:
        self._source = source
        self.installed: tuple[LogEntry, LogEntry] | None = None

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def serialize(self, data: object, entry_id: int) -> None:
        raise InvariantError("the engine asked for a compaction although compaction is switched off")

    def deserialize(self) -> tuple[None, LogEntry, LogEntry, list[EngineNode]]:
        if self.installed is None:
            raise InvariantError("the engine loads a snapshot that was not prepared")
        previous, last = self.installed
        return None, last, previous, []

    def getTransmissionData(self, node: EngineNode) -> tuple[SnapshotChunk, bool, bool] | None:
        chunk, is_last = self._source.next_chunk(int(node.id))
        return None if chunk is None else (chunk, chunk.offset_bytes == 0, is_last)

    def setTransmissionData(self, data: object) -> bool:
        return False

    def cancelTransmisstion(self, node: EngineNode) -> None:
        """The peer is not ready. Its transfer goes on after a pause; a lost connection ends it (`peer_gone`)."""


class MessageSeam(EngineTransport):  # type: ignore[misc]  # pysyncobj is untyped
    """Stands where pysyncobj keeps its Transport; hands every message to the step's outbox."""

    def __init__(self, send: Callable[[int, dict[str, Any]], None]) -> None:
        super().__init__(None, None, [])
        self._send = send

    def send(self, node: EngineNode, message: dict[str, Any]) -> bool:
        self._send(int(node.id), message)
        return True


@contextmanager
def construction_seams(store: LogStore) -> Iterator[None]:
    """`SyncObj.__init__` looks these module-level names up; they are replaced only while it runs."""
    saved = engine_module.createJournal, engine_module.createPoller
    engine_module.createJournal = lambda _path: store
    engine_module.createPoller = lambda _kind: NoPoller()
    try:
        yield
    finally:
        engine_module.createJournal, engine_module.createPoller = saved
