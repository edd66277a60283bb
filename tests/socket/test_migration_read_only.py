"""A cut-over that holds the writers of the source off: when it is read-only, and when it takes writes again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from metasrv.cli import ctl
from metasrv.client import AsyncClient
from metasrv.migration.changes import Change
from metasrv.migration.standstill import Standstill, SwitchState
from metasrv.migration.target import MigrationRefusedError, Target
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError
from metasrv.model.types import Membership
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_node import RunningNode, StartNode
from tests.support.migrating_nodes import (
    Notes,
    OddSource,
    check_equal,
    filled_source,
    migrating,
    open_target,
    put,
    records,
)

HELD = "level: the source refuses writes now, and is compared"
AGAIN = "the source takes writes again"


class NodeSwitch:
    """The switch of a node, set by the command that its admin API proposes; remembers what it was set to."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self.set: list[bool] = []

    async def look(self) -> SwitchState:
        return SwitchState("old", self._node.context.machine.limits.read_only)

    async def turn(self, reason: str | None) -> None:
        await self._node.consensus.propose(c.SetReadOnly(reason), 1000)
        self.set.append(reason is not None)


@pytest.fixture
async def source(start_node: StartNode) -> RunningNode:
    node = await filled_source(start_node)
    await node.consensus.propose(c.SetFeature(c.LIMITS_FEATURE, True), 1000)
    return node


@pytest.fixture
async def target(start_node: StartNode) -> RunningNode:
    return await open_target(start_node)


@contextmanager
def writing(node: RunningNode) -> Iterator[list[bool]]:
    """A writer that never stops; whether each of its writes was taken."""
    taken: list[bool] = []

    async def write() -> None:
        any_seq = c.MatchSeq(c.MatchKind.ANY)
        while True:
            command = c.Upsert(f"key/{len(taken) % 200}", any_seq, c.Operation.UPDATE, b"%d" % len(taken))
            reply = await node.consensus.propose(command, 1000)
            taken.append(not isinstance(reply, c.RefusedReply))
            await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    try:
        yield taken
    finally:
        task.cancel()


async def test_writers_that_never_stop_are_held_off(source: RunningNode, target: RunningNode) -> None:
    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Target(client), notes, standstill=Standstill(switch)) as task,
    ):
        with writing(source) as taken:
            outcome = await task
    check_equal(source, target)
    assert outcome.is_left_read_only
    assert switch.set == [True]
    assert HELD in notes.notes
    assert AGAIN not in notes.notes
    assert True in taken
    assert taken[-1] is False


async def test_leases_that_end_meanwhile_do_not_hold_it_up(source: RunningNode, target: RunningNode) -> None:
    """One more ends behind each export, for ever: expiry is no write."""
    begin_ms = source.clock.wall_ms()
    for number in range(200):
        await put(source, f"lease/{number:03}", b"", begin_ms + (number + 1) * 1_000)

    def exported(number: int) -> None:
        source.clock.advance(1.0)
        ticks.append(asyncio.ensure_future(source.consensus.propose(c.TICK, 1000)))

    ticks: list[asyncio.Future[Any]] = []
    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(
            OddSource(source.address, exported=exported), Target(client), notes, standstill=Standstill(switch)
        ) as task,
    ):
        outcome = await task
    await asyncio.gather(*ticks)
    assert len(ticks) >= 2
    assert switch.set == [True]
    assert outcome.is_left_read_only
    target.clock.advance((source.clock.wall_ms() - target.clock.wall_ms()) / 1000)
    await target.consensus.propose(c.TICK, 1000)
    check_equal(source, target)


async def test_a_cut_over_that_cannot_succeed_lets_writers_go_on(source: RunningNode, target: RunningNode) -> None:
    class Forgetful(Target):
        async def store(self, changes: Any, last_seq: int = 0) -> int:
            kept: list[Change] = [change for change in changes if change.key != "key/007"]
            return await super().store(kept, last_seq)

    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Forgetful(client), notes, standstill=Standstill(switch)) as task,
    ):
        with pytest.raises(MigrationRefusedError, match="1 keys differed from a source that stands still"):
            await task
    assert switch.set == [True, False]
    assert notes.notes[-1] == AGAIN


async def test_writers_go_on_while_a_failed_comparison_is_repeated(source: RunningNode, target: RunningNode) -> None:
    failures = [NotDoneError("the target has no leader")]

    class Failing(Target):
        async def export(self, path: str) -> None:
            if HELD in notes.notes and failures:
                raise failures.pop()
            await super().export(path)

    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Failing(client), notes, standstill=Standstill(switch)) as task,
    ):
        with writing(source):
            await task
    assert switch.set == [True, False, True]
    told = [note.partition(";")[0] for note in notes.notes]
    assert told[told.index(HELD) :][:3] == [HELD, AGAIN, "the target has no leader"]
    check_equal(source, target)


async def test_one_that_is_given_up_lets_writers_go_on(source: RunningNode, target: RunningNode) -> None:
    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Target(client), notes, standstill=Standstill(switch)) as task,
    ):
        await notes.wait_for(HELD)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert switch.set == [True, False]
    assert source.context.machine.limits.read_only is None


async def test_while_the_end_is_unknown_the_source_stays_read_only(source: RunningNode, target: RunningNode) -> None:
    """The target may have ended the migration and take writes: those of the source would be lost."""
    asked = asyncio.Event()

    class Silent(AsyncClient):
        async def migrate(self, request: pb.MigrateRequest) -> pb.MigrateReply:
            if request.step == pb.MigrateRequest.FINISH:
                asked.set()
                await asyncio.Event().wait()
            return await super().migrate(request)

    notes, switch = Notes(), NodeSwitch(source)
    async with (
        Silent([target.address]) as client,
        migrating(OddSource(source.address), Target(client), notes, standstill=Standstill(switch)) as task,
    ):
        await asked.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert switch.set == [True]
    assert "the target was asked to end the migration, and has not answered" in notes.notes[-1]


async def test_the_source_is_not_touched_before_a_majority_of_it_can_be_asked(
    source: RunningNode, target: RunningNode
) -> None:
    own = source.consensus.current.membership.voters[1]
    source.consensus.change(membership=Membership({1: own, 2: own, 3: own}, {}))
    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(OddSource(source.address), Target(client), notes, standstill=Standstill(switch)) as task,
    ):
        with pytest.raises(MigrationRefusedError, match="1 of the 3 voters of the source can be asked"):
            await task
    assert switch.set == []


async def test_somebody_who_lets_it_take_writes_is_noticed(source: RunningNode, target: RunningNode) -> None:
    ended: list[asyncio.Future[Any]] = []

    def exported(number: int) -> None:
        if switch.set == [True] and not ended:
            ended.append(asyncio.ensure_future(source.consensus.propose(c.SetReadOnly(None), 1000)))

    notes, switch = Notes(), NodeSwitch(source)
    async with (
        AsyncClient([target.address]) as client,
        migrating(
            OddSource(source.address, exported=exported), Target(client), notes, standstill=Standstill(switch)
        ) as task,
    ):
        with pytest.raises(MigrationRefusedError, match="somebody let the source take writes while it was compared"):
            await task
    assert switch.set == [True, False]
    assert source.context.machine.limits.read_only is None


# ----------------------------------------------------------------------------- the command line


@contextmanager
def admin_server(answers: dict[str, object]) -> Iterator[str]:
    """A server that answers these paths with JSON, and 404 otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            del format, arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


OTHER = {"id": 1, "name": "foo", "state": "Leader"}
"""What upstream's status has: neither a cluster's id nor a switch."""
OFF = {"/v1/cluster/status": {"cluster_id": "old", "read_only": None}, "/v1/features/list": {"enabled": []}}


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({}, "the source has no read-only switch"),
        ({"/v1/cluster/status": OTHER}, "the source has no read-only switch"),
        (OFF, "the source cannot be made read-only: its feature write-limits is off"),
        (
            {**OFF, "/v1/cluster/status": {"cluster_id": "new", "read_only": None}},
            "leads to cluster new, and --from to old",
        ),
    ],
)
async def test_a_source_without_the_switch_is_a_sentence(
    source: RunningNode,
    target: RunningNode,
    answers: dict[str, object],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with admin_server(answers) as address:
        arguments = ["migrate", "--from", source.address, "--to", target.address, "--cut-over", "--from-read-only"]
        assert await asyncio.to_thread(ctl.main, [*arguments, "--from-admin-api-address", address]) == 1
    assert sentence in capsys.readouterr().err
    assert records(target) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from-read-only"], "--from-read-only holds writers off for the cut-over: it goes with --cut-over"),
        (["--from-read-only", "--cut-over"], "--from-read-only needs --from-admin-api-address"),
        (["--from-admin-api-address", "h:1", "--cut-over"], "is for --from-read-only, which is missing"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["migrate", "--from", "h:1", "--to", "h:1", *arguments]) == 1
    assert sentence in capsys.readouterr().err
