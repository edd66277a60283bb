"""`metasrv recover --force-new-cluster`: a cluster of one from a survivor, once a majority is lost for good.

Nothing that the survivor has is left out, also entries that nobody was told of; what only the others had is lost, and
nobody can say what that was. So it is refused while the old members could still form a majority, and done only on an
explicit word. The old data stays beside the new. Runs in a program of its own, while the node is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple

from metasrv.backup.founding import Names, found, membership_of
from metasrv.backup.offline import StoppedNode, copy_with_log, stopped_node
from metasrv.backup.verifying import verify_state
from metasrv.config.model import Config, RaftConfig
from metasrv.model.errors import IdentityError, MetasrvError, RecoveryRefusedError
from metasrv.model.types import Endpoint, LogId, Node
from metasrv.process.clock import Clock
from metasrv.process.data_directory import building_beside
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.peers.one_shot import one_shot_transport

_TIMEOUT_MS = 3_000


class Heard(NamedTuple):
    """What came back from an address."""

    node_id: int | None
    """The member of the same cluster that answered; None for anything else."""
    listens: bool
    """Something is there. It may be the member even when it does not say so."""
    sentence: str


Ask = Callable[[Endpoint, str | None], Awaitable[Heard]]


class Plan(NamedTuple):
    """What is to be done, and what was found."""

    node: StoppedNode
    heard: Mapping[Endpoint, Heard]
    names: Names
    log_id: LogId
    present: frozenset[int]
    """Other voters that may be running."""

    def refusal(self) -> str:
        """Why it must not be done; empty when it may be."""
        identity, voters = self.node.identity, self.node.membership.voters
        if identity.removed is not None:
            return f"this directory is that of a node that was removed: {identity.removed}"
        if self.node.damage:
            return (
                f"its copy of the state is known to be wrong ({self.node.damage}): recover from another survivor, or "
                "restore a backup (docs/runbooks/restore.md)"
            )
        if not voters:
            return "this directory belongs to no cluster"
        own = {identity.node_id} if identity.node_id in voters else set()
        alive = sorted(self.present | own)
        if len(alive) >= self.node.membership.majority:
            return (
                f"nodes {alive} of {sorted(voters)} are there, this one included, and they are a majority: start this "
                "node as it is. Something that listens at a member's address and does not answer has to be stopped first"
            )
        return ""

    def lines(self) -> Iterator[str]:
        """The plan, as it is printed."""
        node, identity = self.node, self.node.identity
        yield f"node {identity.node_id} of cluster {identity.cluster_id}"
        yield f"it has entries up to {node.last_log_id.index}, term {node.term}; its state has applied {node.applied}"
        if node.entries:
            yield f"{len(node.entries)} entries of it will be applied as well, whether or not a majority had them"
        yield f"members: {node.membership}"
        for endpoint, heard in self.heard.items():
            yield f"  - {endpoint} {heard.sentence}"
        yield f"the plan: a new cluster {self.names.cluster_id} with node {identity.node_id} as its only member"
        yield f"lost: whatever the others acknowledged after entry {node.last_log_id.index} without this node"
        yield "the present data is kept in a directory aside-… beside the new"


@contextlib.contextmanager
def recovery(config: Config, clock: Clock, ask: Ask | None = None) -> Iterator[tuple[Plan, Callable[[], str]]]:
    """The plan, and what carries it out and returns where the old data went; the directory is locked meanwhile.

    Raises IdentityError, DataDamagedError, StorageError; the second raises RecoveryRefusedError while it must not be
    done. Not for a running event loop.
    """
    raft = config.raft_config
    if not os.path.isdir(raft.raft_dir):
        raise IdentityError(f"{raft.raft_dir} holds no data of a node")
    with building_beside(raft.raft_dir, clock.wall_ms()) as (built, put_in_place):
        with stopped_node(raft.raft_dir, held=True) as node:
            if node.identity.node_id != raft.id:
                raise IdentityError(
                    f"{raft.raft_dir} belongs to node {node.identity.node_id}, but the configuration says id = {raft.id}"
                )
            plan = asyncio.run(_plan(node, raft, clock, ask))
        carried_out = False

        def carry_out() -> str:
            nonlocal carried_out
            refusal = plan.refusal()
            if refusal or carried_out:
                raise RecoveryRefusedError(refusal or "it was already done")
            carried_out = True
            _build(plan, config, built)
            return put_in_place() or ""

        yield plan, carry_out


def _build(plan: Plan, config: Config, built: str) -> None:
    raft = config.raft_config
    state_path = os.path.join(built, "recovered.db")
    with stopped_node(raft.raft_dir, held=True) as node:
        copy_with_log(node, state_path)
    verify_state(state_path)
    own = raft.raft_advertise_endpoint
    registered = Node(raft.id, own, config.grpc_api_address, config.grpc_api_advertise_address)
    membership = membership_of(plan.names, {raft.id: own}, {})
    found(built, raft.id, plan.names, state_path, plan.log_id, plan.log_id, membership, (registered,))


async def _plan(node: StoppedNode, raft: RaftConfig, clock: Clock, ask: Ask | None) -> Plan:
    own, cluster_id = node.identity.node_id, node.identity.cluster_id
    addresses: dict[Endpoint, set[int]] = {}
    members = {**node.membership.voters, **node.membership.learners}
    for node_id, member in members.items():
        if node_id != own:
            addresses.setdefault(member.endpoint, set()).add(node_id)
    for node_id, registered in node.nodes.items():
        if node_id != own and node_id in members:
            addresses.setdefault(registered.endpoint, set()).add(node_id)
    for text in raft.join:
        if Endpoint.parse(text) != raft.raft_advertise_endpoint:
            addresses.setdefault(Endpoint.parse(text), set())
    transport = one_shot_transport(raft, clock)
    try:
        asking = ask or _asking(Forwarding(transport))
        answers = await asyncio.gather(*(asking(endpoint, cluster_id) for endpoint in addresses))
    finally:
        await transport.close()
    heard = dict(zip(addresses, answers, strict=True))
    present = {answer.node_id for answer in answers if answer.node_id is not None and answer.node_id != own}
    for endpoint, answer in heard.items():
        if answer.listens and answer.node_id is None:
            present |= addresses[endpoint]
    names = Names(uuid.uuid4().hex, {own: uuid.uuid4().hex})
    log_id = LogId(node.term + 1, node.last_log_id.index + 1, own)
    return Plan(node, heard, names, log_id, frozenset(present & node.membership.voters.keys()))


def _asking(forwarding: Forwarding) -> Ask:
    async def ask(endpoint: Endpoint, cluster_id: str | None) -> Heard:
        try:
            standing = await forwarding.standing(endpoint, _TIMEOUT_MS)
        except MetasrvError as error:
            if await _listens(endpoint):
                return Heard(None, True, f"listens, and cannot be asked: {error}")
            return Heard(None, False, f"does not answer: {error}")
        if standing.cluster_id == cluster_id:
            return Heard(standing.node_id, True, f"answers as node {standing.node_id} of this cluster")
        other = "no cluster" if standing.cluster_id is None else f"cluster {standing.cluster_id}"
        return Heard(None, False, f"answers as node {standing.node_id} of {other}, so it is no member")

    return ask


async def _listens(endpoint: Endpoint) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_MS / 1000):
            _, writer = await asyncio.open_connection(*endpoint)
    except OSError:  # also a timeout, and a name that cannot be resolved
        return False
    writer.close()
    return True
