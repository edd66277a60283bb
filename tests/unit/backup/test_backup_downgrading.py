"""Whether an earlier release can take a directory over: formats, features, commands in the log, damage."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metasrv.backup import downgrading, looking
from metasrv.backup.downgrading import Answer, conclusion, features_on, findings_for, overall
from metasrv.backup.looking import LOOKS_MAX, Seen, look_at
from metasrv.cli.server import main
from metasrv.model import commands as c
from metasrv.model.codec import encode_command
from metasrv.model.entries import RegularEntry, encode_regular_entry
from metasrv.model.errors import DataDamagedError, IdentityError, StorageError
from metasrv.model.releases import FEATURES, RELEASES, THIS, Format, Release, Versions
from metasrv.model.types import Endpoint, LogId
from metasrv.node.opening import OpenedData, open_data
from metasrv.process.data_directory import DAMAGE_NAME, DataDirectory, layout
from tests.support.first_format import write_first_format
from tests.support.releases import PREVIOUS, kept_cluster

NODE_ID = 1
OLDEST, RELEASE_0_2 = RELEASES[0], RELEASES[1]
BEFORE_LIMITS = RELEASE_0_2._replace(
    name="0.1.9",
    features=RELEASE_0_2.features - {c.LIMITS_FEATURE, c.MIGRATION_FEATURE},
    commands=RELEASE_0_2.commands - {"SetReadOnly", "SetQuota", "Migrate"},
)
"""A release that never was: as 0.2.0, but it does not know limits and migrations."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of a node of 0.2.0 that was stopped."""
    kept_cluster(PREVIOUS, tmp_path)
    return tmp_path / str(NODE_ID)


def look(root: Path) -> Seen:
    return look_at(str(root), pause=lambda _seconds: None)


def answer_for(root: Path, to: Release) -> Answer:
    return overall(findings_for(look(root), to))


def obstacles(root: Path, to: Release) -> list[str]:
    return [
        line for finding in findings_for(look(root), to) if finding.answer is not Answer.YES for line in finding.lines()
    ]


def opened(root: Path) -> OpenedData:
    return open_data(str(root), NODE_ID, Endpoint("localhost", 1), bootstrap=False)


def log_and_apply(data: OpenedData, *commands: c.Command, applies: bool = True) -> None:
    """What a leader does with an entry, without the other nodes."""
    store, machine = data.store, data.machine
    index, term = store.last_index + 1, store.getCurrentTerm()
    now_ms = machine.last_time_ms + 5
    store.add(encode_regular_entry(now_ms, 1, [encode_command(command) for command in commands]), index, term)
    write(data)
    if applies:
        machine.apply_entry(LogId(term, index, 1), RegularEntry(now_ms, 1, commands))


def write(data: OpenedData) -> None:
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)


def logged(root: Path, *commands: c.Command, applies: bool = True) -> None:
    data = opened(root)
    log_and_apply(data, *commands, applies=applies)
    data.close()


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def switch(feature: str, enable: bool = True) -> c.SetFeature:
    return c.SetFeature(feature, enable)


PUT = c.Upsert("key", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"v")


# ----------------------------------------------------------------------------- what is there


def test_a_directory_of_this_release_goes_back_to_the_one_before(root: Path) -> None:
    before = content(root)
    seen = look(root)
    findings = findings_for(seen, RELEASE_0_2)
    assert overall(findings) is Answer.YES
    assert conclusion(Answer.YES, RELEASE_0_2) == "yes: 0.2.0 can open this directory and take part in the cluster"
    text = "\n".join(line for finding in findings for line in finding.lines())
    assert f"identity: node {NODE_ID} of cluster " in text
    assert "state file (`state.db`): format 2, which 0.2.0 reads" in text
    assert "features: on and known to 0.2.0: dummy, users" in text
    assert "peer protocol: version 2, spoken by both" in text
    assert content(root) == before, "looking makes no file and changes none"


def test_there_is_no_way_back_to_the_builds_before_the_first_release(root: Path) -> None:
    found = obstacles(root, OLDEST)
    assert answer_for(root, OLDEST) is Answer.NO_WAY_BACK
    assert "state file (`state.db`): OBSTACLE: format 2; 0.1 reads 1" in found
    assert "raft log (`raft.db`): OBSTACLE: format 1 (vacuum); 0.1 reads 1" in found
    assert any("feature users: OBSTACLE: it is on, and 0.1 does not know it" in line for line in found)
    assert any("they refuse each other" in line for line in found)
    assert conclusion(Answer.NO_WAY_BACK, OLDEST).startswith("no way back: 0.1 ")


def test_a_node_that_runs_is_looked_at_beside_it(root: Path) -> None:
    """Its newest entries are in the write-ahead logs only, and its lock is held."""
    data = opened(root)
    log_and_apply(data, switch(c.LIMITS_FEATURE), c.SetReadOnly("moving"))
    assert Path(f"{data.directory.state_path}-wal").stat().st_size > 0
    names = {name for name in content(root) if not name.endswith("-shm")}
    seen = look(root)
    assert c.LIMITS_FEATURE in features_on(seen)
    assert seen.registry.limits.read_only == "moving"
    assert seen.last_index == seen.applied.index == data.store.last_index
    assert {name for name in content(root) if not name.endswith("-shm")} == names
    log_and_apply(data, PUT)  # the node goes on
    data.close()


def test_a_copy_of_a_node_that_was_killed_is_looked_at_with_its_write_ahead_log(root: Path, tmp_path: Path) -> None:
    data = opened(root)
    log_and_apply(data, switch(c.LIMITS_FEATURE), c.SetQuota(1000))
    killed = tmp_path / "killed"
    shutil.copytree(root, killed, ignore=shutil.ignore_patterns("*-shm", "LOCK"))
    data.close()
    before = content(killed)
    assert look(killed).registry.limits.quota_bytes == 1000
    assert content(killed) == before


def test_a_directory_that_was_not_converted_yet_is_of_the_builds_before(root: Path, tmp_path: Path) -> None:
    """The release before it reads the state; the log is the one of today here, which they refuse."""
    path = layout(str(root))[1]
    write_first_format(path, str(tmp_path / "old.db"))
    shutil.copyfile(tmp_path / "old.db", path)
    seen = look(root)
    assert seen.state_version == "1"
    assert seen.applied.index == seen.last_index
    lines = [line for finding in findings_for(seen, OLDEST) for line in finding.lines()]
    assert "state file (`state.db`): format 1, which 0.1 reads" in lines
    assert answer_for(root, RELEASE_0_2) is Answer.YES, "it would convert the file"


# ----------------------------------------------------------------------------- features


def test_every_feature_says_what_it_leaves_behind() -> None:
    assert downgrading._REMAINS.keys() == {feature.name for feature in FEATURES}


def test_a_feature_that_is_on_has_to_be_turned_off_first(root: Path) -> None:
    logged(root, switch(c.LIMITS_FEATURE))
    assert answer_for(root, RELEASE_0_2) is Answer.YES
    assert answer_for(root, BEFORE_LIMITS) is Answer.NOT_YET
    found = obstacles(root, BEFORE_LIMITS)
    assert found[0] == "feature write-limits: OBSTACLE: it is on, and 0.1.9 does not know it"
    assert "metactl set-feature --feature write-limits --enable false" in found[1]
    assert "quota_bytes = 0" in found[1]
    logged(root, switch(c.LIMITS_FEATURE, False))
    assert answer_for(root, BEFORE_LIMITS) is Answer.YES, "what was on and brought nothing leaves nothing"


def test_what_a_feature_left_in_the_state_stands_in_the_way_when_it_is_off(root: Path) -> None:
    logged(root, switch(c.LIMITS_FEATURE), c.SetReadOnly("x"), switch(c.LIMITS_FEATURE, False))
    found = obstacles(root, BEFORE_LIMITS)
    assert any("feature write-limits: OBSTACLE: the cluster is read-only" in line for line in found)
    logged(root, c.SetReadOnly(None))
    assert not any("feature write-limits" in line for line in obstacles(root, BEFORE_LIMITS))


def test_a_command_stays_an_obstacle_for_as_long_as_it_is_in_the_log(root: Path) -> None:
    logged(root, switch(c.LIMITS_FEATURE), c.SetQuota(5000), c.SetQuota(0), switch(c.LIMITS_FEATURE, False))
    index = look(root).last_index
    found = obstacles(root, BEFORE_LIMITS)
    assert f"entry {index} has a SetQuota, which 0.1.9 cannot read: a member that lags would stop there" in found[0]
    assert "metactl compact" in found[1]
    data = opened(root)
    log_and_apply(data, PUT)
    data.store.deleteEntriesTo(index)
    write(data)
    data.close()
    assert look(root).first_index == index, "its place is kept, and it is sent to nobody"
    assert answer_for(root, BEFORE_LIMITS) is Answer.YES


def test_a_feature_that_is_turned_on_at_this_moment_counts(root: Path) -> None:
    """In the log and not applied: it may be committed."""
    logged(root, switch(c.LIMITS_FEATURE), applies=False)
    seen = look(root)
    assert seen.last_index == seen.applied.index + 1
    assert c.LIMITS_FEATURE not in seen.registry.features
    assert obstacles(root, BEFORE_LIMITS)[0].startswith("feature write-limits: OBSTACLE: it is on")
    logged(root, c.SetReadOnly("x"), applies=False)
    assert any("is not applied yet and has a SetReadOnly" in line for line in obstacles(root, BEFORE_LIMITS))
    logged(root, switch(c.LIMITS_FEATURE, False), applies=False)
    assert c.LIMITS_FEATURE not in features_on(look(root))


def test_a_feature_of_a_later_release_is_named_with_what_is_not_known_of_it(root: Path) -> None:
    logged(root, switch("of-a-release-to-come"))
    found = obstacles(root, RELEASE_0_2)
    assert answer_for(root, RELEASE_0_2) is Answer.NOT_YET
    assert "feature of-a-release-to-come: OBSTACLE: it is on, and 0.2.0 does not know it" in found
    assert "with the release that brought it" in found[1]


def test_a_node_warns_of_a_feature_that_it_does_not_know(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    logged(root, switch("of-a-release-to-come"))
    assert "does not know what is on" not in caplog.text
    opened(root).close()
    assert "this release does not know what is on in the cluster (of-a-release-to-come), and stops" in caplog.text


def test_an_operation_of_a_transaction_is_looked_for_in_every_branch(root: Path) -> None:
    branch = c.Branch(None, (c.Delete("a"),))
    logged(root, c.Transaction((branch,), (), (c.Get("a"),), (c.PutSequential("p", "s", b"v"),)))
    (entry,) = [entry for entry in look(root).entries if "PutSequential" in entry.names and "Get" in entry.names]
    assert {"Transaction", "Delete"} <= entry.names
    without = RELEASE_0_2._replace(operations=RELEASE_0_2.operations - {"Delete"})
    assert any("has a Delete, which" in line for line in obstacles(root, without))


# ----------------------------------------------------------------------------- damage and later releases


def test_a_node_that_was_removed_does_not_come_back_in_any_release(root: Path) -> None:
    directory = DataDirectory.open_present(str(root))
    directory.set_removed("node 1 was removed")
    directory.close()
    assert answer_for(root, RELEASE_0_2) is Answer.NO_WAY_BACK
    assert any("it is no longer a member" in line for line in obstacles(root, RELEASE_0_2))


def test_a_note_of_damage_is_said(root: Path) -> None:
    (root / DAMAGE_NAME).write_text("record k differs\n")
    assert answer_for(root, RELEASE_0_2) is Answer.DAMAGED
    assert conclusion(Answer.DAMAGED, RELEASE_0_2).startswith("unknown: ")


def test_a_state_that_a_snapshot_is_to_replace_is_not_judged(root: Path) -> None:
    shutil.copyfile(layout(str(root))[1], f"{layout(str(root))[1]}.install")
    assert answer_for(root, RELEASE_0_2) is Answer.NOT_YET
    assert any("start this release, which puts it there" in line for line in obstacles(root, RELEASE_0_2))


def write_identity(root: Path, **changed: Any) -> None:
    fields = json.loads((root / "node.json").read_text()) | changed
    del fields["checksum"]
    checksum = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
    (root / "node.json").write_text(json.dumps({**fields, "checksum": checksum}))


def set_version(path: str | Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_files_of_a_later_release_are_refused_with_a_sentence(root: Path) -> None:
    log_path, state_path, snapshots = layout(str(root))
    for path, sentence in (
        (state_path, "has format 3, this version of metasrv reads 1 or 2"),
        (log_path, "has format 3"),
    ):
        kept = Path(path).read_bytes()
        set_version(path, 3)
        with pytest.raises(DataDamagedError, match=sentence):
            look(root)
        Path(path).write_bytes(kept)
        for side in ("-wal", "-shm"):
            Path(path + side).unlink(missing_ok=True)
    (snapshot,) = Path(snapshots).iterdir()
    with closing(sqlite3.connect(snapshot)) as connection:
        connection.execute("PRAGMA user_version = 9")
    assert any(f"snapshot {snapshot.name}: UNREADABLE: format 9" in line for line in obstacles(root, RELEASE_0_2))
    write_identity(root, format=3)
    with pytest.raises(DataDamagedError, match="is 3, this version of metasrv knows 2"):
        look(root)


def test_an_old_snapshot_format_is_taken_away_and_no_obstacle_for_ever(root: Path) -> None:
    formats = {**RELEASE_0_2.formats, Format.SNAPSHOT: Versions(("1",), ("1",))}
    to = RELEASE_0_2._replace(formats=formats)
    assert answer_for(root, to) is Answer.NOT_YET
    assert any("remove the file" in line for line in obstacles(root, to))


def test_an_entry_of_a_later_release_is_unreadable(root: Path) -> None:
    data = opened(root)
    entry = bytearray(encode_regular_entry(1, 1, [encode_command(PUT)]))
    entry[1] = 2
    data.store.add(bytes(entry), data.store.last_index + 1, data.store.getCurrentTerm())
    write(data)
    data.close()
    assert answer_for(root, RELEASE_0_2) is Answer.DAMAGED
    assert any("log entry format 2 is not known" in line for line in obstacles(root, RELEASE_0_2))


def damaged_places(root: Path) -> Iterator[tuple[Path, int]]:
    log_path, state_path, _ = layout(str(root))
    yield root / "node.json", 30
    yield Path(log_path), 0
    yield Path(state_path), 0
    yield Path(log_path), Path(log_path).read_bytes().index(b"overwritten")


def test_damaged_files_are_refused_with_a_sentence(root: Path) -> None:
    for path, offset in damaged_places(root):
        kept = path.read_bytes()
        path.write_bytes(kept[:offset] + bytes((kept[offset] ^ 0xFF,)) + kept[offset + 1 :])
        with pytest.raises(DataDamagedError):
            look(root)
        path.write_bytes(kept)
    for path in map(Path, layout(str(root))[:2]):
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(DataDamagedError, match="missing"):
            look(root)
        path.write_bytes(b"")
        with pytest.raises(DataDamagedError):
            look(root)
        path.write_bytes(kept)
    assert answer_for(root, RELEASE_0_2) is Answer.YES


def test_what_is_no_directory_of_a_node(tmp_path: Path) -> None:
    for name in ("nowhere", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(IdentityError):
            look(tmp_path / name)
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_log_that_changes_under_the_reader_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(1000))
    pauses: list[float] = []
    monkeypatch.setattr(looking, "_fingerprint", lambda _path: (next(looks),))
    with pytest.raises(StorageError, match="changes all the time"):
        look_at(str(root), pause=pauses.append)
    assert len(pauses) == LOOKS_MAX - 1
    numbers = iter([1, 2, 3, 3])
    monkeypatch.setattr(looking, "_fingerprint", lambda _path: (next(numbers),))
    assert look_at(str(root), pause=pauses.append).identity.node_id == NODE_ID


# ----------------------------------------------------------------------------- the command


def test_the_command_ends_with_the_answer(root: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["downgrade-check", "--raft-dir", str(root), "--to"]
    assert main([*command, "0.2.0"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("yes: 0.2.0 ")
    assert main([*command, THIS.name]) == 0
    assert main([*command, "0.1"]) == 12
    assert capfd.readouterr().out.splitlines()[-1].startswith("no way back: 0.1 ")
    assert main([*command, "0.4.0"]) == 2
    assert "release 0.4.0 is not known to this one" in capfd.readouterr().err
    assert main(["downgrade-check", "--raft-dir", str(root)]) == 2
    assert "required: --to" in capfd.readouterr().err
    assert main(["downgrade-check", "--raft-dir", str(tmp_path / "nowhere"), "--to", "0.2.0"]) == 5
    config = tmp_path / "node.toml"
    config.write_text(f'[raft_config]\nid = 1\nsingle = true\nraft_dir = "{root}"\n')
    assert main(["downgrade-check", "-c", str(config), "--to", "0.2.0"]) == 0
    logged(root, switch("of-a-release-to-come"))
    assert main([*command, "0.2.0"]) == 11
    assert capfd.readouterr().out.splitlines()[-1].startswith("not yet: do what helps")
