"""The product's proof of a node's copy of the state, in a simulated process, and what its alarms mean for the verdict.

Composed as in `metasrv/node/meta_node.py`. Stands in for the node's metrics, so that it hears of each alarm as it is
raised: one about a copy that nobody has harmed is a violation. Runs in the loop of the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from metasrv.model.errors import FatalError
from metasrv.node.copy_proof import CopyProof
from metasrv.node.findings import CopyFindings
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.consensus import RaftConsensus
from verification.simulation.world import World


class Harm(NamedTuple):
    """What was done on purpose to one record of a machine's copy."""

    key: str
    row: tuple[Any, ...] | None
    """What the file holds of it since; None for no row."""


class Proving:
    """The proof of one process. `fatal` and `damaged` are told when it must end, and when its own copy is damaged."""

    def __init__(
        self,
        world: World[Any],
        consensus: RaftConsensus,
        directory: DataDirectory,
        fatal: Callable[[FatalError], None],
        damaged: Callable[[], None],
    ) -> None:
        self._world = world
        self._node_id = consensus.node_id
        self._fatal = fatal
        self._on_damage = damaged
        self._damaged = False
        self._differing: frozenset[int] = frozenset()
        self._tasks: list[asyncio.Task[None]] = []
        self.findings = CopyFindings()
        self.proof = CopyProof(consensus, directory, self.findings, self, world.clock, world.tuning.pace)

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self._guarded(work)) for work in self.proof.works().values()]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except FatalError as error:
            self._fatal(error)
        except Exception as error:
            text = f"looking after the copy of node {self._node_id} failed: {type(error).__name__}: {error}"
            self._world.witness.violation(text)

    def copies(self, damaged: bool, differing: frozenset[int], scrubs: int) -> None:
        """What the metrics are told."""
        del scrubs
        before, self._differing = self._differing, differing
        began, self._damaged = damaged and not self._damaged, damaged
        if began:
            self._alarm(self._node_id, self.findings.damage)
            self._on_damage()
        for node_id in sorted(differing - before):
            self._alarm(node_id, self.findings.peers[node_id])

    def _alarm(self, subject: int, sentence: str) -> None:
        world, own_id = self._world, self._node_id
        world.note(f"node {own_id} raises an alarm about node {subject}: {sentence}")
        world.witness.count("alarms about the own copy" if subject == own_id else "alarms about another copy")
        if not world.suspect(own_id) and not world.suspect(subject):
            world.witness.violation(f"node {own_id} raised an alarm about a good copy, of node {subject}: {sentence}")
