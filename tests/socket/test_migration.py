"""Moving records between two nodes over the real wire, while events get lost, come in odd orders, and watches end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from metasrv.cli import ctl
from metasrv.client import AsyncClient
from metasrv.client.answers import WatchEvent
from metasrv.client.connection import Credentials
from metasrv.config.model import SecretText
from metasrv.migration.changes import Change
from metasrv.migration.source import Source
from metasrv.migration.target import MigrationRefusedError, Target
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.migration import MIGRATION_NAME
from metasrv.model.types import Membership, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.migrating_nodes import (
    Notes,
    OddSource,
    check_equal,
    delete,
    filled_source,
    migrating,
    open_target,
    put,
    records,
    start_alone,
    write_at_random,
)


@pytest.fixture
async def source(start_node: StartNode) -> RunningNode:
    return await filled_source(start_node)


@pytest.fixture
async def target(start_node: StartNode) -> RunningNode:
    return await open_target(start_node)


def lossy() -> Callable[[WatchEvent], list[WatchEvent]]:
    """Loses some events, repeats some, and holds some back behind later ones."""
    choices = random.Random(3)
    held: list[WatchEvent] = []

    def mangle(event: WatchEvent) -> list[WatchEvent]:
        fate = choices.random()
        if fate < 0.1:
            return []
        if fate < 0.4:
            held.append(event)
            return []
        released = held[:]
        held.clear()
        return [event, event, *reversed(released)] if fate < 0.6 else [event, *released]

    return mangle


async def test_what_the_watch_loses_is_found_by_the_comparison(source: RunningNode, target: RunningNode) -> None:
    notes = Notes()
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address, lossy()), Target(client), notes) as task,
    ):
        await notes.wait_for("level: stop the writers")
        await write_at_random(source, 400)
        outcome = await task
    check_equal(source, target)
    assert outcome.key_count == len(records(source))
    assert any("keys differed from a source that stands still: 'key/" in note for note in notes.notes)


async def test_a_watch_that_ends_begins_a_new_session(source: RunningNode, target: RunningNode) -> None:
    seen = 0

    def mangle(event: WatchEvent) -> list[WatchEvent]:
        nonlocal seen
        seen += 1
        if seen in (40, 90):
            raise NotDoneError("the watch ended")
        return [event]

    notes = Notes()
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address, mangle), Target(client), notes) as task,
    ):
        await notes.wait_for("level: stop the writers")
        await write_at_random(source, 60)
        await notes.wait_for("the watch ended; going on with a new comparison")
        notes.notes.clear()
        await notes.wait_for("keys copied")
        await write_at_random(source, 200)
        await task
    check_equal(source, target)
    assert seen >= 90
    assert any("the watch ended; going on with a new comparison" in note for note in notes.notes)


async def test_changes_between_the_exports_and_during_the_cut_over_are_noticed(
    source: RunningNode, target: RunningNode
) -> None:
    """Right behind each of the first exports keys are deleted, written again, written anew, and expire."""
    machine, tasks = source.context.machine, []

    async def write(number: int) -> None:
        await delete(source, f"key/{number:03}")
        await delete(source, f"key/{number + 10:03}")
        await put(source, f"key/{number + 10:03}", b"again")
        await put(source, f"new/{number}", b"new")
        await put(source, "expires", b"soon", source.clock.wall_ms() + 5)
        source.clock.advance(0.01)
        await source.consensus.propose(c.TICK, 1000)

    def exported(number: int) -> None:
        if number <= 3:
            tasks.append(asyncio.ensure_future(write(number)))

    notes = Notes()
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address, exported=exported), Target(client), notes) as task,
    ):
        await task
    await asyncio.gather(*tasks)
    check_equal(source, target)
    assert len(tasks) == 3
    assert "the source was written to while it was compared; stop its writers" in notes.notes
    assert machine.get("new/3", 0) is not None


async def test_an_unknown_outcome_is_followed_by_a_new_run_so_that_nothing_comes_late(
    source: RunningNode, target: RunningNode
) -> None:
    choices = random.Random(5)
    late: list[pb.MigrateRequest] = []
    refused: list[str] = []

    class Unsure(AsyncClient):
        async def migrate(self, request: pb.MigrateRequest) -> pb.MigrateReply:
            fate = choices.random()
            if fate < 0.2:
                late.append(pb.MigrateRequest.FromString(request.SerializeToString()))
                raise UnknownOutcomeError("nobody knows")
            reply = await super().migrate(request)
            if late and fate < 0.6 and request.step != pb.MigrateRequest.BEGIN:
                refused.append((await super().migrate(late.pop())).refused)
            if 0.6 < fate < 0.7:
                raise UnknownOutcomeError("nobody knows")
            return reply

    notes = Notes()
    odd = OddSource(source.address)
    async with Unsure([target.address]) as client, migrating(odd, Target(client), notes) as task:
        await notes.wait_for("level: stop the writers")
        await write_at_random(source, 600)
        await task
    check_equal(source, target)
    assert any("leads the migration now" in text for text in refused)


async def test_an_end_of_unknown_outcome_is_asked_for_until_it_is_known(source: RunningNode, target: RunningNode) -> None:
    failures: list[Exception] = [UnknownOutcomeError("nobody knows"), NotDoneError("no leader")]

    class Unsure(AsyncClient):
        async def migrate(self, request: pb.MigrateRequest) -> pb.MigrateReply:
            reply = await super().migrate(request)
            if request.step == pb.MigrateRequest.FINISH and failures:
                raise failures.pop(0)
            return reply

    notes = Notes()
    odd = OddSource(source.address)
    async with Unsure([target.address]) as client, migrating(odd, Target(client), notes) as task:
        outcome = await task
    assert (failures, outcome.key_count) == ([], len(records(source)))
    check_equal(source, target)


async def test_what_never_becomes_equal_is_named_and_nothing_is_ended(source: RunningNode, target: RunningNode) -> None:
    class Forgetful(Target):
        async def store(self, changes: Any, last_seq: int = 0) -> int:
            kept: list[Change] = [change for change in changes if change.key not in ("key/007", "key/008")]
            return await super().store(kept, last_seq)

    notes = Notes()
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Forgetful(client), notes) as task,
    ):
        with pytest.raises(MigrationRefusedError) as caught:
            await task
        before = records(source)
        assert str(caught.value).startswith("2 keys differed from a source that stands still: 'key/007' (source: seq ")
        assert "'key/008'" in str(caught.value)
        assert records(source) == before
        assert MIGRATION_NAME in target.context.machine.secrets
        assert await Target(client).abort() == len(before) - 2
    assert (records(target), MIGRATION_NAME in target.context.machine.secrets) == ([], False)


async def test_it_waits_for_the_word_of_a_majority_of_the_source(source: RunningNode, target: RunningNode) -> None:
    own = source.consensus.current.membership.voters[1]
    source.consensus.change(membership=Membership({1: own, 2: own, 3: own}, {}))
    reading = Source([source.address], Credentials())
    position = await reading.position()
    await reading.close()
    assert not position.is_level
    assert position.problem == "1 of the 3 voters of the source can be asked; name more of them with --from"
    assert MIGRATION_NAME not in target.context.machine.secrets


async def test_each_side_has_its_own_password(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = await start_alone(start_node, "old", grpc_password=SecretText("one"))
    target = await start_alone(start_node, "new", grpc_password=SecretText("two"))
    await target.consensus.propose(c.SetFeature(c.MIGRATION_FEATURE, True), 1000)
    await put(source, "a", b"1")
    arguments = ["migrate", "--from", source.address, "--to", target.address, "--cut-over", "--quiet-seconds", "1"]
    monkeypatch.setenv("METASRV_GRPC_PASSWORD", "one")
    assert await asyncio.to_thread(ctl.main, arguments) == 1
    assert "Wrong password" in capsys.readouterr().err
    monkeypatch.setenv("METASRV_TO_GRPC_PASSWORD", "two")
    assert await asyncio.to_thread(ctl.main, arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("equal: 1 keys, compared one by one; the last sequence number is 1\n")
    check_equal(source, target)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "h:1"], "--from is missing"),
        (["--from", "h", "--to", "h:1"], "--from: 'h' is not host:port"),
        (["--from", "h:1", "--to", ","], "--to names no address"),
        (["--from", "h:1", "--to", "h:1", "--to-grpc-tls-ca-file", "/none"], "/none: No such file or directory"),
        (["--to", "h:1", "--abort", "--to-grpc-tls-key-file", "/none"], "/none: No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["migrate", *arguments]) == 1
    assert sentence in capsys.readouterr().err


async def test_refusals_and_an_abort_by_the_tool(
    source: RunningNode, target: RunningNode, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["migrate", "--to", target.address]

    async def refused(*arguments: str) -> str:
        assert await asyncio.to_thread(ctl.main, [*to, *arguments]) == 1
        return capsys.readouterr().err

    assert "no migration is under way" in await refused("--abort")
    assert "--from and --to name the same cluster, new" in await refused("--from", target.address)
    await put(target, "a", b"")
    assert "only an empty cluster takes the records of another, and this one has 1" in await refused(
        "--from", source.address
    )
    await delete(target, "a")
    async with AsyncClient([target.address]) as client:
        begun = Target(client)
        await begun.begin("old")
        async for lines in client.archive_messages():
            assert '"migrating_from":"old"' in lines[0]
            break
        await begun.store([Change(f"k{number}", number, SeqV(number, b"")) for number in range(1, 301)])
    assert await asyncio.to_thread(ctl.main, [*to, "--abort"]) == 0
    assert capsys.readouterr().out == "the migration is aborted; 300 keys that were copied are deleted\n"
    assert records(target) == []
    await target.consensus.propose(c.SetFeature(c.MIGRATION_FEATURE, False), 1000)
    assert "metactl set-feature --feature migration --enable true" in await refused("--from", source.address)
