"""Makes a node's data directory from a backup: `metactl import` and `metactl snapshot restore`.

The directory appears complete or not at all. Each node of the new cluster is restored by itself, with the same backup and
the same list of members. Runs in a program of its own, while no node uses the directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.contents import Contents, Progress, build_state
from metasrv.backup.founding import found, log_id_to_begin_with, membership_of, name_cluster
from metasrv.backup.offline import stopped_node
from metasrv.model.errors import BackupError, DataDamagedError, IdentityError
from metasrv.model.types import Endpoint, Node
from metasrv.process.data_directory import building_beside, holds_data
from metasrv.state.format import Applied


class Member(NamedTuple):
    """A node of the cluster that is to be, as `--initial-cluster` names it."""

    endpoint: Endpoint
    grpc_address: str
    """Its client address, where that was given; the node registers its own when it starts."""


class Wanted(NamedTuple):
    """What the new data directory is to be."""

    raft_dir: str
    node_id: int | None
    """None for the node that the backup is of, or the only member."""
    members: Mapping[int, Member]
    """Empty for those that the backup names."""
    token: str = ""
    """Tells clusters apart that are restored from the same backup with the same members."""


class Restored(NamedTuple):
    """What was made."""

    node_id: int
    cluster_id: str
    voters: tuple[int, ...]
    applied: Applied
    contents: Contents
    aside: str | None
    """Where the data went that was there before."""


def restore(reader: ArchiveReader, wanted: Wanted, now_ms: int, progress: Progress, *, replace: bool) -> Restored:
    """Read the whole backup, check it, and put the new data in place; data that is there is moved aside with `replace`.

    Raises BackupError, IdentityError, DataDamagedError or StorageError; the directory is then as it was.
    """
    if not replace and holds_data(wanted.raft_dir):
        raise BackupError(f"{wanted.raft_dir} already holds the data of a node; move it away, or name another directory")
    present = _present(wanted.raft_dir) if replace else None
    with building_beside(wanted.raft_dir, now_ms) as (built, put_in_place):
        state_path = os.path.join(built, "restored.db")
        contents, applied = build_state(reader, state_path, progress)
        _refuse_part(reader)
        voters, learners = _members(contents, wanted, reader.name)
        node_id = _own_id(contents, wanted, voters, learners)
        names = name_cluster(applied, voters, learners, wanted.token)
        log_id = log_id_to_begin_with(contents.applied)
        if present is not None and present[0] == names.cluster_id and present[1] > log_id.term:
            raise BackupError(
                f"{wanted.raft_dir} has already run as a node of the cluster that this backup makes, and knows more than "
                "the backup: to forget that may lose acknowledged writes. Start it as it is; or, if it is damaged, empty "
                "the directory and let the node join. For another cluster on the same addresses use `metactl snapshot "
                "restore` with --cluster-token"
            )
        kept = contents.membership if contents.membership is not None and not wanted.members else None
        found(
            built,
            node_id,
            names,
            state_path,
            log_id,
            log_id if kept is None else kept.log_id,
            membership_of(names, voters, learners),
            _nodes(contents, wanted),
            None if reader.head is None else reader.head.features,
        )
        aside = put_in_place()
    return Restored(node_id, names.cluster_id, tuple(sorted(voters)), applied, contents, aside)


def _refuse_part(reader: ArchiveReader) -> None:
    if reader.head is not None and reader.head.migrating_from:
        raise BackupError(
            f"{reader.name}: it was saved while the records of cluster {reader.head.migrating_from} were moved into its "
            "cluster, and has only some of them; save one after the migration has ended"
        )


def _present(raft_dir: str) -> tuple[str | None, int] | None:
    """Cluster and newest term of the node that the directory is of; None when it has no sound data."""
    try:
        with stopped_node(raft_dir) as node:
            return node.identity.cluster_id, node.term
    except (IdentityError, DataDamagedError):
        return None


def _members(contents: Contents, wanted: Wanted, name: str) -> tuple[dict[int, Endpoint], dict[int, Endpoint]]:
    """Voters and learners with their raft addresses."""
    if wanted.members:
        return {node_id: member.endpoint for node_id, member in wanted.members.items()}, {}
    membership = contents.membership
    if membership is None or not membership.voters:
        raise BackupError(f"{name}: it names no members; say with --initial-cluster who they are")
    unknown = [node_id for node_id in (*membership.voters, *membership.learners) if node_id not in contents.nodes]
    if unknown:
        raise BackupError(
            f"{name}: it has no address of node {unknown[0]}; say with --initial-cluster who the members are and where"
        )
    voters, learners = (
        {node_id: contents.nodes[node_id].endpoint for node_id in group}
        for group in (membership.voters, membership.learners)
    )
    return voters, learners


def _own_id(contents: Contents, wanted: Wanted, voters: Mapping[int, Endpoint], learners: Mapping[int, Endpoint]) -> int:
    members = sorted([*voters, *learners])
    node_id = wanted.node_id
    if node_id is None:
        node_id = members[0] if len(members) == 1 else None if wanted.members else contents.node_id
    if node_id is None:
        raise BackupError(f"--id is missing: which of the nodes {members} is this directory for?")
    if node_id not in members:
        raise BackupError(f"node {node_id} is none of the members {members}; give the right --id or --initial-cluster")
    return node_id


def _nodes(contents: Contents, wanted: Wanted) -> tuple[Node, ...]:
    """What is registered until each node registers itself at its start."""
    if not wanted.members:
        return tuple(contents.nodes.values())
    return tuple(
        Node(node_id, member.endpoint, "", member.grpc_address or None) for node_id, member in wanted.members.items()
    )


def parse_members(texts: list[str]) -> dict[int, Member]:
    """`id=host:port`, several apart by commas; `id=host:port,host:port` names a client address too.

    Raises BackupError.
    """
    members: dict[int, Member] = {}
    last: int | None = None
    for part in (part.strip() for text in texts for part in text.split(",")):
        node, equals, address = part.rpartition("=")
        try:
            endpoint = Endpoint.parse(address)
        except ValueError as error:
            raise BackupError(f"--initial-cluster: {error}; it is id=host:port") from error
        if not equals:
            if last is None or members[last].grpc_address:
                raise BackupError(f"--initial-cluster: {part!r} is not id=host:port")
            members[last] = members[last]._replace(grpc_address=address)
            continue
        if not node.isascii() or not node.isdigit() or int(node) >= 2**63:
            raise BackupError(f"--initial-cluster: {node!r} in {part!r} is no node id")
        last = int(node)
        if last in members:
            raise BackupError(f"--initial-cluster names node {last} twice")
        members[last] = Member(endpoint, "")
    duplicates = len(members) - len({member.endpoint for member in members.values()})
    if duplicates:
        raise BackupError("--initial-cluster names one address twice")
    return members
