"""A node and a gateway on another machine, over a link in memory: what it may say, what it gets, what ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metasrv.config.model import Config
from metasrv.gateway import frame_link, remote_gateways
from metasrv.gateway.messages import FROM_REMOTE, REMOTE_VERSION, Confirm, FromGateway
from metasrv.gateway.remote_process import RemoteGateway
from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.errors import (
    NotLeaderError,
    OverloadedError,
    PeerUnreachableError,
    UnknownOutcomeError,
    ViewLostError,
)
from metasrv.model.limits import (
    GATEWAY_INSTANTS_MAX,
    GRPC_READERS_MAX,
    REMOTE_FORWARDED_SIZE_BYTES_MAX,
    REMOTE_READS_PER_BATCH_MAX,
    REMOTE_REQUESTS_MAX,
    REMOTE_TIMEOUT_MS_MAX,
    REMOTE_VIEW_IDLE_SECONDS_MAX,
    REMOTE_VIEWS_MAX,
)
from metasrv.model.types import Endpoint
from metasrv.raft.peers.handshake import Role
from metasrv.raft.peers.security import PeerSecurity
from metasrv.state.watch import WatchFilter
from tests.support.remote_pair import RemotePair, turns

SECOND_MS = 1_000


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[RemotePair]:
    made = await RemotePair(tmp_path).greet()
    yield made
    made.close()


def put(key: str, value: bytes = b"v") -> Upsert:
    return Upsert(key, MatchSeq(MatchKind.ANY, 0), Operation.UPDATE, value)


async def write(pair: RemotePair, key: str, value: bytes = b"v") -> None:
    await pair.context.consensus.propose(put(key, value), SECOND_MS)


async def read(pair: RemotePair, *keys: str) -> list[bytes | None]:
    records = await pair.context.reads.keys(keys, Confirm.ANYWHERE, SECOND_MS)
    assert records is not None
    return [None if record is None else record.data for record in records]


async def test_all_reads_of_a_turn_share_one_message_and_one_barrier(pair: RemotePair) -> None:
    await write(pair, "a", b"1")
    await write(pair, "b", b"2")
    barriers, sent = pair.consensus.barriers, len(pair.to_node.sent)
    found = await asyncio.gather(*(read(pair, key) for key in ("a", "b", "c")), read(pair, "b", "a"))
    assert found == [[b"1"], [b"2"], [None], [b"2", b"1"]]
    assert pair.consensus.barriers == barriers + 1
    assert len(pair.to_node.sent) == sent + 1


async def test_what_is_too_large_for_an_answer_is_read_from_a_view(pair: RemotePair) -> None:
    for key in ("a", "b"):
        await write(pair, key, bytes(700_000))
    assert await pair.context.reads.keys(("a", "b"), Confirm.ANYWHERE, SECOND_MS) is None
    listed = await pair.context.reads.list("", None, Confirm.ANYWHERE, SECOND_MS)
    assert not isinstance(listed, list)
    pages = [key for page in await asyncio.to_thread(lambda: list(listed.pages())) for key, _ in page]
    assert pages == ["a", "b"]
    head = await asyncio.to_thread(lambda: (listed.last_seq, listed.last_applied, listed.features))
    assert head == (2, pair.node.machine.last_applied, ())
    assert await asyncio.to_thread(lambda: list(listed.expire_index())) == []
    await asyncio.to_thread(listed.close)
    await turns()
    with pytest.raises(ViewLostError):
        await pair.context.reads.of_view(FromGateway.VIEW_PAGE, 1, "", None)


async def test_a_node_refuses_a_version_that_it_does_not_know_with_a_sentence(tmp_path: Path) -> None:
    pair = await RemotePair(tmp_path).greet(REMOTE_VERSION + 1)
    assert "speaks version 2 of the messages" in pair.gateway.link.failure
    assert pair.gateway.context is None
    assert pair.gateways.linked == 0
    pair.close()


@pytest.mark.parametrize("kind", [kind for kind in FromGateway if kind not in FROM_REMOTE])
async def test_what_only_a_gateway_of_the_node_may_say_ends_the_link(pair: RemotePair, kind: FromGateway) -> None:
    await pair.say(kind)
    assert pair.to_gateway.ended
    assert pair.gateways.linked == 0


async def test_nothing_is_heard_before_the_greeting(tmp_path: Path) -> None:
    pair = RemotePair(tmp_path)
    await pair.say(FromGateway.BARRIER, 1, True, SECOND_MS)
    assert pair.to_gateway.ended
    assert pair.consensus.barriers == 0
    pair.close()


@pytest.mark.parametrize(
    "message",
    [
        (FromGateway.BARRIER, 1, True, REMOTE_TIMEOUT_MS_MAX + 1),
        (FromGateway.PROPOSE, 1, True, REMOTE_TIMEOUT_MS_MAX + 1, b""),
        (FromGateway.READ, 1, 2, 1, [["k"] * (REMOTE_READS_PER_BATCH_MAX + 1)]),
        (FromGateway.READ, 1, 7, 1, [["k"]]),
        (FromGateway.VIEW_KEYS, 1, 1, ["k"] * (REMOTE_READS_PER_BATCH_MAX + 1)),
        (99,),
        ("x",),
        (FromGateway.LIST,),
    ],
)
async def test_what_is_not_understood_or_asks_for_too_much_ends_the_link(
    pair: RemotePair, message: tuple[object, ...]
) -> None:
    await pair.say(*message)
    assert pair.to_gateway.ended


async def test_what_a_gateway_can_make_the_node_hold_is_bounded(
    pair: RemotePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = pair.context.reads
    views = [await reads.open(Confirm.NOTHING, SECOND_MS, few=False) for _ in range(GRPC_READERS_MAX)]
    with pytest.raises(OverloadedError):
        await reads.open(Confirm.NOTHING, SECOND_MS, few=False)
    instants = [await reads.open(Confirm.NOTHING, SECOND_MS, few=True) for _ in range(GATEWAY_INSTANTS_MAX)]
    with pytest.raises(OverloadedError):
        await reads.open(Confirm.NOTHING, SECOND_MS, few=True)
    [end] = pair.gateways._ends
    assert end.reads._views_left() == REMOTE_VIEWS_MAX - GRPC_READERS_MAX
    for view in end.reads._views.values():
        view.used_at -= REMOTE_VIEW_IDLE_SECONDS_MAX + 1
    for instant in end.reads._instants.values():
        instant.used_at -= REMOTE_VIEW_IDLE_SECONDS_MAX + 1
    end.reads.end_idle()
    assert end.reads.views == 0
    with pytest.raises(ViewLostError):
        await reads.keys_of_view(instants[0], ("k",))
    with pytest.raises(ViewLostError):
        await reads.of_view(FromGateway.VIEW_PAGE, views[0], "", None)
    end._writes.asked = (REMOTE_REQUESTS_MAX, 0)
    with pytest.raises(OverloadedError):
        await write(pair, "k")
    end._writes.asked = (1, REMOTE_FORWARDED_SIZE_BYTES_MAX)
    with pytest.raises(OverloadedError):
        await write(pair, "k")
    monkeypatch.setattr("metasrv.gateway.remote_end.REMOTE_REQUESTS_MAX", 0)
    with pytest.raises(OverloadedError):
        await read(pair, "k")


async def test_an_instant_shows_what_was_there_when_it_was_opened(pair: RemotePair) -> None:
    await write(pair, "k", b"1")
    view = await pair.context.reads.open(Confirm.ANYWHERE, SECOND_MS, few=True)
    await write(pair, "k", b"2")
    [record] = await pair.context.reads.keys_of_view(view, ("k",))
    assert record is not None
    assert record.data == b"1"


async def test_the_end_of_the_link_ends_everything_and_another_link_goes_on(pair: RemotePair) -> None:
    watch = await pair.context.open_watch("k", None, WatchFilter.ALL, False)
    following = asyncio.create_task(watch.next_batch())
    pair.to_node.held = True
    writing, reading = asyncio.create_task(write(pair, "k")), asyncio.create_task(read(pair, "k"))
    await turns()
    pair.to_gateway.abort("the node was killed")
    with pytest.raises(UnknownOutcomeError):
        await writing
    with pytest.raises(PeerUnreachableError):
        await reading
    with pytest.raises(PeerUnreachableError, match="watch anew"):
        await following
    watch.close()
    assert not pair.gateway.standing[0]
    for refused in (write(pair, "k"), read(pair, "k"), pair.context.fresh_status(), pair.context.until_readable()):
        with pytest.raises(PeerUnreachableError, match="not linked to a node"):
            await refused
    assert pair.gateways.linked == 0
    pair.link()
    await pair.greet()
    await write(pair, "k", b"3")
    assert await read(pair, "k") == [b"3"]
    assert pair.gateway.standing[0]
    with pytest.raises(PeerUnreachableError):
        await watch.next_batch()


async def test_what_the_node_refuses_the_gateway_refuses(pair: RemotePair) -> None:
    pair.consensus.follow(2)
    [end] = pair.gateways._ends
    end.tell_changes(pair.consensus.status())
    await turns()
    assert pair.context.consensus.status().leader_id == 2
    with pytest.raises(NotLeaderError):
        await pair.context.reads.keys(("k",), Confirm.HERE, SECOND_MS)


async def test_changed_users_are_confirmed_or_the_link_is_cut(pair: RemotePair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.gateways.until_told()
    assert not pair.to_gateway.ended
    monkeypatch.setattr(remote_gateways, "TOLD_SECONDS_MAX", 0.0)
    pair.to_node.held = True
    await pair.gateways.until_told()
    assert pair.to_gateway.ended


async def test_what_is_larger_than_a_frame_goes_in_parts_and_has_a_bound(
    pair: RemotePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_link, "PART_SIZE_BYTES", 100)
    await write(pair, "k", bytes(range(256)) * 4)
    assert await read(pair, "k") == [bytes(range(256)) * 4]
    assert max(map(len, pair.to_node.sent[-10:])) == 101
    [end] = pair.gateways._ends
    end.link._message_size_bytes_max = 1_000
    with pytest.raises(UnknownOutcomeError, match="of more than 1000 bytes came together"):
        await write(pair, "k", bytes(2_000))
    assert pair.to_gateway.ended


async def test_a_part_of_another_kind_ends_the_link(pair: RemotePair) -> None:
    pair.to_node.send_gateway(b"\7" + b"x")
    await turns()
    assert pair.to_gateway.ended


async def test_a_gateway_that_says_nothing_is_given_up_unless_it_takes_what_waits_for_it(pair: RemotePair) -> None:
    [end] = pair.gateways._ends
    late = asyncio.get_running_loop().time() + remote_gateways.SILENCE_SECONDS_MAX + 1
    pair.to_gateway.held = True
    pair.to_gateway.send_gateway(b"x" * 100)
    pair.gateways._look_after(end, late - 1.5, False)
    pair.to_gateway.waiting[-1] = b"x"  # it has taken some
    pair.gateways._look_after(end, late, False)
    assert not pair.to_gateway.ended
    pair.gateways._look_after(end, late + remote_gateways.SILENCE_SECONDS_MAX + 0.5, False)
    assert pair.to_gateway.ended.startswith("it has shown no sign of life for 5.")


async def test_a_node_of_an_older_release_is_named_as_one() -> None:
    with pytest.raises(ValueError, match="is not a valid Role") as refused:
        Role(3)  # as an older node says of the role of a gateway
    gateway = RemoteGateway(Config(gateway_nodes=("host:1",)), "", PeerSecurity())
    gateway._say(Endpoint("host", 1), f"it refused: the handshake is not understood: {refused.value}")
    serves, sentence = gateway.standing
    assert not serves
    assert sentence.endswith("3 is not a valid Role; that node is of a release that knows no gateways on other machines")
