"""What a new member needs: whether its id and address are free, and the configuration with which it starts.

A node becomes a member by asking: only it knows its data directory's id, which the cluster has to know. So an addition
changes nothing by itself; it checks what would make the join fail, and writes the file. Must not know HTTP. Runs on the
node's event loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from metasrv.config.model import Config, RaftConfig
from metasrv.config.validate import is_loopback, is_unspecified
from metasrv.model.errors import InvalidRequestError, MembershipError, NoLeaderError
from metasrv.model.types import Endpoint, Membership, RaftStatus
from metasrv.node.context import NodeContext
from metasrv.node.members import Change, Members, even_hint, unknown_member, without

ALIKE = (
    "cluster_name",
    "heartbeat_interval",
    "install_snapshot_timeout",
    "clock_offset_max_ms",
    "snapshot_logs_since_last",
    "max_applied_log_to_keep",
    "snapshot_chunk_size",
    "insecure_raft",
)
"""Keys that are the same on all nodes."""
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - what other machines are to reach
SECRET_HINT = "# raft_secret: as on the other nodes, here or in the variable METASRV_RAFT_SECRET"  # noqa: S105
TLS_HINT = "# raft_tls_ca, raft_tls_cert, raft_tls_key: a certificate for {host} of the authority that the others trust"


class Wish(NamedTuple):
    """What somebody says of a node that is to become a member."""

    node_id: int | None
    """None: the next one that is free, or that of the node whose place it takes."""
    raft_address: Endpoint | None
    """None: that of the node whose place it takes."""
    learner: bool = False
    grpc_api_address: str | None = None
    admin_api_address: str | None = None
    raft_dir: str | None = None
    """The last three: None for the defaults."""


class NewMember(NamedTuple):
    """An addition that can succeed."""

    change: Change
    node_id: int
    configuration: str
    """The file with which the node starts."""


async def add_member(context: NodeContext, wish: Wish) -> NewMember:
    """Check the wish and write the configuration. Raises InvalidRequestError, MembershipError, NoLeaderError."""
    if wish.raft_address is None:
        raise InvalidRequestError("`raft_address` is missing: where the other nodes will reach the new one, host:port")
    seen = await context.members.overview()
    status = seen.status
    if status.leader_id is None:
        raise NoLeaderError("no leader is known, and without one no node can join")
    membership = status.membership
    node_id = next_id(status) if wish.node_id is None else wish.node_id
    if node_id in membership:
        raise MembershipError(
            f"node {node_id} is a member already; `metactl member replace {node_id}` puts another node in its place"
        )
    await _refuse_taken_address(context.members, status, node_id, wish.raft_address)
    text = "\n".join(configuration_lines(context.config, status, node_id, wish.raft_address, wish)) + "\n"
    changed = f"nothing yet: node {node_id} becomes a member when it starts with this configuration"
    return NewMember(Change(changed, seen.tolerance(), start_step(node_id, wish.learner, membership)), node_id, text)


async def replace_member(context: NodeContext, node_id: int, wish: Wish, force: bool) -> NewMember:
    """Remove a member that is silent, and write the configuration of the node that takes its place.

    What the wish leaves open is the old node's: its id and its raft address. Raises UnknownMemberError, MembershipError,
    and what `Members.remove` raises.
    """
    seen = await context.members.overview()
    membership = seen.status.membership
    member = membership.member(node_id)
    if member is None:
        raise unknown_member(node_id, membership)
    if node_id in seen.answering() and not force:
        raise MembershipError(
            f"node {node_id} answers: add the new node under another id first (`metactl member add`), and once it votes "
            f"`metactl member remove {node_id}`, so that no failure is costlier meanwhile. With force=true it is removed "
            "at once"
        )
    new_id = node_id if wish.node_id is None else wish.node_id
    address = wish.raft_address or member.endpoint
    wish = wish._replace(learner=node_id in membership.learners)
    if new_id != node_id and new_id in membership:
        raise MembershipError(f"node {new_id} is a member already; choose another id, or keep {node_id}")
    if address != member.endpoint:
        await _refuse_taken_address(context.members, seen.status, new_id, address)
    removed = await context.members.remove(node_id, force)
    status = _status_without(context, node_id)
    text = "\n".join(configuration_lines(context.config, status, new_id, address, wish)) + "\n"
    step = start_step(new_id, wish.learner, status.membership)
    if address == member.endpoint:
        step = f"make sure that the old node {node_id} is stopped and its data directory moved away; then {step}"
    return NewMember(Change(removed.changed, removed.tolerance, step), new_id, text)


def next_id(status: RaftStatus) -> int:
    """One more than every id that is known."""
    return max([status.node_id, *status.membership.voters, *status.membership.learners, *status.nodes]) + 1


def start_step(node_id: int, learner: bool, membership: Membership) -> str:
    """What to do with the configuration."""
    then, hint = "and once it has caught up it votes", even_hint(len(membership.voters) + 1)
    if learner:
        then, hint = f"and `metactl member promote {node_id}` makes it a voter", ""
    start = f"write the configuration to a file on the new machine and start it with `metasrv -c FILE`, {then}"
    return f"{start}; `metactl member list` shows it{hint}"


async def _refuse_taken_address(members: Members, status: RaftStatus, node_id: int, address: Endpoint) -> None:
    """Raise MembershipError when a member has the address, or another node answers there."""
    membership = status.membership
    for other, member in sorted({**membership.voters, **membership.learners}.items()):
        if member.endpoint == address and other != node_id:
            raise MembershipError(f"{address} is the raft address of node {other}")
    standing = await members.standing(address)
    if standing is None:
        return
    if standing.node_id != node_id:
        raise MembershipError(f"at {address} runs node {standing.node_id}, not node {node_id}")
    if standing.cluster_id not in (None, status.cluster_id):
        raise MembershipError(
            f"at {address} runs node {node_id} of another cluster, {standing.cluster_id}: stop it, and let the new node "
            "start with an empty directory"
        )


def _status_without(context: NodeContext, node_id: int) -> RaftStatus:
    """The status, which on a follower may still have the member that was just removed."""
    status = context.consensus.status()
    return replace(status, membership=without(status.membership, node_id))


def configuration_lines(config: Config, status: RaftStatus, node_id: int, address: Endpoint, wish: Wish) -> Iterator[str]:
    """The configuration of a node that joins this node's cluster; no secrets."""
    own, (host, port) = config.raft_config, address
    members = {**status.membership.voters, **status.membership.learners}
    defaults = Config()
    yield f"# node {node_id} of the cluster {status.cluster_id}"
    yield _line("admin_api_address", wish.admin_api_address or defaults.admin_api_address)
    yield _line("grpc_api_address", wish.grpc_api_address or _listens_alike(config.grpc_endpoint, host))
    yield _line("grpc_api_advertise_host", host)
    yield ""
    yield "[raft_config]"
    yield _line("id", node_id)
    yield _line("raft_listen_host", "127.0.0.1" if is_loopback(host) else ALL_ADDRESSES)
    yield _line("raft_advertise_host", host)
    yield _line("raft_api_port", port)
    yield _line("raft_dir", wish.raft_dir or f"./metasrv-{node_id}")
    yield _line("join", [str(members[other].endpoint) for other in sorted(members)])
    if wish.learner:
        yield _line("learner", True)
    for name in ALIKE:
        value = getattr(own, name)
        if value != RaftConfig.model_fields[name].default:
            yield _line(name, value)
    if own.raft_secret is not None:
        yield SECRET_HINT
    if own.raft_tls_ca:
        yield TLS_HINT.format(host=host)


def _listens_alike(own: Endpoint, host: str) -> str:
    """Where the new node's clients' port listens: reachable from other machines only if this node's is."""
    addr = own.addr if is_loopback(own.addr) or is_unspecified(own.addr) else host
    return str(Endpoint(addr, own.port))


def _line(name: str, value: Any) -> str:
    # JSON scalars and lists of texts are TOML.
    return f"{name} = {json.dumps(value)}"
