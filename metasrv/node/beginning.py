"""How an empty node that may begin a cluster finds out whether there is one already.

A first node that has lost its disk must not begin a second cluster under its old address: clients that know the address
would read and write there. So the node asks every address in `join` first. Silence proves nothing, because the others may
just not have started. Knows addresses and consensus, but no engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from metasrv.consensus import Standing
from metasrv.model.errors import RequestError
from metasrv.model.types import Endpoint, Node
from metasrv.process.clock import Clock
from metasrv.raft.consensus import RaftConsensus

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_MS = 3_000
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_ADVICE = (
    "This node begins a cluster once each address in `join` has answered that it belongs to none, and joins the cluster "
    "of the first that has one. Start the other nodes; or, if they hold no cluster and will not come, start this one "
    "once with --begin-cluster"
)


async def begin_or_find(
    *,
    consensus: RaftConsensus,
    node: Node,
    addresses: Sequence[str],
    forced: bool,
    clock: Clock,
    waiting: Callable[[str], None],
) -> bool:
    """True once this empty node has begun a cluster, False once another node has named one to join.

    It waits for the answer of every address, without a limit: the other nodes may be started much later. With `forced`
    it asks each address once and takes silence for an answer. `waiting` is told for whom it waits.
    """
    targets = [Endpoint.parse(address) for address in addresses if Endpoint.parse(address) != node.endpoint]
    beginning = consensus.beginning
    beginning.meant = True
    pause, said = _FIRST_PAUSE_SECONDS, ""
    while True:
        answers = await asyncio.gather(*(_ask(consensus, target) for target in targets))
        known = [answer for answer in answers if isinstance(answer, Standing) and answer.cluster_id is not None]
        if known:
            beginning.meant = False
            logger.info("node %d belongs to cluster %s, so this node begins none", known[0].node_id, known[0].cluster_id)
            return False
        doubts = [
            f"{target} {doubt}"
            for target, answer in zip(targets, answers, strict=True)
            if (doubt := _doubt(answer, node))
        ]
        if beginning.heard_of_another():
            doubts.append("a member of some cluster has sent messages to this node, and so there is one")
        if not doubts or forced:
            if doubts:
                logger.warning("--begin-cluster: this node begins a cluster although %s", "; ".join(doubts))
            await beginning.begin()
            logger.info("node %d has begun cluster %s", node.node_id, consensus.cluster_id())
            return True
        why = "; ".join(doubts)
        waiting(f"{why}. {_ADVICE}")
        if why != said:
            logger.warning("waiting to begin a cluster or to join one: %s. %s", why, _ADVICE)
            said = why
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


async def _ask(consensus: RaftConsensus, target: Endpoint) -> Standing | RequestError:
    try:
        return await consensus.forwarding.standing(target, ANSWER_TIMEOUT_MS)
    except RequestError as error:
        return error


def _doubt(answer: Standing | RequestError, node: Node) -> str:
    """Why this answer does not allow a beginning; empty when it does."""
    if isinstance(answer, RequestError):
        return f"has not answered: {answer}"
    if answer.begins and answer.node_id < node.node_id:
        return f"is node {answer.node_id}, which is about to begin the cluster itself"
    return ""
