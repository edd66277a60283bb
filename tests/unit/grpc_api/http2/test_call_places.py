"""How the calls under way are divided among addresses: at each portion and one past it."""

from __future__ import annotations

from metasrv.grpc_api.http2.call_places import CallPlaces
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.http2.portions import Standing, portions_of
from metasrv.grpc_api.http2.status import StatusCode
from tests.support.http2_bench import Bench, Peer, settle

STRANGER, CLIENT, MEMBER = Standing
LIMIT = 16


class Caller:
    """A connection that has calls already."""

    def __init__(self, host: str, standing: Standing = STRANGER, *, is_idle: bool = False, is_near: bool = False) -> None:
        self.host = host
        self.standing = standing
        self.is_idle = is_idle
        self.is_near = is_near


def taken(places: CallPlaces, caller: Caller) -> int:
    """How many calls find room until one is refused, which ends at once."""
    count = 0
    while places.take(caller) is None:
        count += 1
    places.give_back(caller)
    return count


def test_one_address_gets_its_portion() -> None:
    for standing, share in ((STRANGER, 4), (CLIENT, 8), (MEMBER, 8)):
        places = CallPlaces(portions_of(LIMIT))
        assert taken(places, Caller("10.0.0.1", standing)) == share
        text = places.take(Caller("10.0.0.1", standing))
        assert text is not None
        assert text.startswith(f"the address 10.0.0.1 already has {share} calls, its share of 16")
        assert ("token may have more" in text) == (standing is STRANGER)


def test_all_addresses_together_leave_the_reserve() -> None:
    places = CallPlaces(portions_of(LIMIT))
    assert sum(taken(places, Caller(f"10.0.0.{n}")) for n in range(9)) == 12
    text = places.take(Caller("10.0.1.1"))
    assert text is not None
    assert text.startswith(
        "this node serves 12 calls and keeps the rest of 16 free for others; a client that shows a token"
    )
    places.give_back(Caller("10.0.1.1"))
    assert sum(taken(places, Caller(f"10.0.1.{n}", CLIENT)) for n in range(9)) == 2
    assert sum(taken(places, Caller(f"10.0.2.{n}", MEMBER)) for n in range(9)) == 2
    assert places.take(Caller("10.0.2.1", MEMBER)) == "this node already serves 16 calls, the limit"


def test_the_first_call_of_a_connection_finds_room_beside_strangers() -> None:
    """It may be the handshake; one of this machine may be a probe."""
    places = CallPlaces(portions_of(LIMIT))
    for n in range(4):
        taken(places, Caller(f"10.0.0.{n}"))
    assert places.take(Caller("10.0.0.1", is_idle=True)) is None
    assert places.take(Caller("10.0.0.9", is_idle=True)) is None
    assert places.take(Caller("10.0.0.9", is_idle=True)) is not None, "the last eighth is for the machines of the cluster"
    places.give_back(Caller("10.0.0.9"))
    assert places.take(Caller("127.0.0.1", is_idle=True, is_near=True)) is None
    assert places.take(Caller("127.0.0.1", is_idle=False, is_near=True)) is not None


def test_what_has_ended_leaves_nothing() -> None:
    places = CallPlaces(portions_of(LIMIT))
    caller = Caller("10.0.0.1")
    for _ in range(5):
        places.take(caller)
    for _ in range(5):
        places.give_back(caller)
    assert (places.in_use, places._by_host) == (0, {})


async def test_a_call_past_the_portion_is_told_so_and_its_place_is_free_again() -> None:
    bench = Bench(portions_of)
    peer = Peer(bench.server, host="10.0.0.1")
    for stream_id in (1, 3, 5, 7):
        peer.request(stream_id, length_prefixed(b"x"), path="/t.T/Stuck")
    await settle()
    assert bench.server.places.in_use == 4
    peer.frames()
    peer.request(9, length_prefixed(b"x"))
    refused = peer.headers()
    assert refused["grpc-status"] == str(StatusCode.RESOURCE_EXHAUSTED.value)
    assert refused["grpc-message"].startswith("the address 10.0.0.1 already has 4 calls, its share of 16")
    assert refused["x-refused"] == "nothing was done"
    assert bench.server.places.in_use == 4
    peer.connection.prove()
    peer.request(11, length_prefixed(b"x"))
    await settle()
    assert peer.headers()["grpc-status"] == "0"
    peer.connection.connection_lost(None)
    await settle()
    assert (bench.server.places.in_use, bench.server.places._by_host) == (0, {})
