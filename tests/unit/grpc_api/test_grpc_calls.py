"""What handlers take from a call, and the leader hint."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metasrv.grpc_api.calls import ANSWER_MARGIN_MS, TIMEOUT_MS_DEFAULT, client_address, timeout_ms_of
from metasrv.grpc_api.leader import HINT_SECONDS, LeaderHint
from metasrv.grpc_api.readers import Readers
from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.protocol import methods as m
from tests.support.grpc_bench import NODES, FakeCall, make_context


@pytest.mark.parametrize(
    ("remaining", "timeout_ms"),
    [
        (None, TIMEOUT_MS_DEFAULT),
        (4.0, 4000 - ANSWER_MARGIN_MS),
        (3600.0, TIMEOUT_MS_DEFAULT),
        (0.021, 1),
        (0.0, 1),
        (-1.0, 1),
    ],
)
def test_the_client_s_deadline_is_kept_with_a_margin(remaining: float | None, timeout_ms: int) -> None:
    assert timeout_ms_of(FakeCall(remaining=remaining)) == timeout_ms


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5555", "127.0.0.1:5555"),
        ("ipv6:%5B::1%5D:5555", "[::1]:5555"),
        ("ipv6:[::1]:5555", "[::1]:5555"),
        ("unix:/tmp/x", "unix:/tmp/x"),
        ("", ""),
    ],
)
def test_callers_addresses(peer: str, address: str) -> None:
    assert client_address(peer) == address


def test_the_leader_hint_is_remembered_for_a_moment(tmp_path: Path) -> None:
    context, consensus = make_context(tmp_path)
    hint = LeaderHint(context)
    assert hint.metadata() == ()
    consensus.follow(2)
    assert hint.metadata() == ()
    context.clock.advance(HINT_SECONDS + 0.001)  # type: ignore[attr-defined]
    assert hint.metadata() == ((m.LEADER_METADATA_KEY, NODES[2].grpc_api_advertise_address),)
    consensus.change(nodes={2: NODES[2]._replace(grpc_api_advertise_address=None)})
    assert hint.address() is None
    context.machine.close()


async def test_a_cancelled_read_closes_its_view_behind_the_thread(tmp_path: Path) -> None:
    context, _ = make_context(tmp_path)
    readers = Readers(context.machine)
    reader = readers.open(FakeCall())
    closed: list[bool] = []
    close = reader.view.close
    reader.view.close = lambda: (closed.append(True), close())[1]  # type: ignore[method-assign, func-returns-value]
    entered, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result(5)

    async def reading() -> None:
        async with reader:
            await reader.run(read)

    task = asyncio.create_task(reading())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == []
    assert readers.open_count == 0
    leave.set()
    await asyncio.to_thread(readers.close)
    assert closed == [True]
    context.machine.close()


@pytest.mark.parametrize(("writing", "patient"), [(True, True), (False, True), (True, False)])
async def test_an_export_rests_while_the_state_changes_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: bool, patient: bool
) -> None:
    context, consensus = make_context(tmp_path)
    readers = Readers(context.machine)
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    pages = []
    async with readers.open(FakeCall()) as reader:
        async for page in reader.iterate(iter(range(5)), patient=patient):
            pages.append(page)
            if writing and page == 2:
                await consensus.propose(Upsert("k", MatchSeq(MatchKind.ANY), Operation.UPDATE, b"v", None, None), 1000)
                monkeypatch.setattr("metasrv.grpc_api.readers.asyncio.sleep", rest)
    assert pages == [0, 1, 2, 3, 4]
    assert len(rests) == (3 if writing and patient else 0), "after this page and the two that follow at once"
    assert all(0 <= seconds <= 0.25 for seconds in rests)
    monkeypatch.undo()
    await asyncio.to_thread(readers.close)
    context.machine.close()
