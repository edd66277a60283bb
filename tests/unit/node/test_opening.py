"""Opening a node's files: what belongs together starts, anything else is named (D2, D10)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metasrv.grpc_api.export_lines import export_lines
from metasrv.model.codec import encode_command
from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.entries import MembershipEntry, RegularEntry, encode_membership_entry, encode_regular_entry
from metasrv.model.errors import ConfigError, DataDamagedError, RemovedError
from metasrv.model.types import Endpoint, LogId, Member, Membership
from metasrv.node.opening import OpenedData, open_data, refuse_voting_learner
from metasrv.raft.log.format import CONTENT, TERM
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.reader import StateReader
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter, verify_snapshot

ENDPOINT = Endpoint("localhost", 28103)


def _put(number: int) -> tuple[bytes, RegularEntry]:
    command = Upsert(f"key-{number}", MatchSeq(MatchKind.ANY), Operation.UPDATE, b"value")
    content = encode_regular_entry(number, 1, [encode_command(command)])
    return content, RegularEntry(number, 1, (command,))


def _open(directory: Path, bootstrap: bool = True) -> OpenedData:
    return open_data(str(directory), 1, ENDPOINT, bootstrap)


def _write(data: OpenedData, first: int, last: int, apply_to: int) -> None:
    """Entries `first` to `last` into the log, durably; the state applies up to `apply_to`."""
    for index in range(first, last + 1):
        data.store.add(_put(index)[0], index, 1)
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    for index in range(data.machine.last_applied.index + 1, apply_to + 1):
        entry = data.store.entry_at(index)
        assert entry is not None
        from metasrv.model.entries import decode_entry

        data.machine.apply_entry(LogId(entry[TERM], index, 1), decode_entry(entry[CONTENT]))


def test_a_first_voter_finds_itself_in_its_log(tmp_path: Path) -> None:
    data = _open(tmp_path)
    membership = membership_in_force(data.store, data.machine)
    assert list(membership.voters) == [1]
    assert membership.voters[1].incarnation == data.directory.identity.incarnation
    assert data.directory.identity.cluster_id is not None
    data.close()


def test_the_directory_of_a_removed_node_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = _open(tmp_path)
    data.directory.set_removed("node 1 was removed from its cluster")
    data.close()
    for _ in range(2):  # the refusal leaves no lock behind
        with pytest.raises(RemovedError, match=r"node 1 was removed from its cluster; .*move that directory") as caught:
            _open(tmp_path, bootstrap=True)
        assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 10


def _apply_membership(data: OpenedData, before: Membership, after: Membership) -> None:
    last = data.machine.last_applied
    data.machine.apply_entry(LogId(1, last.index + 1, 1), MembershipEntry(1, before, after))


def test_a_voter_whose_configuration_says_learner_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = _open(tmp_path, bootstrap=False)
    refuse_voting_learner(data, begin_cluster=False)
    with pytest.raises(ConfigError, match="who begins a cluster votes"):
        refuse_voting_learner(data, begin_cluster=True)
    own = Member(ENDPOINT, data.directory.identity.incarnation)
    others = {2: Member(ENDPOINT, "another")}
    learns, votes = Membership(others, {1: own}), Membership({**others, 1: own}, {})
    replaced = Membership({**others, 1: Member(ENDPOINT, "not this directory")}, {})
    for before, after in ((Membership(), learns), (learns, replaced)):
        _apply_membership(data, before, after)
        refuse_voting_learner(data, begin_cluster=False)
    _apply_membership(data, replaced, votes)
    with pytest.raises(ConfigError, match=r"node 1 votes in its cluster.*--leave-id 1 --leave-via") as caught:
        refuse_voting_learner(data, begin_cluster=False)
    assert caught.value.exit_code == 2
    data.close()


def test_an_export_names_the_term_of_the_first_membership(tmp_path: Path) -> None:
    data = _open(tmp_path)
    _write(data, 3, 3, apply_to=3)
    with StateReader(data.directory.state_path) as view:
        lines = [json.loads(line)[1] for line in export_lines(view, 1)]
    (stored,) = (line["StateMachineMeta"]["value"]["Membership"] for line in lines if "LastMembership" in str(line))
    assert stored["log_id"] == {"leader_id": {"term": 1, "node_id": 1}, "index": 2}
    assert data.store.last_term == 1
    data.close()


def test_a_joining_node_belongs_to_nobody_yet(tmp_path: Path) -> None:
    data = _open(tmp_path, bootstrap=False)
    assert not membership_in_force(data.store, data.machine).voters
    assert data.directory.identity.cluster_id is None
    data.close()


def test_a_beginning_that_was_cut_off_before_the_cluster_had_a_name_is_finished(tmp_path: Path) -> None:
    data = _open(tmp_path, bootstrap=False)
    own = Member(ENDPOINT, data.directory.identity.incarnation)
    data.store.add(encode_membership_entry(1, Membership(), Membership({1: own}, {})), 2, 0)
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    data.close()
    again = _open(tmp_path, bootstrap=False)
    name = again.directory.identity.cluster_id
    assert name is not None
    assert again.machine.cluster_id == name
    again.close()
    third = _open(tmp_path, bootstrap=False)
    assert third.directory.identity.cluster_id == name
    third.close()


def test_d2_a_restart_keeps_every_entry_after_a_snapshot(tmp_path: Path) -> None:
    data = _open(tmp_path)
    _write(data, 3, 20, apply_to=10)
    data.close()
    again = _open(tmp_path)
    assert (again.machine.last_applied.index, again.store.last_index) == (10, 20)
    again.close()


def test_a_log_that_ends_before_the_state_is_damage(tmp_path: Path) -> None:
    data = _open(tmp_path)
    _write(data, 3, 5, apply_to=5)
    log = Path(data.directory.log_path)
    data.close()
    saved = log.read_bytes()
    data = _open(tmp_path)
    _write(data, 6, 9, apply_to=9)
    data.close()
    for path in log.parent.iterdir():
        path.unlink() if path != log else None
    log.write_bytes(saved)
    with pytest.raises(DataDamagedError):
        _open(tmp_path)


def test_a_missing_state_is_damage(tmp_path: Path) -> None:
    data = _open(tmp_path)
    _write(data, 3, 5, apply_to=5)
    state = Path(data.directory.state_path)
    data.close()
    for path in state.parent.iterdir():
        path.unlink()
    with pytest.raises(DataDamagedError, match=r"state\.db: file: missing"):
        _open(tmp_path)


def test_a_missing_log_is_damage(tmp_path: Path) -> None:
    data = _open(tmp_path)
    log = Path(data.directory.log_path)
    data.close()
    for path in log.parent.iterdir():
        path.unlink()
    with pytest.raises(DataDamagedError):
        _open(tmp_path)


def test_a_crash_between_snapshot_and_log_is_healed(tmp_path: Path) -> None:
    leader, follower = tmp_path / "leader", tmp_path / "follower"
    data = _open(leader)
    _write(data, 3, 30, apply_to=30)
    writer = SnapshotWriter(data.directory.state_path)
    log_id = writer.pin()
    previous, last = data.store.entry_at(29), data.store.entry_at(30)
    assert previous is not None
    assert last is not None
    path = os.path.join(data.directory.snapshot_directory, "a.snap")
    info = writer.write(path, SnapshotTail(previous, last))
    assert (info.log_id, log_id.index) == (log_id, 30)
    data.close()

    lagging = _open(follower, bootstrap=False)
    verify_snapshot(path, info.sha256, None)
    lagging.machine.install(path)
    lagging.close()  # the process dies before the log was reset
    healed = _open(follower, bootstrap=False)
    assert healed.store[:] == [previous, last]
    assert healed.machine.last_applied.index == 30
    healed.close()
    _open(follower, bootstrap=False).close()
