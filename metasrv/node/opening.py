"""Opens what a node keeps on disk and makes sure that its parts belong together, before anything runs.

Directory, raft log and state are checked against each other here; any doubt stops the start with a sentence
(invariant 9). It blocks, and runs before the node serves anything.
"""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import dataclass

from metasrv.model.commands import KNOWN_FEATURES
from metasrv.model.entries import KIND_NOOP, NoopEntry, encode_membership_entry
from metasrv.model.errors import ConfigError, DataDamagedError, RemovedError
from metasrv.model.types import Endpoint, LogId, Member, Membership
from metasrv.process.data_directory import DataDirectory
from metasrv.process.operating_system import sync_directory
from metasrv.raft.log.format import TERM
from metasrv.raft.log.store import LogStore, LogWriter
from metasrv.raft.log.writer import CHECKPOINT_SIZE_BYTES
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.machine import StateMachine

logger = logging.getLogger(__name__)

_FIRST_ENTRY = (bytes((KIND_NOOP,)), 1, 0)
"""The engine's own first entry, the same on every node."""
_FIRST_MEMBERSHIP_TERM = 1
"""A cluster's first membership is written as by a leader of the first term, so that exports name a real term for it: the
only voter had nobody to ask. Its first election begins the term after."""
ADVICE = "restore the directory from a copy, or remove it and let the node join again with an empty one"


@dataclass(slots=True)
class OpenedData:
    """The node's files, open and consistent."""

    directory: DataDirectory
    store: LogStore
    writer: LogWriter
    machine: StateMachine

    def close(self) -> None:
        self.machine.close()
        self.writer.close()
        self.directory.close()


def open_data(
    root: str,
    node_id: int,
    endpoint: Endpoint,
    bootstrap: bool,
    *,
    allowed_group: int | None = None,
    machine_class: type[StateMachine] = StateMachine,
    log_checkpoint_size_bytes: int = CHECKPOINT_SIZE_BYTES,
) -> OpenedData:
    """Open or create the data directory; `bootstrap` makes a fresh one the first voter of a new cluster.

    A group with the id `allowed_group` keeps its rights to the directory. The simulator passes an observed state machine
    and a checkpoint size that short runs reach.

    Raises IdentityError, DataDamagedError, StorageError, RemovedError.
    """
    directory = DataDirectory.open(root, node_id, allowed_group)
    try:
        if directory.identity.removed is not None:
            raise RemovedError(removed_sentence(directory.root, directory.identity.removed))
        if directory.fresh:
            return _create(directory, endpoint, bootstrap, machine_class, log_checkpoint_size_bytes)
        return _open(directory, machine_class, log_checkpoint_size_bytes)
    except BaseException:
        directory.close()
        raise


def refuse_voting_learner(data: OpenedData, begin_cluster: bool) -> None:
    """Raise ConfigError when this node, whose configuration says `learner`, votes already or would begin a cluster.

    To take a vote away is a change of the cluster, which a file cannot make. To ignore the word would mislead whoever
    counts the votes.
    """
    if begin_cluster:
        raise ConfigError(["`learner` and --begin-cluster exclude each other: who begins a cluster votes"])
    identity = data.directory.identity
    member = data.machine.membership.voters.get(identity.node_id)
    if member is not None and member.incarnation == identity.incarnation:
        raise ConfigError(
            [
                f"`learner` is true, but node {identity.node_id} votes in its cluster, and a configuration takes no "
                f"vote away: leave `learner` out; or make it a learner with `metasrv --leave-id {identity.node_id} "
                f"--leave-via MEMBER`, then move {data.directory.root} away and start it with `join` and `learner`"
            ]
        )


def removed_sentence(root: str, reason: str) -> str:
    """What a node says that must not serve with this directory again."""
    return (
        f"{reason}; what it has in {root} counts no longer. To bring the node back, move that directory away and start "
        "it with `join`; see docs/runbooks/removed-node.md"
    )


def _create(
    directory: DataDirectory,
    endpoint: Endpoint,
    bootstrap: bool,
    machine_class: type[StateMachine],
    log_checkpoint_size_bytes: int,
) -> OpenedData:
    identity = directory.identity
    entries = [_FIRST_ENTRY]
    cluster_id = identity.cluster_id
    if bootstrap:
        cluster_id = uuid.uuid4().hex
        first = Membership({identity.node_id: Member(endpoint, identity.incarnation)}, {})
        entries.append((encode_membership_entry(identity.node_id, Membership(), first), 2, _FIRST_MEMBERSHIP_TERM))
    store = LogStore.open(directory.log_path, create_entries=entries)
    machine = machine_class.open(directory.state_path)
    machine.apply_entry(LogId(0, 1, 0), NoopEntry(0))
    if cluster_id is not None:
        machine.set_cluster_id(cluster_id)
    for path in (directory.log_path, directory.state_path):
        sync_directory(os.path.dirname(path))
    directory.complete(cluster_id)
    return OpenedData(directory, store, store.open_writer(log_checkpoint_size_bytes), machine)


def _open(directory: DataDirectory, machine_class: type[StateMachine], log_checkpoint_size_bytes: int) -> OpenedData:
    store = LogStore.open(directory.log_path, create_entries=None)
    if not os.path.exists(directory.state_path):
        raise DataDamagedError(
            directory.state_path, "file", "missing, although this data directory was in use before", ADVICE
        )
    machine = machine_class.open(directory.state_path)
    if machine.last_applied.index == 0:
        machine.apply_entry(LogId(0, 1, 0), NoopEntry(0))
    writer = store.open_writer(log_checkpoint_size_bytes)
    _reconcile(directory, store, writer, machine)
    cluster_id = directory.identity.cluster_id
    if cluster_id is None and _began_alone(directory, store, machine):
        cluster_id = uuid.uuid4().hex  # the last stop came between the first entry and the cluster's name
        directory.set_cluster_id(cluster_id)
    if cluster_id is not None and machine.cluster_id is None:
        machine.set_cluster_id(cluster_id)
    _warn_of_unknown_features(machine)
    return OpenedData(directory, store, writer, machine)


def _warn_of_unknown_features(machine: StateMachine) -> None:
    """Before the node meets a command that such a feature brings, and stops at it."""
    unknown = sorted(set(machine.features) - set(KNOWN_FEATURES))
    if unknown:
        logger.warning(
            "this release does not know what is on in the cluster (%s), and stops at the first command that it brings; "
            "start the node with the release of the others, see docs/runbooks/upgrade.md",
            ", ".join(unknown),
        )


def _began_alone(directory: DataDirectory, store: LogStore, machine: StateMachine) -> bool:
    """Whether this node, with this directory, is the only member of a cluster that it began."""
    membership = membership_in_force(store, machine)
    own = membership.voters.get(directory.identity.node_id)
    return len(membership.voters) == 1 and own is not None and own.incarnation == directory.identity.incarnation


def _reconcile(directory: DataDirectory, store: LogStore, writer: LogWriter, machine: StateMachine) -> None:
    """The log must hold the state's last entry, unless a snapshot was put in place just before a crash."""
    applied = machine.last_applied
    entry = store.entry_at(applied.index)
    if entry is not None and entry[TERM] == applied.term:
        return
    tail = machine.installed_tail()
    if tail is not None:
        logger.warning("a snapshot up to %s was put in place just before the last stop; the log follows it", applied)
        store.reset_to([tail.previous, tail.last])
        if tail.last[TERM] > store.getCurrentTerm():  # its leader's term may have been on its way to the disk
            store.setCurrentTerm(tail.last[TERM], None)
        pending = store.take_pending()
        if pending is not None:
            writer.write(pending)
        return
    store.check_against_state(applied.index)
    raise DataDamagedError(
        directory.state_path,
        f"applied entry {applied.index}",
        f"does not fit the log, which holds entries {store.first_index} to {store.last_index}",
        ADVICE,
    )
