"""The schedule of the leader: when a backup is due, what a failure leaves, and which archives are kept."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from metasrv.backup.archive import ArchiveReader
from metasrv.backup.encryption import load_key, opened_archive_in
from metasrv.backup.inspecting import inspect
from metasrv.backup.making import Pace
from metasrv.backup.places import DRAFT_AGE_SECONDS_MAX, DirectoryPlace, archive_name, draft_name, parse_name
from metasrv.backup.schedule import RETRY_SECONDS_MIN, BackupSchedule, Pauses, keep_backups
from metasrv.config.model import Config
from metasrv.config.sections import BackupConfig
from metasrv.model import commands as c
from metasrv.model.errors import BackupError, NoLeaderError, NotLeaderError
from metasrv.model.types import RaftState
from metasrv.node.backups import ArchiveName
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status
from metasrv.testing.hand_clock import HandClock

HOUR = 3600
CLUSTER = "c0ffee"
ANOTHER = archive_name("beef", 1_700_000_000_123, 9)


class Bench:
    """A leader with some records, a directory of backups, and a clock that is set by hand."""

    def __init__(self, root: Path, place: DirectoryPlace | None = None, **settings: object) -> None:
        self.directory = root / "backups"
        self.directory.mkdir(exist_ok=True)
        self.clock = HandClock(epoch_ms=1_700_000_000_000)
        self.machine = StateMachine.open(str(root / "state.db"))
        given = {"every_seconds": HOUR, "keep": 3, "directory": str(self.directory), **settings}
        config = Config(backup=BackupConfig.model_validate(given))
        self.context: NodeContext
        self.consensus: FakeConsensus
        self.context, self.consensus = fake_context(self.machine, config, leader_status(), self.clock, commits=True)
        self.place = place or DirectoryPlace(str(self.directory))
        self.schedule = BackupSchedule(self.context, self.place, Pauses(look_seconds=10_000))
        self.context.metrics.backups_every(HOUR)

    async def write(self, *keys: str) -> None:
        for key in keys:
            command = c.Upsert(key, c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"v" * 100)
            await self.consensus.propose(command, 1000)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def metrics(self) -> str:
        page, _ = self.context.metrics.render(self.consensus.status(), 0, None)
        return page.decode()


def reading(data: bytes) -> ArchiveReader:
    return ArchiveReader(io.BytesIO(data), "the backup")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.write("a", "b/c")
    yield made
    made.machine.close()


async def test_the_leader_makes_one_when_it_is_due_and_keeps_the_newest(bench: Bench) -> None:
    (bench.directory / ANOTHER).write_text("another cluster's")
    (bench.directory / "notes.txt").write_text("somebody's")
    for hour in range(5):
        await bench.schedule.look()
        await bench.schedule.look()  # nothing is due again
        assert len(bench.names()) == min(3, hour + 1) + 2
        assert bench.schedule.standing.attempts == hour + 1
        bench.clock.advance(HOUR)
    assert {ANOTHER, "notes.txt"} <= set(bench.names())
    archives = await bench.schedule.archives()
    assert [archive.log_index for archive in archives] == [bench.machine.last_applied.index] * 3
    newest = bench.directory / archives[-1].name
    assert newest.stat().st_mode & 0o777 == 0o600
    assert inspect(reading(newest.read_bytes()), lambda _lines, _size: None).keys == 2
    page = bench.metrics()
    assert 'metasrv_backup_attempts_total{outcome="success"} 5' in page
    assert f"metasrv_backup_last_size_bytes {newest.stat().st_size}" in page
    assert "metasrv_backup_failing 0" in page


async def test_a_new_leader_goes_on_where_the_last_one_stopped(bench: Bench) -> None:
    await bench.schedule.look()
    bench.clock.advance(HOUR / 2)
    successor = BackupSchedule(bench.context, bench.place, Pauses(look_seconds=10_000))
    await successor.look()
    assert len(bench.names()) == 1, "the cluster has a backup of half an hour ago"
    assert successor.standing.last_saved_at_ms == bench.schedule.standing.last_saved_at_ms
    bench.clock.advance(HOUR / 2)
    await successor.look()
    assert len(bench.names()) == 2


async def test_a_leader_that_led_before_looks_again(bench: Bench) -> None:
    await bench.schedule.look()
    bench.consensus.follow(2)
    await bench.schedule.look()
    assert "metasrv_backup_last_success_timestamp_seconds" not in bench.metrics()
    bench.clock.advance(HOUR)
    other = archive_name(CLUSTER, bench.clock.wall_ms() - 1000, 50)
    (bench.directory / other).write_text("made by the leader between")
    bench.consensus.change(state=RaftState.LEADER, leader_id=1, term=70, has_quorum=True)
    await bench.schedule.look()
    assert len(bench.names()) == 2
    assert bench.schedule.standing.last_saved_at_ms == bench.clock.wall_ms() - 1000


async def test_a_follower_makes_none_and_says_so(bench: Bench) -> None:
    bench.consensus.follow(2)
    await bench.schedule.look()
    assert bench.names() == []
    with pytest.raises(NotLeaderError):
        bench.schedule.ask()


async def test_one_from_the_future_does_not_end_all_backups(bench: Bench) -> None:
    (bench.directory / archive_name(CLUSTER, bench.clock.wall_ms() + 10 * HOUR * 1000, 5)).write_text("a wrong clock's")
    await bench.schedule.look()
    assert len(bench.names()) == 2


async def test_one_that_is_asked_for_is_made_at_once(bench: Bench) -> None:
    await bench.schedule.look()
    bench.clock.advance(1)
    assert bench.schedule.ask() == 2
    await bench.schedule.look()
    assert bench.schedule.standing.attempts == 2
    assert len(bench.names()) == 2


async def test_a_failure_is_told_and_tried_again_after_a_pause(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.directory.rmdir()
    for _ in range(3):
        await bench.schedule.look()
    assert bench.schedule.standing.attempts == 1
    lines = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1
    assert "tried again in 15 s: the directory of backups" in lines[0]
    assert "No such file or directory" in bench.schedule.standing.failure
    page = bench.metrics()
    assert 'metasrv_backup_attempts_total{outcome="failure"} 1' in page
    assert "metasrv_backup_failing 1" in page
    bench.clock.advance(RETRY_SECONDS_MIN)
    await bench.schedule.look()
    bench.clock.advance(RETRY_SECONDS_MIN)
    await bench.schedule.look()
    assert bench.schedule.standing.attempts == 2, "the second pause is longer"
    bench.directory.mkdir()
    bench.clock.advance(RETRY_SECONDS_MIN)
    await bench.schedule.look()
    assert bench.schedule.standing.failure == ""
    assert len(bench.names()) == 1
    assert "metasrv_backup_failing 0" in bench.metrics()


class DamagingPlace(DirectoryPlace):
    """Keeps something else than what it was given."""

    def store(self, draft: str, chunks: Iterable[bytes]) -> int:
        return super().store(draft, (chunk.replace(b"dnZ2", b"dnZ3") for chunk in chunks))


async def test_what_was_not_kept_as_it_was_written_gets_no_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DamagingPlace(str(tmp_path / "backups")))
    await bench.write("a")
    await bench.schedule.look()
    assert "SHA-256" in bench.schedule.standing.failure
    assert bench.names() == []
    bench.machine.close()


async def test_a_leader_that_cannot_show_that_it_leads_gives_its_archive_up(bench: Bench) -> None:
    class Replaced(DirectoryPlace):
        def store(self, draft: str, chunks: Iterable[bytes]) -> int:
            size_bytes = super().store(draft, chunks)
            bench.consensus.failure = NoLeaderError()
            return size_bytes

    schedule = BackupSchedule(bench.context, Replaced(str(bench.directory)), Pauses(look_seconds=10_000))
    await schedule.look()
    assert "cannot show that it still leads" in schedule.standing.failure
    assert bench.names() == []


async def test_drafts_that_a_crash_left_are_swept(bench: Bench) -> None:
    name = archive_name(CLUSTER, 1_700_000_000_000, 3)
    own, others, old = draft_name(name, 1), draft_name(name, 2), draft_name(name, 3)
    another = draft_name(ANOTHER, 1)
    for draft in (own, others, old, another):
        (bench.directory / draft).write_text("half")
    past = (bench.directory / old).stat().st_mtime - DRAFT_AGE_SECONDS_MAX - 1
    os.utime(bench.directory / old, (past, past))
    await bench.schedule.look()
    left = bench.names()
    assert own not in left
    assert old not in left
    assert {others, another} <= set(left)


async def test_secrets_are_left_out_or_all_is_encrypted_as_configured(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("correct horse battery staple")
    for name, settings in (("plain", {"without_secrets": True}), ("sealed", {"encrypt_with": str(key)})):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, **settings)
        await bench.write("a")
        await bench.consensus.propose(c.SetClusterSecret("token", b"secret"), 1000)
        await bench.schedule.look()
        bench.machine.close()
        (archive,) = await bench.schedule.archives()
        file = io.BytesIO((bench.directory / archive.name).read_bytes())
        opened, encrypted = opened_archive_in(file, load_key(str(key)) if name == "sealed" else None, name)
        reader = ArchiveReader(opened, name)
        inspect(reader, lambda _lines, _size: None)
        assert encrypted == (name == "sealed")
        assert reader.secrets == ({"token": b"secret"} if encrypted else {})


async def test_a_backup_that_is_abandoned_ends_with_the_reason() -> None:
    pace = Pace(lambda: False)
    pace.wait()
    pace.abandon("the node stops")
    pace.abandon("another reason")
    with pytest.raises(BackupError, match="the node stops"):
        pace.wait()


def test_names_say_what_they_are_of() -> None:
    name = archive_name(CLUSTER, 1_700_000_000_123, 42)
    assert name == "metasrv-c0ffee-20231114T221320123Z-42.archive"
    assert parse_name(name, CLUSTER, 7) == ArchiveName(name, 1_700_000_000_123, 42, 7)
    assert parse_name(name, "c0ffe", 7) is None
    for other in ("notes.txt", draft_name(name, 1), name + ".bak", name.replace("20231114", "20231399")):
        assert parse_name(other, CLUSTER, 7) is None


async def test_nothing_runs_where_nothing_is_configured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, every_seconds=0)
    assert keep_backups(bench.context) is None
    assert bench.context.backups is None
    bench.machine.close()


async def test_the_state_is_pinned_only_while_it_is_written(bench: Bench) -> None:
    pinned: list[int] = []

    class Looking(DirectoryPlace):
        def store(self, draft: str, chunks: Iterable[bytes]) -> int:
            pinned.append(len(bench.machine.views))
            return super().store(draft, chunks)

        def archives(self, cluster_id: str) -> list[ArchiveName]:
            pinned.append(len(bench.machine.views))
            return super().archives(cluster_id)

        @contextlib.contextmanager
        def open(self, draft: str) -> Iterator[BinaryIO]:
            pinned.append(len(bench.machine.views))
            with super().open(draft) as file:
                yield file

    await BackupSchedule(bench.context, Looking(str(bench.directory)), Pauses(look_seconds=10_000)).look()
    assert pinned == [0, 1, 0, 0]
    assert len(bench.names()) == 1
