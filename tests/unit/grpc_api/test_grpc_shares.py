"""How large reads and watch streams are divided among addresses, and who gives way to whom."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.grpc_api.batches import batches_of
from metasrv.grpc_api.calls import Stream, client_host
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.portions import Standing, portions_of
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.shares import Holder, Shares
from metasrv.model.errors import OverloadedError
from metasrv.model.limits import GRPC_READ_STALLED_SECONDS_MAX, GRPC_READERS_MAX, WATCHERS_MAX
from tests.support.grpc_bench import FakeCall, MethodBench

STRANGER, CLIENT, MEMBER = Standing


def taken(shares: Shares, holder: Holder, limit: int) -> int:
    """Take what there is for a holder; how many places that are."""
    count = 0
    while shares.refusal(holder, limit) is None:
        shares.take(holder, limit)
        count += 1
    with pytest.raises(OverloadedError):
        shares.take(holder, limit)
    return count


@pytest.mark.parametrize(
    ("limit", "stranger", "client"), [(GRPC_READERS_MAX, 4, 8), (WATCHERS_MAX, 5_000, 10_000), (1, 1, 1)]
)
def test_no_address_gets_everything(limit: int, stranger: int, client: int) -> None:
    assert taken(Shares("things"), Holder("10.0.0.1", STRANGER), limit) == stranger
    assert taken(Shares("things"), Holder("10.0.0.1", CLIENT), limit) == client
    assert taken(Shares("things"), Holder("10.0.0.1", MEMBER), limit) == client


def test_who_proves_more_finds_room_when_others_have_taken_theirs() -> None:
    shares = Shares("large reads")
    assert sum(taken(shares, Holder(f"10.0.0.{n}", STRANGER), 16) for n in range(9)) == 12
    assert sum(taken(shares, Holder(f"10.0.0.{n}", CLIENT), 16) for n in range(9)) == 2
    assert sum(taken(shares, Holder(f"10.0.0.{n}", MEMBER), 16) for n in range(9)) == 2
    assert shares.refusal(Holder("10.0.0.1", MEMBER), 16) == "this node already serves 16 large reads, the limit"
    assert "keeps the rest of 20 free for others" in str(shares.refusal(Holder("10.0.1.1", STRANGER), 20))
    shares.give_back(Holder("10.0.0.0", STRANGER))
    assert shares.in_use == 15


def test_portions_leave_nothing_over() -> None:
    for limit in (1, 2, 3, 7, 16, 20_000):
        portions = portions_of(limit)
        assert portions.together == tuple(sorted(portions.together))
        assert portions.together[MEMBER] == limit
        assert min(portions.each) >= 1


@pytest.mark.parametrize(
    ("peer", "host"), [("ipv4:10.1.2.3:5", "10.1.2.3"), ("ipv6:[fd00::1]:5", "fd00::1"), ("ipv6:%5B::1%5D:5", "::1")]
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert client_host(peer) == host


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    made = MethodBench(tmp_path_factory.mktemp("node"))
    yield made
    await made.close()


async def test_a_read_that_takes_nothing_gives_its_place_to_another(bench: MethodBench) -> None:
    readers = bench.service._readers
    calls = [FakeCall() for _ in range(4)]
    opened = [readers.open(call) for call in calls]
    with pytest.raises(OverloadedError, match="its share of 16; a client that shows a token"):
        readers.open(FakeCall())
    calls[2].stalled = GRPC_READ_STALLED_SECONDS_MAX - 1
    with pytest.raises(OverloadedError):
        readers.open(FakeCall())

    class Stuck(FakeCall):
        async def write(self, message: bytes) -> None:
            await asyncio.get_running_loop().create_future()

    sending = asyncio.create_task(opened[2].deliver(Stream(Stuck(), bench.context.metrics), batches_of([b"page"])))
    await asyncio.sleep(0)
    calls[2].stalled = GRPC_READ_STALLED_SECONDS_MAX
    further = readers.open(FakeCall())
    with pytest.raises(StatusError, match="took nothing for 10 seconds, and another") as caught:
        await sending
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert readers.open_count == 4
    for reader in (*opened, further):
        await reader.__aexit__(None, None, None)
    assert readers.open_count == 0
    assert readers._shares.in_use == 0


async def test_a_read_of_another_share_is_ended_only_when_none_of_the_own_stalls(bench: MethodBench) -> None:
    readers = bench.service._readers
    strangers = [FakeCall() for _ in range(4)]
    opened = []
    for call in strangers:
        opened.append(readers.open(call))
        call.stalled = 100.0
    client = FakeCall()
    client.prove()
    opened.append(readers.open(client))
    assert readers.open_count == 5, "there is room: nobody is ended"
    assert opened[-1].stalled_seconds == 0
    opened.append(readers.open(FakeCall()))
    assert readers.open_count == 5
    for reader in opened:
        await reader.__aexit__(None, None, None)
