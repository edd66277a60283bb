"""Compares this node's copy of the state with those of the other members, while all of them run.

Every few seconds each node asks every other member for the hashes of its state at some applied indexes, and compares
those of the same index. A majority of voters decides which copy is wrong: a node that finds its own in the minority stops
serving (`damage.py`), the others raise an alarm that names it. Without a majority all sides raise it, and nobody stops.
Then the first range of keys that differs is looked for. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from metasrv.model.errors import MetasrvError
from metasrv.model.types import Membership
from metasrv.node.damage import CopyHealth
from metasrv.node.differing_range import first_differing_range
from metasrv.process.clock import Clock
from metasrv.raft.consensus import RaftConsensus

logger = logging.getLogger(__name__)

COMPARE_SECONDS = 5.0
_TIMEOUT_MS = 2_000


class Verdict(NamedTuple):
    """What the hashes of one index say."""

    index: int  # type: ignore[assignment]  # the field's standard name hides tuple.index
    differing: frozenset[int]
    """Members whose hash is not this node's."""
    own_is_wrong: bool
    """A majority of the voters agrees on another hash."""
    own_is_right: bool
    """A majority of the voters has this node's hash."""


def judge(own_id: int, copies: Mapping[int, Mapping[int, bytes]], membership: Membership) -> list[Verdict]:
    """A verdict for each index that this node and another one have, the newest first."""
    own = copies[own_id]
    verdicts: list[Verdict] = []
    for index in sorted(own, reverse=True):
        found = {node_id: hashes[index] for node_id, hashes in copies.items() if index in hashes}
        if len(found) == 1:
            continue
        votes = Counter(found_hash for node_id, found_hash in found.items() if node_id in membership.voters)
        agreed = {found_hash for found_hash, count in votes.items() if count >= membership.majority}
        verdicts.append(
            Verdict(
                index,
                frozenset(node_id for node_id, found_hash in found.items() if found_hash != own[index]),
                own_is_wrong=bool(agreed) and own[index] not in agreed,
                own_is_right=own[index] in agreed,
            )
        )
    return verdicts


class CopyComparison:
    """See the module."""

    def __init__(
        self, consensus: RaftConsensus, health: CopyHealth, clock: Clock, every_seconds: float = COMPARE_SECONDS
    ) -> None:
        self._consensus = consensus
        self._health = health
        self._clock = clock
        self._every_seconds = every_seconds
        self._said: dict[int, tuple[bool, bool]] = {}
        """What was last said about members whose copy differs: which of the two copies is wrong."""

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(self._every_seconds)
            await self.compare()

    async def compare(self) -> None:
        """Ask all members once, and act on what they say."""
        consensus = self._consensus
        membership = consensus.replica.engine.membership()
        others = [i for i in (*membership.voters, *membership.learners) if i != consensus.node_id]
        asked = [consensus.forwarding.copy_state(node_id, _TIMEOUT_MS) for node_id in others]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        copies = {consensus.node_id: consensus.copy_state().hashes}
        for node_id, answer in zip(others, answers, strict=True):
            if isinstance(answer, MetasrvError):
                logger.debug("the state of node %d cannot be compared: %s", node_id, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                copies[node_id] = answer.hashes
                self._health.peer_says(node_id, answer.damage)
        self._health.forget_peers_but(others)
        verdicts = judge(consensus.node_id, copies, membership)
        if verdicts:
            self._health.compared(self._clock.monotonic())
        for node_id in others:
            if node_id in copies:
                await self._note(node_id, [verdict for verdict in verdicts if verdict.index in copies[node_id]])

    async def _note(self, node_id: int, verdicts: list[Verdict]) -> None:
        """What the indexes that both have say about the other node, the newest first."""
        if not verdicts:
            return
        if node_id not in verdicts[0].differing:
            self._said.pop(node_id, None)
            self._health.peer_differs(node_id, "")
            return
        differing = [verdict for verdict in verdicts if node_id in verdict.differing]
        # The very newest index may be known to two nodes only; an older one can have the votes of all.
        verdict = next((v for v in differing if v.own_is_wrong or v.own_is_right), differing[0])
        said = (verdict.own_is_wrong, verdict.own_is_right)
        if self._said.get(node_id) == said:
            return
        self._said[node_id] = said
        text = f"the copies of nodes {self._consensus.node_id} and {node_id} differ at entry {verdict.index}"
        if verdict.own_is_wrong:
            tell, text = self._health.damaged, f"{text}, and a majority does not have what this node has"
        else:
            tell = partial(self._health.peer_differs, node_id)
            right = "a majority has what this node has" if verdict.own_is_right else "no majority says which one is right"
            text = f"{text}, and {right}"
        tell(text)
        try:
            where = await first_differing_range(self._consensus, node_id)
        except MetasrvError as error:
            where = f"a range that could not be found ({error})"
        tell(f"{text}; the first difference is in {where}")
