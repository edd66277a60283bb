"""A session is kept alive, lost before the cluster can give away what it held, and executes each piece of work once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from metasrv.client.loss import SessionLostError
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import Transaction
from metasrv.model.errors import NotDoneError, WriteRefusedError
from metasrv.model.limits import SESSION_DELETE_KEYS_MAX
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.memory_cluster import Fate, MemoryClient, MemoryCluster, any_fate

pytestmark = pytest.mark.virtual_time


def session_of(client: MemoryClient, ttl_ms: int = 10_000, **arguments: object) -> AsyncSession:
    clock = asyncio.get_running_loop().time
    return AsyncSession(client, ttl_ms=ttl_ms, clock=clock, **arguments)  # type: ignore[arg-type]


def fates(*chosen: Fate) -> Callable[[pb.TxnRequest], Fate]:
    """These in turn, then all is well."""
    left = list(chosen)
    return lambda _: left.pop(0) if left else Fate.DONE


async def test_it_lives_as_long_as_its_program_and_no_longer() -> None:
    cluster = MemoryCluster()
    async with session_of(cluster.client(), name="worker") as session:
        await asyncio.sleep(600)
        assert cluster.present() == [session.key]
        assert cluster.model.records[session.key].data.startswith(b"worker\n")
        assert not session.lost.is_set()
        assert cluster.transactions < 600 / 10 * 3 + 10
    assert cluster.present() == []
    assert session.lost.reason == "the session was closed"


async def test_it_is_lost_before_the_cluster_ends_it() -> None:
    """The margin is what the cluster's clock may run ahead."""
    cluster = MemoryCluster()
    client = cluster.client()
    loop = asyncio.get_running_loop()
    async with session_of(client, 10_000) as session:
        told: list[tuple[float, bool, str]] = []
        session.lost.add_callback(lambda reason: told.append((loop.time(), session.key in cluster.present(), reason)))
        await asyncio.sleep(20)
        client.cut_off = True
        cut_off_at = loop.time()
        assert await session.lost.wait() == "no renewal was acknowledged in time"
        await asyncio.sleep(0)
        lost_at, still_there, reason = told[0]
        assert still_there
        assert reason == session.lost.reason
        assert 8 - 10 / 3 - 0.1 <= lost_at - cut_off_at <= 8
        await asyncio.sleep(1.9)
        assert session.key in cluster.present(), "the cluster must not be faster than the rule, to the margin"
        await asyncio.sleep(2)
        assert cluster.present() == []
        with pytest.raises(SessionLostError):
            await session.execute_once(Transaction().put("a", b""))
        client.cut_off = False
    assert cluster.present() == []


async def test_a_clock_that_is_ahead_by_less_than_the_margin_does_no_harm() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client, 10_000) as session:
        await asyncio.sleep(20)
        client.cut_off = True
        cluster.fast_seconds = 1.9  # a new leader's clock
        await session.lost.wait()
        assert session.key in cluster.present()


async def test_an_acknowledged_renewal_counts_from_when_it_was_sent() -> None:
    """Answers that took long do not make the session live longer."""
    cluster = MemoryCluster()
    client = cluster.client()
    loop = asyncio.get_running_loop()
    send = client.transaction

    async def slowly(request: Transaction | pb.TxnRequest, *, timeout_ms: int | None = None) -> object:
        reply = await send(request, timeout_ms=timeout_ms)
        await asyncio.sleep(1.9)
        return reply

    client.transaction = slowly  # type: ignore[method-assign, assignment]
    session = session_of(client, 10_000)
    opened_at = loop.time()
    await session.open()
    assert loop.time() - opened_at > 1.9
    client.cut_off = True
    await session.lost.wait()
    assert loop.time() - opened_at <= 8.001
    client.cut_off = False
    await session.close()


async def test_a_program_that_was_stopped_knows_at_once() -> None:
    """No timer has run yet: the question itself looks at the clock, which goes on while the machine sleeps."""
    cluster = MemoryCluster()
    ahead = 0.0
    loop = asyncio.get_running_loop()
    session = AsyncSession(cluster.client(), ttl_ms=10_000, clock=lambda: loop.time() + ahead)
    await session.open()
    assert not session.lost.is_set()
    ahead = 8.0
    assert session.lost.is_set()
    with pytest.raises(SessionLostError):
        session.attach("a")
    await session.close()


async def test_a_key_that_somebody_deleted_ends_the_session() -> None:
    cluster = MemoryCluster()
    async with session_of(cluster.client(), 3_000) as session:
        cluster.delete(session.key)
        assert await session.lost.wait() == "the cluster ended the session"
        assert cluster.present() == [], "a renewal must not bring it back"


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.LOST, Fate.LATE])
async def test_opening_with_an_unknown_outcome_is_tried_again(fate: Fate) -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    client.fate = fates(fate, fate)
    async with session_of(client) as session:
        await session.execute_once(Transaction().put("a", b""))
        await asyncio.sleep(60)
        assert not session.lost.is_set()
    await asyncio.sleep(60)
    assert cluster.present() == ["a"]


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.LOST, Fate.LATE])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_work_of_unknown_outcome_is_done_once(fate: Fate, times: int) -> None:
    """Also the calls that find out what happened may fare badly."""
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client) as session:
        client.fate = fates(*[fate] * times)
        executed = await session.execute_once(Transaction().fetch_increase("count", 1))
        assert executed.success
        await asyncio.sleep(60)
        assert cluster.model.records["count"].data == b"1"
        refused = await session.execute_once(Transaction().when_absent("count").put("count", b"9"))
        assert not refused.success


async def test_the_other_side_of_a_transaction_is_done_once_too() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client) as session:
        client.fate = fates(Fate.ANSWER_LOST)
        work = Transaction().when_present("no such key").put("then", b"").otherwise().fetch_increase("count", 1)
        executed = await session.execute_once(work)
        assert (executed.success, executed.responses) == (False, None)
        assert cluster.model.records["count"].data == b"1"
        assert "then" not in cluster.present()


@pytest.mark.parametrize("seed", range(6))
async def test_random_fates_double_and_lose_nothing(seed: int) -> None:
    cluster = MemoryCluster()

    async def work(number: int) -> int:
        client = cluster.client(seed * 10 + number)
        async with session_of(client, name=str(number)) as session:
            client.fate = any_fate(client, 0.3)
            done = 0
            for _ in range(30):
                client.late_seconds = client.random.choice([0.01, 0.3, 5.0])
                try:
                    done += (await session.execute_once(Transaction().fetch_increase("count", 1))).success
                except NotDoneError:
                    continue
                if client.random.random() < 0.1:
                    await asyncio.sleep(client.random.random() * 5)
            assert not session.lost.is_set()
            client.fate = lambda _: Fate.DONE
        return done

    done = sum(await asyncio.gather(*map(work, range(3))))
    await asyncio.sleep(100)
    assert int(cluster.model.records["count"].data) == done


async def test_work_that_was_cancelled_is_settled_by_the_next() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client) as session:
        task = asyncio.create_task(session.execute_once(Transaction().fetch_increase("count", 1)))
        await asyncio.sleep(0.0015)  # executed, and the answer is on its way
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert cluster.model.records["count"].data == b"1"
        client.fate = fates(Fate.LOST)
        await session.execute_once(Transaction().fetch_increase("count", 1))
        await asyncio.sleep(60)
        assert cluster.model.records["count"].data == b"2"
        assert not session.lost.is_set()


async def test_a_refused_write_is_told_and_the_session_goes_on() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client) as session:
        client.fate = fates(Fate.REFUSED)
        with pytest.raises(NotDoneError):
            await session.execute_once(Transaction().put("a", b""))
        await session.execute_once(Transaction().put("b", b""))
        assert "a" not in cluster.present()


async def test_a_cluster_that_takes_no_writes_ends_sessions() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    async with session_of(client) as session:

        async def refuse(*_: object, **__: object) -> object:
            await asyncio.sleep(0.001)
            raise WriteRefusedError("the cluster is read-only")

        client.transaction = refuse  # type: ignore[method-assign, assignment]
        assert await session.lost.wait() == "no renewal was acknowledged in time"


async def test_what_is_attached_goes_with_the_session() -> None:
    cluster = MemoryCluster()
    async with session_of(cluster.client()) as session:
        for number in range(SESSION_DELETE_KEYS_MAX + 2):
            session.attach(f"held/{number:04d}")
        for number in (0, 1, SESSION_DELETE_KEYS_MAX + 1):
            cluster.put(f"held/{number:04d}", b"")
        cluster.put("other", b"")
        await session.detach("held/0000")
        assert "held/0000" not in cluster.present()
    assert cluster.present() == ["other"]


async def test_closing_without_a_cluster_ends_with_the_time_to_live() -> None:
    cluster = MemoryCluster()
    client = cluster.client()
    session = session_of(client, 3_000)
    await session.open()
    client.cut_off = True
    await asyncio.wait_for(session.close(), 5)
    assert cluster.present() == []
    await session_of(client).close()  # never opened: nothing to end


async def test_while_alive_ends_with_the_session() -> None:
    cluster = MemoryCluster()
    async with session_of(cluster.client(), 3_000) as session:
        task = asyncio.create_task(session.while_alive(asyncio.sleep(1_000)))
        await asyncio.sleep(1)
        cluster.delete(session.key)
        with pytest.raises(SessionLostError, match="the cluster ended"):
            await asyncio.wait_for(task, 3)


async def test_wrong_parameters_are_refused() -> None:
    client = MemoryCluster().client()
    with pytest.raises(ValueError, match="at least 1000"):
        AsyncSession(client, ttl_ms=999)
    with pytest.raises(ValueError, match="margin_ms"):
        AsyncSession(client, ttl_ms=1_000, margin_ms=501)
    with pytest.raises(ValueError, match="line breaks"):
        AsyncSession(client, name="a\nb")
    session = session_of(client)
    await session.open()
    with pytest.raises(RuntimeError, match="opened once"):
        await session.open()
    branches = Transaction()
    branches.request.operations.add()
    with pytest.raises(ValueError, match="branches"):
        await session.execute_once(branches)
    await session.execute_once(Transaction().put("a", b""))
    await session.close()
