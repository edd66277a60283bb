"""How a node becomes and stops being a member: join, register, leave.

Coroutines that `meta_node.py` runs in order. Each waits until a deadline, logs what it waits for, and ends with the
sentence of docs/contract/admin-api.md section 5. They know addresses and consensus, but no engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from metasrv.consensus import JoinRequest
from metasrv.model.commands import AddNode
from metasrv.model.errors import (
    FatalError,
    IdentityError,
    JoinEndedError,
    JoinError,
    LeaveError,
    LeaveSelfError,
    MetasrvError,
    RequestError,
)
from metasrv.model.types import Endpoint, Node
from metasrv.process.clock import Clock
from metasrv.raft.consensus import RaftConsensus
from metasrv.raft.forwarding import Forwarding
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_MS = 10_000
JOIN_TIMEOUT_MS = 60_000
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
_REGISTER_PAUSES_SECONDS = (0.5, 5.0)


async def join_cluster(
    *,
    consensus: RaftConsensus,
    machine: StateMachine,
    node: Node,
    incarnation: str,
    learner: bool,
    addresses: Sequence[str],
    clock: Clock,
    timeout_ms: int,
    waiting: Callable[[str], None] = lambda _text: None,
) -> None:
    """Ask each address in turn, again and again, until one lets this node in. Raises JoinError at the deadline.

    `waiting` is told for whom it waits.
    """
    if not addresses:
        logger.info("Did not join: --join is empty")
        return
    if _votes(machine, node, incarnation):
        logger.info("Did not join: node %d already in cluster", node.node_id)
        return
    alone = consensus.status().membership.voters
    if set(alone) == {node.node_id} and alone[node.node_id].incarnation == incarnation:
        logger.info("Did not join: node %d is the only member of its cluster", node.node_id)
        return
    consensus.belonging.asks_to_join = True
    request = JoinRequest(node, incarnation, learner)
    targets: list[int | Endpoint] = [
        Endpoint.parse(address) for address in addresses if Endpoint.parse(address) != node.endpoint
    ]
    deadline = clock.monotonic() + timeout_ms / 1000
    pause = _FIRST_PAUSE_SECONDS
    said = ""
    while True:
        if _votes(machine, node, incarnation):
            # What this node had not applied when it was killed made it a voter; it may even lead by now.
            consensus.belonging.asks_to_join = False
            logger.info("node %d already votes in the cluster", node.node_id)
            return
        errors: list[str] = []
        for target in targets + _known_leader(consensus):
            try:
                await _join_through(consensus, target, request, clock, deadline)
            except IdentityError:
                raise
            except JoinEndedError as error:  # by somebody's wish, which asking again would undo
                raise JoinError(
                    f"node {node.node_id} gives up joining the cluster through {_named(target)}: {error}"
                ) from error
            except MetasrvError as error:
                errors.append(told(_named(target), error))
                continue
            consensus.belonging.asks_to_join = False
            logger.info("joined the cluster through %s", _named(target))
            return
        why = "; ".join(errors)
        if clock.monotonic() + pause > deadline:
            listed = ", ".join(f'"{address}"' for address in addresses)
            raise JoinError(f"fail to join node-{node.node_id} to cluster via [{listed}], errors: {why}")
        if why != said:
            logger.warning("waiting to join the cluster: %s", why)
            said = why
        waiting(why)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _votes(machine: StateMachine, node: Node, incarnation: str) -> bool:
    member = machine.membership.voters.get(node.node_id)
    return member is not None and member.incarnation == incarnation


def _known_leader(consensus: RaftConsensus) -> list[int | Endpoint]:
    """The leader's id if this node hears one, as a learner does also when all addresses in its configuration are old."""
    leader_id = consensus.replica.leader_id()
    return [] if leader_id is None or leader_id == consensus.node_id else [leader_id]


def _named(target: int | Endpoint) -> str:
    return f"node {target}" if isinstance(target, int) else str(target)


def told(whose: str, error: Exception) -> str:
    """The text of an error behind the address or node that it is of, which some errors name themselves."""
    text = str(error)
    return text if text.startswith(f"{whose} ") else f"{whose}: {text}"


async def _join_through(
    consensus: RaftConsensus, target: int | Endpoint, request: JoinRequest, clock: Clock, deadline: float
) -> None:
    left_ms = max(1, int((deadline - clock.monotonic()) * 1000))
    cluster_id = await consensus.forwarding.cluster_id(target, min(CONNECT_TIMEOUT_MS, left_ms))
    if cluster_id is None:
        raise JoinError("it is not part of a cluster yet")
    consensus.adopt_cluster(cluster_id)
    left_ms = max(1, int((deadline - clock.monotonic()) * 1000))
    await consensus.forwarding.join(target, request, min(JOIN_TIMEOUT_MS, left_ms), hops=1)


async def register_node(consensus: RaftConsensus, node: Node, clock: Clock, timeout_ms: int) -> None:
    """Commit this node's own addresses, overriding what was registered. Raises FatalError at the deadline."""
    deadline = clock.monotonic() + timeout_ms / 1000
    pause, longest = _REGISTER_PAUSES_SECONDS
    said = ""
    while True:
        left_ms = max(1, int((deadline - clock.monotonic()) * 1000))
        try:
            await consensus.propose(AddNode(node, True), min(left_ms, 5_000))
        except RequestError as error:
            if clock.monotonic() + pause > deadline:
                raise FatalError(
                    f"node {node.node_id} found no leader to register with in {timeout_ms} ms: {error}"
                ) from error
            if str(error) != said:
                logger.warning("waiting for a leader to register with: %s", error)
                said = str(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            continue
        logger.info("node %d is registered at %s", node.node_id, node.endpoint)
        return


async def leave_cluster(forwarding: Forwarding, node_id: int, addresses: Sequence[str]) -> None:
    """Ask each address in turn, three times each, to remove `node_id`. Raises LeaveError when none did."""
    errors: list[str] = []
    for address in addresses:
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(1.0)
            try:
                await forwarding.leave(Endpoint.parse(address), node_id, CONNECT_TIMEOUT_MS, hops=1)
            except LeaveSelfError as error:
                errors.append(told(address, error))
                break  # asking the leader again does not help
            except (MetasrvError, ValueError) as error:
                errors.append(told(address, error))
                continue
            return
    listed = ", ".join(f'"{address}"' for address in addresses)
    raise LeaveError(f"fail to leave {node_id} cluster via [{listed}], caused by errors: {'; '.join(errors)}")
