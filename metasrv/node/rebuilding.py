"""`--rebuild`: replaces this node's data by what the other nodes have, at the start of the process.

The whole directory's content is moved aside, the log too, and the node joins again as a wiped one does: with a new
incarnation, under its old id, once the cluster has not heard its old directory for three election timeouts. A log of
which a part is missing must not vote, so nothing of it is kept. Nothing is moved unless another node says that it belongs
to the same cluster. Runs before the node opens anything.
"""

from __future__ import annotations

import asyncio
import logging

from metasrv.config.model import RaftConfig
from metasrv.consensus import Standing
from metasrv.model.errors import ConfigError, JoinError, MetasrvError
from metasrv.model.types import Endpoint
from metasrv.node.joining import told
from metasrv.process.clock import Clock
from metasrv.process.data_directory import set_data_aside
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.peers.one_shot import one_shot_transport

logger = logging.getLogger(__name__)

_TIMEOUT_MS = 3_000


async def set_aside(raft: RaftConfig, clock: Clock) -> str | None:
    """Move the data aside; returns where, None when there was none.

    Raises ConfigError without `join`, JoinError when no other node belongs to a cluster, IdentityError when the directory
    is another node's, of another cluster, or in use.
    """
    targets = [Endpoint.parse(address) for address in raft.join]
    targets = [target for target in targets if target != raft.raft_advertise_endpoint]
    if not targets:
        raise ConfigError(["--rebuild needs other nodes in `join`: the data comes from them"])
    transport = one_shot_transport(raft, clock)
    try:
        forwarding = Forwarding(transport)
        answers = await asyncio.gather(*(_ask(forwarding, target) for target in targets))
    finally:
        await transport.close()
    clusters = {answer.cluster_id for answer in answers if isinstance(answer, Standing) and answer.cluster_id}
    if len(clusters) != 1:
        said = "; ".join(_said(str(target), answer) for target, answer in zip(targets, answers, strict=True))
        raise JoinError(f"--rebuild moved nothing: the nodes in `join` do not name one cluster to get data from: {said}")
    (cluster_id,) = clusters
    place = await asyncio.to_thread(set_data_aside, raft.raft_dir, raft.id, cluster_id, clock.wall_ms())
    if place is not None:
        logger.warning("--rebuild: the data of this node was moved to %s; it joins cluster %s again", place, cluster_id)
    return place


def _said(whose: str, answer: Standing | MetasrvError) -> str:
    return told(whose, answer) if isinstance(answer, MetasrvError) else f"{whose}: cluster {answer.cluster_id or 'none'}"


async def _ask(forwarding: Forwarding, target: Endpoint) -> Standing | MetasrvError:
    try:
        return await forwarding.standing(target, _TIMEOUT_MS)
    except MetasrvError as error:
        return error
