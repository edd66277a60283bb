"""The recipes on a cluster in memory: order, exclusion, tokens, and what is left when callers go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from metasrv.client.loss import SessionLostError
from metasrv.client.outcomes import ClientClosedError
from metasrv.client.recipes.barrier import AsyncBarrier, AsyncDoubleBarrier
from metasrv.client.recipes.counter import AsyncCounter
from metasrv.client.recipes.election import AsyncElection, Leader
from metasrv.client.recipes.lock import AsyncLock
from metasrv.client.recipes.waiting import FencedError, Held, removal_of_dead
from metasrv.client.sessions import AsyncSession
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model.types import SeqV
from tests.support.memory_cluster import Fate, MemoryClient, MemoryCluster, RefusedByTestError, any_fate

pytestmark = pytest.mark.virtual_time
TTL_MS = 6_000


@asynccontextmanager
async def open_session(cluster: MemoryCluster, seed: int = 0) -> AsyncIterator[tuple[MemoryClient, AsyncSession]]:
    client = cluster.client(seed)
    async with AsyncSession(client, ttl_ms=TTL_MS, clock=asyncio.get_running_loop().time) as session:
        yield client, session


async def fenced_put(client: MemoryClient, token: FencingToken, value: bytes) -> bool:
    return (await client.transaction(Transaction().fenced_by(token).put("protected", value))).success


# ----------------------------------------------------------------------------- lock


async def test_the_lock_goes_round_in_the_order_of_asking_and_wakes_nobody_else() -> None:
    cluster = MemoryCluster()
    order: list[int] = []
    tokens: list[FencingToken] = []
    holders = 0

    async def contend(number: int) -> int:
        nonlocal holders
        await asyncio.sleep(number / 10)
        async with open_session(cluster, number) as (client, session), AsyncLock(session, "x", b"%d" % number) as token:
            holders += 1
            assert holders == 1
            order.append(number)
            tokens.append(token)
            await asyncio.sleep(5)
            holders -= 1
            return client.lists

    lists = await asyncio.gather(*map(contend, range(12)))
    assert order == list(range(12))
    assert tokens == sorted(tokens, key=lambda token: token.seq)
    assert max(lists) <= 3, "each one looks when it comes and when its turn has come"
    assert cluster.present() == []


async def test_a_lost_session_hands_the_lock_on_and_its_writes_are_refused() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (paused, held), open_session(cluster) as (client, waiting):
        first = await AsyncLock(held, "x").acquire()
        assert await fenced_put(paused, first, b"1")
        lock = AsyncLock(waiting, "x")
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(1)
        paused.cut_off = True
        second = await asyncio.wait_for(task, TTL_MS / 1000 + 1)
        assert held.lost.is_set(), "lost here before it is given to somebody else"
        assert second.seq > first.seq
        assert await fenced_put(client, second, b"2")
        paused.cut_off = False
        assert not await fenced_put(paused, first, b"late")
        assert cluster.model.records["protected"].data == b"2"
        assert lock.is_acquired
        await lock.release()


async def test_whoever_gives_up_leaves_the_line() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, session), open_session(cluster) as (_, other):
        held = AsyncLock(session, "x", b"first")
        await held.acquire()
        lock = AsyncLock(other, "x", b"second")
        with pytest.raises(TimeoutError):
            await lock.acquire(timeout_ms=500)
        await asyncio.sleep(0.1)
        assert await held.contenders() == [b"first"]
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0.5)
        assert await held.contenders() == [b"first", b"second"]
        with pytest.raises(RuntimeError, match="one object"):
            await lock.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert await held.contenders() == [b"first"]
        assert await lock.try_acquire() is None
        assert await held.contenders() == [b"first"]
        await held.release()
        assert await lock.try_acquire() is not None
        await lock.release()
        with pytest.raises(RuntimeError, match="not held"):
            await lock.release()


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.LATE, Fate.ANSWER_LOST])
async def test_a_caller_cancelled_at_any_moment_leaves_no_key(fate: Fate) -> None:
    """Also when its record is written after everybody has forgotten it."""
    for steps in range(1, 14):
        await assert_cancelling_leaves_nothing(steps, fate)


async def assert_cancelling_leaves_nothing(steps: int, fate: Fate) -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (client, session):
        client.fate = lambda request: fate if any("/lock/" in each.put.key for each in request.if_then) else Fate.DONE
        lock = AsyncLock(session, "x")
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(steps * 0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if lock.token is not None:  # acquired before it was cancelled
            await lock.release()
        await asyncio.sleep(30)
        assert cluster.present("x/") == []
        assert not session.lost.is_set()


async def test_one_who_waits_in_the_middle_leaves_and_the_order_stays() -> None:
    cluster = MemoryCluster()
    async with (
        open_session(cluster) as (_, one),
        open_session(cluster) as (middle, two),
        open_session(cluster) as (_, three),
    ):
        first, last = AsyncLock(one, "x"), AsyncLock(three, "x")
        await first.acquire()
        waiting = asyncio.create_task(AsyncLock(two, "x").acquire())
        await asyncio.sleep(1)
        behind = asyncio.create_task(last.acquire())
        await asyncio.sleep(1)
        middle.cut_off = True
        with pytest.raises(SessionLostError):
            await waiting
        await asyncio.sleep(TTL_MS / 1000)
        assert not behind.done(), "the first one holds it"
        await first.release()
        await asyncio.wait_for(behind, 1)
        await last.release()
        middle.cut_off = False


async def test_an_outage_shorter_than_the_session_costs_nobody_the_place() -> None:
    cluster = MemoryCluster()
    clock = asyncio.get_running_loop().time
    client = cluster.client()
    async with open_session(cluster) as (_, one), AsyncSession(client, ttl_ms=60_000, clock=clock) as two:
        held = AsyncLock(one, "x")
        first = await held.acquire()
        waiting = asyncio.create_task(AsyncLock(two, "x").acquire())
        await asyncio.sleep(1)
        client.cut_off = True
        cluster.reset_watches()
        await asyncio.sleep(30)
        await held.release()
        client.cut_off = False
        assert (await asyncio.wait_for(waiting, 20)).seq > first.seq


async def test_a_closed_client_ends_the_waiting() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, one), open_session(cluster) as (client, two):
        await AsyncLock(one, "x").acquire()
        waiting = asyncio.create_task(AsyncLock(two, "x").acquire())
        await asyncio.sleep(1)

        async def closed(seconds: float = 0) -> None:
            raise ClientClosedError

        client._reach = closed  # type: ignore[method-assign]
        cluster.reset_watches()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(waiting, 5)


async def test_names_below_each_other_do_not_meet() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, session):
        for name in ("x", "x/lock", "x/lock/lock"):
            await AsyncLock(session, name).acquire(timeout_ms=1_000)
        await AsyncElection(session, "x").campaign(timeout_ms=1_000)
        assert len(cluster.present("x/")) == 4


@pytest.mark.parametrize("seed", range(5))
async def test_one_holder_at_a_time_whatever_becomes_of_writes_and_watches(seed: int) -> None:
    """Holders by the tokens' rule: each protected write is the newest holder's."""
    cluster = MemoryCluster()
    written: list[int] = []
    refusals: list[int] = []

    async def contend(number: int) -> None:
        client = cluster.client(seed * 100 + number)
        clock = asyncio.get_running_loop().time
        for _ in range(4):
            session = AsyncSession(client, ttl_ms=1_500, clock=clock)
            await session.open()
            client.fate = any_fate(client, 0.2)
            try:
                token = await AsyncLock(session, "x").acquire(timeout_ms=20_000)
                if client.random.random() < 0.3:
                    client.cut_off = True  # as if it were paused
                    await asyncio.sleep(client.random.random() * 6)
                    client.cut_off = False
                client.fate = lambda _: Fate.DONE
                if await fenced_put(client, token, b"%d" % number):
                    written.append(token.seq)
            except (SessionLostError, TimeoutError, RefusedByTestError):
                refusals.append(number)
            client.fate = lambda _: Fate.DONE
            await session.close()

    async def trouble() -> None:
        while True:
            await asyncio.sleep(0.7)
            cluster.reset_watches()

    troubling = asyncio.create_task(trouble())
    await asyncio.gather(*map(contend, range(4)))
    troubling.cancel()
    await asyncio.gather(troubling, return_exceptions=True)
    assert written == sorted(written)
    assert len(written) >= 4, f"{len(refusals)} of 16 rounds ended early"
    await asyncio.sleep(60)
    async with open_session(cluster) as (_, session):
        await AsyncLock(session, "x").acquire(timeout_ms=5_000)


# ----------------------------------------------------------------------------- election


async def test_an_election_from_campaign_to_resignation_as_observers_see_it() -> None:
    cluster = MemoryCluster()
    async with (
        open_session(cluster) as (_, one),
        open_session(cluster) as (_, two),
        open_session(cluster) as (_, three),
    ):
        seen: list[bytes | None] = []

        async def observe() -> None:
            async with aclosing(AsyncElection(three, "e").observe()) as leaders:
                async for leader in leaders:
                    seen.append(None if leader is None else leader.value)

        observing = asyncio.create_task(observe())
        await asyncio.sleep(0.1)
        first, second = AsyncElection(one, "e"), AsyncElection(two, "e")
        token = await first.campaign(b"one")
        assert first.is_leader
        waiting = asyncio.create_task(second.campaign(b"two"))
        await asyncio.sleep(0.1)
        await first.proclaim(b"one, ready")
        assert await second.leader() == Leader(b"one, ready", token)
        await asyncio.sleep(0.1)
        await first.resign()
        assert (await waiting).seq > token.seq
        await asyncio.sleep(0.1)
        assert seen == [None, b"one", b"one, ready", b"two"]
        await second.resign()
        await asyncio.sleep(0.1)
        assert await second.leader() is None
        assert seen[-1] is None
        with pytest.raises(RuntimeError, match="only a leader"):
            await second.proclaim(b"")
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)


async def test_a_leader_who_is_gone_is_no_leader_and_proclaims_nothing() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (gone, one), open_session(cluster) as (_, two):
        leader, other = AsyncElection(one, "e"), AsyncElection(two, "e")
        await leader.campaign(b"one")
        gone.cut_off = True
        seen: list[Leader | None] = []

        async def observe() -> None:
            async with aclosing(other.observe()) as leaders:
                async for each in leaders:
                    seen.append(each)

        observing = asyncio.create_task(observe())
        await asyncio.sleep(TTL_MS / 1000 + 1)
        assert [each and each.value for each in seen] == [b"one", None]
        assert not leader.is_leader
        await other.campaign(b"two", timeout_ms=1_000)
        gone.cut_off = False
        with pytest.raises(SessionLostError):
            await leader.proclaim(b"late")
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)


async def test_a_leader_deposed_by_hand_is_fenced() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, session):
        leader = AsyncElection(session, "e")
        token = await leader.campaign()
        cluster.delete(token.key)
        with pytest.raises(FencedError, match="does not lead"):
            await leader.proclaim(b"late")


async def test_a_session_that_ends_during_a_campaign_ends_the_campaign() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, one), open_session(cluster) as (_, two):
        await AsyncElection(one, "e").campaign()
        candidate = AsyncElection(two, "e")
        task = asyncio.create_task(candidate.campaign())
        await asyncio.sleep(1)
        cluster.delete(two.key)
        with pytest.raises(SessionLostError):
            await asyncio.wait_for(task, 3)
        assert candidate.token is None


# ----------------------------------------------------------------------------- counter


@pytest.mark.parametrize("seed", range(4))
async def test_a_counter_counts_each_change_once(seed: int) -> None:
    cluster = MemoryCluster()
    total = 0

    async def count(number: int) -> None:
        nonlocal total
        async with open_session(cluster, seed * 10 + number) as (client, session):
            counter = AsyncCounter(session, "c", default=5)
            for _ in range(12):
                client.fate = any_fate(client, 0.3)
                delta = client.random.choice([1, 2, -1])
                while True:
                    try:
                        await counter.add(delta)
                    except RefusedByTestError:
                        continue
                    break
                total += delta
            client.fate = lambda _: Fate.DONE

    await asyncio.gather(*map(count, range(3)))
    await asyncio.sleep(60)
    assert int(cluster.model.records["c"].data) == 5 + total


async def test_a_count_is_a_token_until_the_next_change() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (client, session):
        counter = AsyncCounter(session, "c")
        assert (await counter.get()).value == 0
        first = await counter.add(3)
        assert await fenced_put(client, first.token, b"1")
        assert first == await counter.get()
        assert (await counter.add(-1)).value == 2
        assert not await fenced_put(client, first.token, b"2")
        cluster.put("c", b"not a number")
        with pytest.raises(ValueError, match="invalid literal"):
            await counter.get()


# ----------------------------------------------------------------------------- barriers


async def test_a_barrier_holds_until_it_is_removed() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (client, one), open_session(cluster) as (_, two):
        barrier = AsyncBarrier(one, "b")
        await AsyncBarrier(two, "b").wait(timeout_ms=1_000)
        token = await barrier.create()
        assert await barrier.create() == token
        with pytest.raises(TimeoutError):
            await AsyncBarrier(two, "b").wait(timeout_ms=1_000)
        assert await fenced_put(client, token, b"")
        waiting = asyncio.create_task(AsyncBarrier(two, "b").wait())
        await asyncio.sleep(1)
        assert not waiting.done()
        await barrier.remove()
        await asyncio.wait_for(waiting, 1)
        assert not await fenced_put(client, token, b"")


async def test_rounds_begin_and_end_with_all_members() -> None:
    cluster = MemoryCluster()
    inside = 0
    most = 0
    rounds: dict[int, int] = {}

    async def take_part(number: int) -> None:
        nonlocal inside, most
        async with open_session(cluster, number) as (client, session):
            for _ in range(4):
                await asyncio.sleep(client.random.random())
                async with AsyncDoubleBarrier(session, "b", 3) as token:
                    inside += 1
                    most = max(most, inside)
                    rounds[token.seq] = rounds.get(token.seq, 0) + 1
                    assert rounds[token.seq] <= 3
                    await asyncio.sleep(client.random.random() * 3)
                    assert rounds[token.seq] == 3, "nobody leaves before all have entered"
                    inside -= 1

    await asyncio.wait_for(asyncio.gather(*map(take_part, range(3))), 200)
    assert most == 3
    assert len(rounds) == 4
    assert cluster.present("b/") == []


async def test_a_member_who_is_gone_holds_up_neither_a_beginning_nor_an_end() -> None:
    cluster = MemoryCluster()
    async with (
        open_session(cluster) as (gone, one),
        open_session(cluster) as (_, two),
        open_session(cluster) as (_, three),
    ):
        waiting = asyncio.create_task(AsyncDoubleBarrier(one, "b", 2).enter())
        await asyncio.sleep(0.1)
        gone.cut_off = True
        await asyncio.sleep(TTL_MS / 1000 + 1)
        second, third = AsyncDoubleBarrier(two, "b", 2), AsyncDoubleBarrier(three, "b", 2)
        with pytest.raises(TimeoutError):
            await second.enter(timeout_ms=1_000)
        assert waiting.done()
        with pytest.raises(SessionLostError):
            await waiting
        tokens = await asyncio.wait_for(asyncio.gather(second.enter(), third.enter()), 10)
        assert tokens[0] == tokens[1]
        cluster.delete(two.key)
        await asyncio.wait_for(third.leave(), TTL_MS / 1000)
        gone.cut_off = False
    assert cluster.present("b/") == []


async def test_no_round_begins_with_a_member_who_went_just_now() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, one), open_session(cluster) as (client, two):
        waiting = asyncio.create_task(AsyncDoubleBarrier(one, "b", 2).enter())
        await asyncio.sleep(0.1)
        read = client.get_many

        async def read_and_lose(keys: Sequence[str]) -> list[SeqV | None]:
            records = await read(keys)
            if one.key in keys and one.key in cluster.model.records:
                cluster.delete(one.key)
            return records

        client.get_many = read_and_lose  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            await AsyncDoubleBarrier(two, "b", 2).enter(timeout_ms=1_500)
        with pytest.raises(SessionLostError):
            await waiting


async def test_what_a_living_session_holds_is_not_removed() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (client, session):
        token = await AsyncLock(session, "x").acquire()
        removal = removal_of_dead(Held(token, session.key, b""))
        assert not (await client.transaction(removal)).success
        assert await fenced_put(client, token, b"")
        cluster.delete(session.key)
        assert (await client.transaction(removal)).success
        assert not await fenced_put(client, token, b"")


async def test_a_round_whose_members_are_all_gone_gives_way() -> None:
    cluster = MemoryCluster()
    async with open_session(cluster) as (_, one):
        await AsyncDoubleBarrier(one, "b", 1).enter()
        cluster.delete(one.key)
    async with open_session(cluster) as (_, two):
        barrier = AsyncDoubleBarrier(two, "b", 1)
        await barrier.enter(timeout_ms=TTL_MS)
        with pytest.raises(RuntimeError, match="one object"):
            await barrier.enter()
        await barrier.leave(timeout_ms=TTL_MS)
        with pytest.raises(RuntimeError, match="not entered"):
            await barrier.leave()
    with pytest.raises(ValueError, match="between 1"):
        AsyncDoubleBarrier(two, "b", 0)
