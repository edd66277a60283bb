"""A cluster of one from a survivor: what is refused, what is kept; and what a check of a directory says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from metasrv.backup.checking import check_directory
from metasrv.backup.founding import Names, found, membership_of
from metasrv.backup.offline import stopped_node, whole_state
from metasrv.backup.recovering import Heard, recovery
from metasrv.config.model import Config, RaftConfig
from metasrv.grpc_api.export_lines import export_lines
from metasrv.model.errors import IdentityError, RecoveryRefusedError
from metasrv.model.types import Endpoint, LogId, Node
from metasrv.node.opening import open_data
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.bulk import BulkRecord, StateBuilder
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter
from metasrv.testing.hand_clock import HandClock
from tests.support.data_directories import Kept, kept_directories

MEMBERS = {1: Endpoint("a", 1), 2: Endpoint("b", 2), 3: Endpoint("c", 3)}
NAMES = Names("the old cluster", {node_id: f"directory {node_id}" for node_id in MEMBERS})
SILENT = Heard(None, False, "does not answer")
LISTENS = Heard(None, True, "listens, and cannot be asked")


def answers_as(node_id: int) -> Heard:
    return Heard(node_id, True, f"answers as node {node_id}")


def make_survivor(root: Path, records: int = 50) -> str:
    """Node 1 of three, stopped."""
    root.mkdir(parents=True, exist_ok=True)
    path = str(root / "state")
    builder = StateBuilder(path)
    size_bytes = (5, 2000)
    builder.add([BulkRecord(f"k{n:03}", n + 1, None, 7, b"v" * size_bytes[n % 2]) for n in range(records)])
    builder.finish(LogId(4, 90, 2), 9, records)
    nodes = tuple(Node(node_id, endpoint, "", None) for node_id, endpoint in MEMBERS.items())
    log_id = LogId(4, 90, 2)
    found(str(root), 1, NAMES, path, log_id, log_id, membership_of(NAMES, MEMBERS, {}), nodes)
    return str(root)


def config(root: str, node_id: int = 1) -> Config:
    raft = RaftConfig(id=node_id, raft_dir=root, raft_advertise_host="new-host", raft_api_port=9, join=("b:2", "d:4"))
    return Config(raft_config=raft)


def recover(root: str, heard: Mapping[str, Heard], *, done: bool = True, node_id: int = 1) -> tuple[list[str], str]:
    """The lines of the plan, and where the old data went."""

    async def ask(endpoint: Endpoint, cluster_id: str | None) -> Heard:
        assert cluster_id == "the old cluster"
        return heard.get(str(endpoint), SILENT)

    with recovery(config(root, node_id), HandClock(), ask) as (plan, carry_out):
        return list(plan.lines()), carry_out() if done else plan.refusal()


def records(root: str) -> list[str]:
    with stopped_node(root) as node, whole_state(node) as machine, machine.open_reader() as view:
        return [line for line in export_lines(view, 1) if "GenericKV" in line]


def test_a_survivor_becomes_a_cluster_of_one_with_everything_it_has(tmp_path: Path) -> None:
    root = make_survivor(tmp_path)
    before = records(root)
    lines, aside = recover(root, {"d:4": answers_as(9)})
    assert "  - b:2 does not answer" in lines
    assert "  - c:3 does not answer" in lines
    assert "  - d:4 answers as node 9" in lines
    assert records(aside) == records(root) == before
    data = open_data(root, 1, Endpoint("new-host", 9), bootstrap=False)
    membership = membership_in_force(data.store, data.machine)
    assert list(membership.voters) == [1]
    assert membership.voters[1].endpoint == Endpoint("new-host", 9)
    assert membership.voters[1].incarnation == data.directory.identity.incarnation != "directory 1"
    assert data.machine.cluster_id == data.directory.identity.cluster_id != "the old cluster"
    assert list(data.machine.nodes) == [1]
    assert data.machine.last_applied == LogId(5, 91, 1)
    assert data.store.getCurrentTerm() == 5
    assert data.machine.rows_fit()
    data.close()


@pytest.mark.parametrize(
    "heard",
    [{"b:2": answers_as(2)}, {"c:3": LISTENS}, {"d:4": answers_as(3)}, {"b:2": answers_as(2), "c:3": answers_as(3)}],
)
def test_it_is_refused_while_the_old_members_could_form_a_majority(tmp_path: Path, heard: dict[str, Heard]) -> None:
    root = make_survivor(tmp_path)
    with pytest.raises(RecoveryRefusedError, match=r"are a majority: start this node as it is"):
        recover(root, heard)
    assert sorted(os.listdir(root)) == ["LOCK", "df_meta", "node.json"]
    with stopped_node(root) as node:
        assert node.identity.cluster_id == "the old cluster"


def test_a_plan_alone_changes_nothing(tmp_path: Path) -> None:
    root = make_survivor(tmp_path)
    _, refusal = recover(root, {}, done=False)
    assert refusal == ""
    with stopped_node(root) as node:
        assert node.identity.cluster_id == "the old cluster"
    assert sorted(os.listdir(root)) == ["LOCK", "df_meta", "node.json"]


def test_a_directory_that_must_not_lead_is_refused(tmp_path: Path) -> None:
    root = make_survivor(tmp_path / "damaged")
    directory = DataDirectory.open(root, 1)
    directory.set_damage("key 'k' does not match its checksum")
    directory.close()
    with pytest.raises(RecoveryRefusedError, match="recover from another survivor"):
        recover(root, {})
    root = make_survivor(tmp_path / "removed")
    directory = DataDirectory.open(root, 1)
    directory.set_removed("node 1 was removed")
    directory.close()
    with pytest.raises(RecoveryRefusedError, match="node 1 was removed"):
        recover(root, {})
    with pytest.raises(IdentityError, match="belongs to node 1, but the configuration says id = 2"):
        recover(make_survivor(tmp_path / "other"), {}, node_id=2)
    with pytest.raises(IdentityError, match="holds no data of a node"):
        recover(str(tmp_path / "missing"), {})
    assert not (tmp_path / "missing").exists()


def test_a_cluster_of_one_needs_no_recovery(tmp_path: Path) -> None:
    root = make_survivor(tmp_path)
    recover(root, {})
    with recovery(config(root), HandClock(), _silent) as (plan, _):
        assert "start this node as it is" in plan.refusal()


async def _silent(_endpoint: Endpoint, _cluster_id: str | None) -> Heard:
    return SILENT


# ----------------------------------------------------------------------------- check


def parts(root: str) -> dict[str, bool]:
    """Whether each part is damaged; every damaged one says what helps."""
    found_parts = list(check_directory(root))
    assert all(finding.helps for finding in found_parts if finding.damaged)
    return {finding.part.split()[0]: finding.damaged for finding in found_parts}


def flip(path: str, text: bytes) -> None:
    with open(path, "r+b") as file:
        data = file.read()
        place = data.index(text)
        file.seek(place)
        file.write(bytes([data[place] ^ 1]))


def test_a_sound_directory(tmp_path: Path) -> None:
    root = make_survivor(tmp_path)
    data = open_data(root, 1, Endpoint("h", 1), bootstrap=False)
    writer = SnapshotWriter(data.directory.state_path)
    writer.pin()
    tail = SnapshotTail(data.store[-2], data.store[-1])
    writer.write(os.path.join(data.directory.snapshot_directory, "4-2-90-1.snap"), tail)
    data.close()
    assert parts(root) == {"identity": False, "log": False, "state": False, "snapshot": False}
    text = [line for finding in check_directory(root) for line in finding.lines()]
    assert "log: 2 entries, 89 to 90, term 4" in text
    assert "state: 50 records, applied up to T4-N2.90" in text

    for name, pattern, part in (
        ("df_meta/V004/snapshot/4-2-90-1.snap", b"vvvvv", "snapshot"),
        ("df_meta/V004/state/state.db", b"v" * 600, "state"),
        ("df_meta/V004/state/state.db", b"k017", "state"),
        ("df_meta/V004/log/raft.db", b"MSRL", "log"),
        ("df_meta/V004/log/raft.db-mark", b"metasrv log mark", "log"),
        ("node.json", b"the old cluster", "identity"),
    ):
        copied = str(tmp_path / f"copy-{part}-{len(pattern)}")
        shutil.copytree(root, copied, ignore=shutil.ignore_patterns("copy-*"))
        flip(os.path.join(copied, name), pattern)
        found_parts = parts(copied)
        assert [name for name, damaged in found_parts.items() if damaged] == [part]


@pytest.mark.parametrize("kept", kept_directories(), ids=lambda kept: kept.name)
def test_directories_of_earlier_releases_are_sound_and_can_be_exported(tmp_path: Path, kept: Kept) -> None:
    root = str(tmp_path / "data")
    shutil.copytree(kept.path, root)
    assert not any(parts(root).values())
    with stopped_node(root) as node, whole_state(node) as machine, machine.open_reader() as view:
        keys = {key for key, _ in view.records()}
    assert keys >= {key for key in kept.expected["records"] if key != "expired"}
    assert not any(parts(root).values())  # also in the present format


def test_what_is_missing_or_noted_is_named(tmp_path: Path) -> None:
    root = make_survivor(tmp_path / "a")
    os.unlink(os.path.join(root, "df_meta/V004/state/state.db"))
    assert parts(root)["state"]
    root = make_survivor(tmp_path / "b")
    directory = DataDirectory.open(root, 1)
    directory.set_damage("something")
    directory.close()
    assert parts(root)["note"]
    root = make_survivor(tmp_path / "c")
    shutil.rmtree(os.path.join(root, "df_meta/V004/log"))
    os.mkdir(os.path.join(root, "df_meta/V004/log"))
    assert parts(root)["log"]
    with pytest.raises(IdentityError, match="holds no data of a node"):
        parts(str(tmp_path))
