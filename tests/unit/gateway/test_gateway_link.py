"""The link itself: frames, bounds, and what crosses it as a tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.gateway import service
from metasrv.gateway.beginning import config_in, config_out
from metasrv.gateway.link import Link
from metasrv.gateway.messages import checked, pulse_in, record_in, registry_in
from metasrv.gateway.service import gateway_count
from metasrv.gateway.statuses import status_in, status_out
from metasrv.model.errors import CodecError
from metasrv.model.limits import GATEWAY_FRAME_SIZE_BYTES_MAX, GATEWAY_UNSENT_SIZE_BYTES_MAX, GATEWAYS_MAX
from metasrv.model.types import CompactionStatus
from metasrv.model.wire import pack, unpack
from metasrv.testing.fake_node import leader_status, sample_status
from tests.support.gateway_pair import MemoryTransport


class End:
    """One end, and what came of it."""

    def __init__(self) -> None:
        self.frames: list[tuple[Any, ...]] = []
        self.lost: list[str] = []
        self.link = Link(self.frames.append, self.lost.append)
        self.transport = MemoryTransport()
        self.link.connection_made(self.transport)  # type: ignore[arg-type]  # what a link uses of a transport


async def test_all_messages_of_one_turn_leave_in_one_write_and_arrive_in_any_pieces() -> None:
    end, other = End(), End()
    for number in range(100):
        end.link.send((number, b"x"))
    await asyncio.sleep(0)
    [frame] = end.transport.written
    for place in range(len(frame)):
        other.link.data_received(frame[place : place + 1])
    other.link.data_received(frame + frame)
    assert [len(messages) for messages in other.frames] == [100, 100, 100]
    assert other.frames[0][99] == (99, b"x")


async def test_a_large_message_does_not_wait_for_the_others_of_its_turn() -> None:
    end = End()
    for _ in range(3):
        end.link.send((1, bytes(700_000)), 700_000)
    await asyncio.sleep(0)
    assert len(end.transport.written) == 2


@pytest.mark.parametrize("frame", [b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x01\x01", b"\xff\xff\xff\xff"])
async def test_what_is_no_frame_cuts_the_link(frame: bytes) -> None:
    assert int.from_bytes(b"\xff\xff\xff\xff", "big") > GATEWAY_FRAME_SIZE_BYTES_MAX
    end = End()
    end.link.data_received(frame)
    assert end.transport.aborted
    assert len(end.lost) == 1
    end.link.connection_lost(None)
    assert len(end.lost) == 1, "an end is told once"


async def test_an_end_that_takes_nothing_is_cut_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.gateway.link.GATEWAY_UNSENT_SIZE_BYTES_MAX", 1_000)
    end = End()
    end.transport.held = True
    end.link.send((1, bytes(900)))
    await asyncio.sleep(0)
    assert end.lost == []
    end.link.send((1, bytes(200)))
    await asyncio.sleep(0)
    assert end.lost == ["more than 1000 bytes wait to be taken"]
    await end.link.until_taken()
    assert GATEWAY_UNSENT_SIZE_BYTES_MAX > GATEWAY_FRAME_SIZE_BYTES_MAX


def test_a_status_crosses_unchanged() -> None:
    compaction = CompactionStatus("log", 3, {"state_database": 1}, {"state_database": 2}, "why")
    for status in (leader_status(), sample_status(), leader_status(compaction=compaction, drained=True)):
        assert status_in(unpack(pack(status_out(status)))) == status
    with pytest.raises(CodecError):
        status_in(unpack(pack(status_out(leader_status())[:-1])))


def test_the_configuration_crosses_without_the_secrets_that_a_gateway_has_no_use_for() -> None:
    secret = SecretText("sesame")
    raft = RaftConfig(raft_secret=SecretText("of-peers"), raft_accepted_secrets=(SecretText("an-older-one"),))
    config = Config(grpc_password=secret, admin_token=SecretText("of-admins"), raft_config=raft, grpc_gateways="2")
    data = pack(config_out(config))
    assert not any(word in data for word in (b"of-peers", b"an-older-one", b"of-admins"))
    read = config_in(unpack(data))
    assert read.grpc_password is not None
    assert read.grpc_password.get_secret_value() == "sesame"
    assert read.grpc_gateways == "2"


def test_trees_of_another_shape_are_refused() -> None:
    trees: list[object] = [1, (), (None, (), (None, 0), {}), (None, (1,), (None, 0, 0), {})]
    for wrong in trees:
        with pytest.raises(CodecError):
            registry_in(wrong)
    with pytest.raises(CodecError):
        pulse_in((True, True, False, -1, 0))
    with pytest.raises(CodecError):
        checked(lambda: record_in((1, "text", None)))


@pytest.mark.parametrize(
    ("configured", "processors", "count"),
    [("0", 64, 0), ("3", 1, 3), ("auto", 1, 0), ("auto", 2, 0), ("auto", 3, 2), ("auto", 4, 3), ("auto", 64, 4)],
)
def test_how_many_gateways_a_node_has(
    monkeypatch: pytest.MonkeyPatch, configured: str, processors: int, count: int
) -> None:
    monkeypatch.setattr(service, "usable_processors", lambda: processors)
    assert gateway_count(configured) == count
    assert gateway_count("99") == GATEWAYS_MAX


@pytest.mark.parametrize("wrong", ["-1", "17", "many", 17])
def test_a_number_of_gateways_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="grpc_gateways"):
        Config.model_validate({"grpc_gateways": wrong})
    assert Config.model_validate({"grpc_gateways": 2}).grpc_gateways == "2"
