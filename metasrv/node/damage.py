"""What this node knows about its own copy of the state and about those of the others; what a damaged copy means.

A node whose own copy is wrong refuses every read and write, is not ready, hands leadership over, and says so until its
state is replaced: also after a restart, because the sentence stands in the data directory. Its log is another file and
good, so it goes on voting and storing entries. It serves on when no other voter has a good copy: then an alarm is all
that helps. Runs on the node's event loop; must not know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from metasrv.model.errors import MetasrvError
from metasrv.node.findings import CopyFindings
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.consensus import RaftConsensus

logger = logging.getLogger(__name__)

HAND_OVER_SECONDS = 0.5
_HAND_OVER_TIMEOUT_MS = 2_000
REMEDY = "rebuild it: stop the node and start it once with --rebuild (docs/runbooks/damaged-copy.md)"


class CopyMetrics(Protocol):
    """Who is told of each change: the node's metrics."""

    def copies(self, damaged: bool, differing: frozenset[int], scrubs: int) -> None: ...


class CopyHealth:
    """Keeps the findings, and acts on them."""

    def __init__(
        self, consensus: RaftConsensus, directory: DataDirectory, findings: CopyFindings, metrics: CopyMetrics
    ) -> None:
        self._consensus = consensus
        self._directory = directory
        self._metrics = metrics
        self.findings = findings
        self._differing: dict[int, str] = {}
        self._said: dict[int, str] = {}
        consensus.replica.state_replaced = self._replaced
        known = directory.damage()
        if known:
            findings.damage = known
            self._decide()
            logger.critical("this node's copy of the state is known to be damaged: %s; %s", known, REMEDY)

    def damaged(self, sentence: str) -> None:
        """This node's own copy is wrong; said again with more words once these are known."""
        known = self.findings.damage
        if known and not (sentence.startswith(known) and sentence != known):
            return
        self.findings.damage = sentence
        self._decide()
        logger.critical(
            "this node's copy of the state is damaged: %s; %s",
            sentence,
            f"it stops serving; {REMEDY}"
            if not self.findings.serves
            else "it serves on, because no other voter has a copy",
        )
        self._directory.set_damage(sentence)

    def _decide(self) -> None:
        findings, consensus = self.findings, self._consensus
        voters = consensus.replica.engine.membership().voters
        others = [i for i in voters if i != consensus.node_id and not self._said.get(i)]
        findings.serves = not findings.damage or not others
        consensus.damage = findings.damage
        consensus.set_serving(findings.serves)
        self._count()

    def _replaced(self) -> None:
        """A verified snapshot of the leader is the state now."""
        if self.findings.damage:
            logger.warning(
                "the damaged copy of the state was replaced by a snapshot from the leader; this node serves again"
            )
            self.findings.damage = ""
            self._decide()
            self._directory.set_damage("")

    def peer_says(self, node_id: int, damage: str) -> None:
        """Another node said what is wrong with its own copy; nothing when empty."""
        if self._said.get(node_id, "") != damage:
            self._said[node_id] = damage
            if damage:
                logger.error("node %d says that its copy of the state is damaged: %s", node_id, damage)
            self._show(node_id)
            self._decide()

    def peer_differs(self, node_id: int, sentence: str) -> None:
        """Another node's copy is not this one's; nothing when empty."""
        if self._differing.get(node_id, "") != sentence:
            self._differing[node_id] = sentence
            if sentence:
                logger.error("%s", sentence)
            else:
                logger.warning("the copies of this node and node %d are the same again", node_id)
            self._show(node_id)

    def forget_peers_but(self, members: Iterable[int]) -> None:
        """Nodes that are no members any more have no copy that counts."""
        for node_id in [*self._said, *self._differing]:
            if node_id not in members:
                self._said.pop(node_id, None)
                self._differing.pop(node_id, None)
                self._show(node_id)

    def compared(self, now: float) -> None:
        self.findings.compared_at = now

    def scrubbed(self, now: float) -> None:
        self.findings.scrubbed_at = now
        self.findings.scrubs += 1
        self._count()

    def _show(self, node_id: int) -> None:
        said = self._said.get(node_id)
        text = f"node {node_id} says that its copy is damaged: {said}" if said else self._differing.get(node_id, "")
        if text:
            self.findings.peers[node_id] = text
        else:
            self.findings.peers.pop(node_id, None)
        self._count()

    def _count(self) -> None:
        findings = self.findings
        self._metrics.copies(bool(findings.damage), frozenset(findings.peers), findings.scrubs)

    async def run(self) -> None:
        """Hand leadership over whenever this node leads with a damaged copy, until cancelled."""
        while True:
            await asyncio.sleep(HAND_OVER_SECONDS)
            if not self.findings.serves:
                try:
                    await self._consensus.hand_over(_HAND_OVER_TIMEOUT_MS)
                except MetasrvError as error:
                    logger.warning("leadership was not handed over: %s", error)
