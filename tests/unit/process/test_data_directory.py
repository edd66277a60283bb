"""The data directory: whose it is, and that data never silently becomes none (invariant 9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.model.errors import DataDamagedError, IdentityError, StorageError
from metasrv.process.data_directory import DataDirectory, set_data_aside


def test_a_new_directory_gets_an_identity_that_lasts(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path / "data"), 3)
    assert first.fresh
    first.complete("cluster-a")
    first.close()
    second = DataDirectory.open(str(tmp_path / "data"), 3)
    assert not second.fresh
    assert second.identity == first.identity
    assert second.identity.cluster_id == "cluster-a"
    second.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    with pytest.raises(IdentityError, match="in use by another running metasrv process"):
        DataDirectory.open(str(tmp_path), 1)
    first.close()
    DataDirectory.open(str(tmp_path), 1).close()


def test_another_id_is_refused(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    first.complete(None)
    first.close()
    with pytest.raises(IdentityError, match="belongs to node 1, but the configuration says id = 2"):
        DataDirectory.open(str(tmp_path), 2)


def test_an_unfinished_first_start_begins_anew(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    Path(first.log_path).write_bytes(b"half a log")
    first.close()
    second = DataDirectory.open(str(tmp_path), 1)
    assert second.fresh
    assert not Path(second.log_path).exists()
    second.close()


def test_data_without_identity_is_damage(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    first.complete(None)
    first.close()
    (tmp_path / "node.json").unlink()
    with pytest.raises(DataDamagedError, match="is missing although data is present"):
        DataDirectory.open(str(tmp_path), 1)


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"format": 99}', "\x00\x01", '{"format": 2, "node_id": 1}'])
def test_an_unreadable_identity_is_damage(tmp_path: Path, text: str) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    first.complete(None)
    first.close()
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(DataDamagedError, match=r"node\.json"):
        DataDirectory.open(str(tmp_path), 1)
    with pytest.raises(DataDamagedError, match=r"node\.json"):
        DataDirectory.open(str(tmp_path), 1)


@pytest.mark.parametrize("removed", [False, True], ids=["member", "removed"])
def test_every_flipped_bit_of_the_identity_is_damage(tmp_path: Path, removed: bool) -> None:
    """A node with another incarnation or cluster id would start, and be cut off from its cluster for ever."""
    first = DataDirectory.open(str(tmp_path), 1)
    first.complete("5d0e9c1f")
    if removed:
        first.set_removed("node 1 was removed")
    first.close()
    path = tmp_path / "node.json"
    good = path.read_bytes()
    for position in range(len(good) - 1):  # the last byte is the end of the line
        for bit in range(8):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                again = DataDirectory.open(str(tmp_path), 1)
            except DataDamagedError:
                continue
            assert again.identity == first.identity, f"bit {bit} of byte {position}"
            again.close()


def test_a_removed_node_remembers_the_first_reason(tmp_path: Path) -> None:
    directory = DataDirectory.open(str(tmp_path), 1)
    directory.complete("a")
    assert directory.identity.removed is None
    assert "removed" not in (tmp_path / "node.json").read_text(), "a member's file is as it always was"
    directory.set_removed("the first reason")
    directory.set_removed("another reason")
    directory.close()
    again = DataDirectory.open(str(tmp_path), 1)
    assert again.identity.removed == "the first reason"
    assert again.identity.cluster_id == "a"
    again.close()


def test_the_cluster_never_changes(tmp_path: Path) -> None:
    directory = DataDirectory.open(str(tmp_path), 1)
    directory.complete(None)
    directory.set_cluster_id("a")
    directory.set_cluster_id("a")
    with pytest.raises(IdentityError, match="belongs to cluster a, not to cluster b"):
        directory.set_cluster_id("b")
    directory.close()


def test_an_unusable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        DataDirectory.open(str(tmp_path / "file" / "data"), 1)


# ----------------------------------------------------------------------------- damage


def test_what_is_wrong_with_the_state_is_known_after_a_restart(tmp_path: Path) -> None:
    first = DataDirectory.open(str(tmp_path), 1)
    assert first.damage() == ""
    first.set_damage("key 'ü': damaged")
    first.close()
    second = DataDirectory.open(str(tmp_path), 1)
    assert second.damage() == "key 'ü': damaged"
    second.set_damage("")
    second.set_damage("")
    assert second.damage() == ""
    second.close()


def test_an_empty_note_counts(tmp_path: Path) -> None:
    directory = DataDirectory.open(str(tmp_path), 1)
    (tmp_path / "DAMAGED").write_bytes(b"")
    assert directory.damage() == "a note without text"
    directory.close()


def used(root: Path, node_id: int = 3) -> DataDirectory:
    directory = DataDirectory.open(str(root), node_id)
    directory.complete("cluster-a")
    return directory


def test_data_that_is_set_aside_leaves_a_fresh_directory(tmp_path: Path) -> None:
    directory = used(tmp_path)
    directory.set_damage("bad")
    before = directory.identity
    (tmp_path / "kept").write_text("somebody else's")
    directory.close()
    place = set_data_aside(str(tmp_path), 3, "cluster-a", 17)
    assert place == str(tmp_path / "aside-17")
    assert sorted(path.name for path in (tmp_path / "aside-17").iterdir()) == ["DAMAGED", "df_meta", "node.json"]
    assert (tmp_path / "kept").exists()
    again = DataDirectory.open(str(tmp_path), 3)
    assert again.fresh
    assert again.identity.incarnation != before.incarnation, "it may have forgotten its votes"
    assert again.damage() == ""
    again.close()


def test_nothing_is_set_aside_where_nothing_is(tmp_path: Path) -> None:
    assert set_data_aside(str(tmp_path / "absent"), 3, "cluster-a", 17) is None
    assert set_data_aside(str(tmp_path), 3, "cluster-a", 17) is None


@pytest.mark.parametrize(
    ("node_id", "cluster_id", "sentence"), [(4, "cluster-a", "belongs to node 3"), (3, "cluster-b", "belongs to cluster")]
)
def test_data_of_another_node_or_cluster_is_not_moved(
    tmp_path: Path, node_id: int, cluster_id: str, sentence: str
) -> None:
    used(tmp_path).close()
    with pytest.raises(IdentityError, match=sentence):
        set_data_aside(str(tmp_path), node_id, cluster_id, 17)
    assert (tmp_path / "node.json").exists()


def test_data_in_use_is_not_moved(tmp_path: Path) -> None:
    directory = used(tmp_path)
    with pytest.raises(IdentityError, match="in use by another running metasrv process"):
        set_data_aside(str(tmp_path), 3, "cluster-a", 17)
    directory.close()


def test_a_damaged_identity_can_be_set_aside(tmp_path: Path) -> None:
    used(tmp_path).close()
    (tmp_path / "node.json").write_text("{")
    assert set_data_aside(str(tmp_path), 3, "cluster-a", 17) is not None
    again = DataDirectory.open(str(tmp_path), 3)
    assert again.fresh
    again.close()
