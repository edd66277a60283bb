"""Watchers on every node: each stream must tell every change once, in the order of the log.

A stream begins with all records. From then on the previous record of each event must be the one last told for the key,
and sequence numbers only grow. Runs in the loop of the node it watches.
"""

from __future__ import annotations

from metasrv.model.errors import DataDamagedError, MetasrvError
from metasrv.model.types import SeqV
from verification.simulation.machine import Process

FIRST_KEY = "counter/"
END_KEY = "zzz"
"""All keys that clients use."""


class Watching:
    """One watcher of one process, for as long as it lives."""

    def __init__(self, process: Process) -> None:
        self.records: dict[str, SeqV] = {}
        """The records as its stream has told them."""
        self.complete = False
        """Whether all initial records have come."""
        self.events = 0
        self._process = process
        self._last_seq = 0

    async def run(self) -> None:
        """Watch until the process ends, or its records prove damaged; after a reset, begin anew."""
        while True:
            watcher = self._process.data.machine.watches.subscribe(FIRST_KEY, END_KEY, initial_flush=True)
            self.records.clear()
            self.complete = False
            try:
                async for item in watcher:
                    if item.marker:
                        self.complete = True
                    elif item.is_initialization:
                        self._take_initial(item.key, item.current)
                    else:
                        self._take(item.key, item.prev, item.current)
            except DataDamagedError:
                return  # its records cannot be read any more; the stream of a real node ends in the same way
            except MetasrvError:
                if self._process.ending:
                    return
            finally:
                watcher.close()

    def _take_initial(self, key: str, current: SeqV | None) -> None:
        if current is None or key in self.records:
            self._broken(f"the initial records hold {key!r} twice or empty")
            return
        self.records[key] = current
        self._last_seq = max(self._last_seq, current.seq)

    def _take(self, key: str, prev: SeqV | None, current: SeqV | None) -> None:
        self.events += 1
        known = self.records.get(key)
        if prev != known:
            self._broken(f"an event on {key!r} follows {prev}, but the stream had told {known}")
        if current is None:
            self.records.pop(key, None)
            return
        if current.seq <= self._last_seq:
            self._broken(f"an event on {key!r} has sequence number {current.seq} after {self._last_seq}")
        self.records[key] = current
        self._last_seq = current.seq

    def _broken(self, text: str) -> None:
        machine = self._process.machine
        machine.world.witness.violation(f"watch stream of node {machine.node_id}: {text}")
