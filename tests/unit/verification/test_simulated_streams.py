"""The byte streams of simulated processes: order, pieces, buffers, ends, resets, connecting through a broken network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from itertools import pairwise
from typing import TypeVar

import pytest

from metasrv.model.types import Endpoint
from verification.simulation.loop import forget_running_loop
from verification.simulation.network import KEEPALIVE_SECONDS, UNACKNOWLEDGED_SECONDS_MAX, Network, Weather
from verification.simulation.networked_loop import NetworkedLoop, listening_socket
from verification.simulation.scheduler import Scheduler
from verification.simulation.streams import CONNECT_REPEAT_SECONDS, SimulatedStream, Streams, damaged
from verification.simulation.world import Wire

T = TypeVar("T")

HOME = Endpoint("node-2", 28103)


class Recorder(asyncio.Protocol):
    """What a protocol is told."""

    def __init__(self) -> None:
        self.stream: SimulatedStream
        self.reads: list[bytes] = []
        self.paused = False
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimulatedStream)
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        assert not self.lost
        self.reads.append(data)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    @property
    def got(self) -> bytes:
        return b"".join(self.reads)


class World:
    """Two processes, 1 and 2; the second listens."""

    def __init__(self, wire: Wire) -> None:
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, random.Random(1))
        self.near, self.far = (self._process(machine, wire) for machine in (1, 2))
        self.dialled = Recorder()
        self.accepted: list[Recorder] = []

    def _process(self, machine: int, wire: Wire) -> NetworkedLoop:
        loop = NetworkedLoop(self.scheduler, pytest.fail)
        loop.streams = Streams(self.network, machine, loop, wire, random.Random(machine))
        return loop

    def _accept(self) -> Recorder:
        self.accepted.append(Recorder())
        return self.accepted[-1]

    def run(self, awaitable: Awaitable[T], seconds: float = 60.0) -> T:
        async def body() -> T:
            return await awaitable

        task: asyncio.Task[T] = self.near.create_task(body())
        assert self.scheduler.run(self.scheduler.now + seconds, task.done), "it did not end"
        return task.result()

    def wait(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now + seconds, lambda: False)

    def listen(self) -> None:
        listening = listening_socket(2, (HOME.addr, HOME.port), 1)
        self.far.start_accepting("raft", listening, self._accept, lambda: None, None)

    def connect(self) -> Recorder:
        """Dial; returns the protocol that accepted."""
        self.listen()
        self.run(self.near.create_connection(lambda: self.dialled, HOME.addr, HOME.port, ssl=None))
        self.wait(0.1)
        return self.accepted[-1]


@pytest.fixture
def world() -> Iterator[World]:
    yield World(Wire())
    forget_running_loop()


def test_bytes_arrive_in_order_and_once(world: World) -> None:
    accepted = world.connect()
    world.network.weather = Weather(jitter_seconds=0.2)
    sent = [bytes([number]) * 3 for number in range(50)]
    for piece in sent:
        world.dialled.stream.write(piece)
    world.wait(1.0)
    assert accepted.got == b"".join(sent)


def test_what_was_written_at_once_may_be_read_in_pieces() -> None:
    world = World(Wire(splits=1.0))
    accepted = world.connect()
    for _ in range(20):
        world.dialled.stream.write(b"0123456789")
        world.wait(0.01)
    assert accepted.got == b"0123456789" * 20
    assert len(accepted.reads) > 20
    forget_running_loop()


def test_a_full_buffer_pauses_the_writer_and_an_empty_one_resumes_it() -> None:
    world = World(Wire(buffer_bytes=10, unsent_bytes_high=20))
    accepted = world.connect()
    stream = world.dialled.stream
    stream.set_write_buffer_limits(high=1_000, low=500)
    world.network.cut(1, 2)
    stream.write(b"a" * 30)
    assert not world.dialled.paused
    stream.write(b"b")
    assert world.dialled.paused
    assert stream.get_write_buffer_size() == 21
    world.network.mend(1, 2)
    world.wait(2.0)
    assert not world.dialled.paused
    assert accepted.got == b"a" * 30 + b"b"


def test_a_reader_that_pauses_is_told_nothing_until_it_goes_on(world: World) -> None:
    accepted = world.connect()
    accepted.stream.pause_reading()
    world.dialled.stream.write(b"all of it")
    world.dialled.stream.close()
    world.wait(1.0)
    assert accepted.reads == []
    assert accepted.lost == []
    accepted.stream.resume_reading()
    world.wait(1.0)
    assert (accepted.got, accepted.lost) == (b"all of it", [None])


def test_an_end_comes_after_everything_that_was_sent(world: World) -> None:
    accepted = world.connect()
    world.network.weather = Weather(jitter_seconds=0.2)
    world.dialled.stream.write(b"the last words")
    world.dialled.stream.close()
    world.wait(1.0)
    assert (accepted.got, accepted.lost) == (b"the last words", [None])
    assert world.dialled.lost == [None]


def test_a_closed_stream_first_sends_what_waits() -> None:
    world = World(Wire(buffer_bytes=4))
    accepted = world.connect()
    world.dialled.stream.write(b"longer than the buffer")
    world.dialled.stream.close()
    assert world.dialled.lost == []
    world.wait(1.0)
    assert accepted.got == b"longer than the buffer"
    assert world.dialled.lost == accepted.lost == [None]
    forget_running_loop()


def test_an_aborted_stream_drops_what_waits() -> None:
    world = World(Wire(buffer_bytes=4))
    accepted = world.connect()
    world.dialled.stream.write(b"longer than the buffer")
    world.dialled.stream.abort()
    world.wait(1.0)
    assert accepted.got == b"long"
    assert world.dialled.lost == accepted.lost == [None]
    forget_running_loop()


def test_a_writer_whose_peer_has_closed_loses_the_connection_with_all_that_waits() -> None:
    world = World(Wire(buffer_bytes=4))
    accepted = world.connect()
    accepted.stream.pause_reading()
    world.dialled.stream.write(b"longer than the buffer")
    world.wait(0.1)
    accepted.stream.close()
    world.wait(0.1)
    assert world.dialled.lost == [None]
    forget_running_loop()


def test_a_reset_is_an_error_at_both_ends(world: World) -> None:
    accepted = world.connect()
    [connection] = world.network._connections.values()
    world.network.reset(connection)
    world.wait(0.1)
    assert [type(error) for error in (*world.dialled.lost, *accepted.lost)] == [ConnectionResetError] * 2


def test_what_a_cut_path_held_back_arrives_before_what_was_sent_later(world: World) -> None:
    """Otherwise a mended path reorders the bytes of a connection, which no TCP does."""
    accepted = world.connect()
    for number in range(200):
        world.dialled.stream.write(b"%04d" % number)
        if number % 40 == 10:
            world.network.slow_paths[1, 2] = 0.3
            world.network.cut(1, 2)
        if number % 40 == 30:
            world.network.mend(1, 2)
            world.network.slow_paths.clear()
        world.wait(0.02)
    world.wait(2.0)
    assert accepted.got == b"".join(b"%04d" % number for number in range(200))


def test_bytes_that_nobody_acknowledges_end_the_connection(world: World) -> None:
    world.connect()
    world.network.cut(1, 2)
    world.dialled.stream.write(b"into the void")
    world.wait(UNACKNOWLEDGED_SECONDS_MAX - 0.1)
    assert world.dialled.lost == []
    world.wait(0.2)
    assert [type(error) for error in world.dialled.lost] == [ConnectionResetError]


def test_the_bytes_of_a_killed_process_may_still_arrive_or_be_lost_with_it() -> None:
    seen = set()
    for seed in range(20):
        world = World(Wire())
        world.network.source = random.Random(seed)
        accepted = world.connect()
        world.network.cut(1, 2)
        world.dialled.stream.write(b"last words")
        world.wait(0.1)
        world.near.kill()
        world.network.process_ended(world.near.streams, power_lost=False)
        world.network.mend(1, 2)
        world.wait(2.0)
        assert accepted.lost == [None]
        assert world.dialled.lost == []
        seen.add(accepted.got)
    assert seen == {b"", b"last words"}
    forget_running_loop()


def test_lost_power_is_found_out_by_the_keepalive(world: World) -> None:
    accepted = world.connect()
    world.near.kill()
    world.network.power(1, False)
    world.network.process_ended(world.near.streams, power_lost=True)
    world.wait(KEEPALIVE_SECONDS - 0.1)
    assert accepted.lost == []
    world.wait(UNACKNOWLEDGED_SECONDS_MAX + 0.2)
    assert [type(error) for error in accepted.lost] == [ConnectionResetError]


def test_a_port_on_which_nobody_listens_any_more_refuses(world: World) -> None:
    world.connect()
    world.far.streams.unlisten(HOME)
    with pytest.raises(ConnectionRefusedError):
        world.run(world.near.create_connection(Recorder, HOME.addr, HOME.port, ssl=None))


def test_an_attempt_to_connect_is_repeated_until_the_path_is_mended(world: World) -> None:
    world.listen()
    world.network.cut(2, 1)
    world.scheduler.after(CONNECT_REPEAT_SECONDS / 2, world.network.mend, 2, 1)
    world.run(world.near.create_connection(lambda: world.dialled, HOME.addr, HOME.port, ssl=None))
    assert CONNECT_REPEAT_SECONDS < world.scheduler.now < CONNECT_REPEAT_SECONDS + 0.1


@pytest.mark.parametrize("after_seconds", [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.5])
def test_an_attempt_that_is_given_up_leaves_no_connection_behind(world: World, after_seconds: float) -> None:
    world.listen()
    attempt = world.near.create_task(world.near.create_connection(lambda: world.dialled, HOME.addr, HOME.port, ssl=None))
    if after_seconds == 0.5:
        world.network.cut(1, 2)
    world.wait(after_seconds)
    established = attempt.done()
    attempt.cancel()
    world.network.mend_all()
    world.wait(5.0)
    assert established or all(recorder.lost for recorder in world.accepted)


def test_a_look_up_fails_or_is_never_answered(world: World) -> None:
    world.network.weather = Weather(unresolved=1.0)

    async def look_up() -> str:
        try:
            async with asyncio.timeout(1.0):
                await world.near.getaddrinfo("node-2", 1)
        except OSError as error:
            return "late" if isinstance(error, TimeoutError) else "failed"
        return "found"

    assert {world.run(look_up()) for _ in range(20)} == {"late", "failed"}


@pytest.mark.parametrize("what", ["flip", "cut", "drop", "double", "insert"])
def test_damage_changes_what_arrives(what: str) -> None:
    for seed in range(50):
        assert b"".join(damaged(b"a frame", what, random.Random(seed))) != b"a frame"


def test_a_damaged_stream_loses_doubles_and_reorders_what_was_sent(world: World) -> None:
    accepted = world.connect()
    world.network.weather = Weather(damage=0.5)
    sent = [b"<%03d>" % number for number in range(100)]
    for piece in sent:
        world.dialled.stream.write(piece)
        world.wait(0.01)
    got = accepted.got
    assert any(got.count(piece) == 2 for piece in sent)
    assert any(piece not in got for piece in sent)
    whole = [int(got[at + 1 : at + 4]) for at in range(len(got)) if got[at : at + 5] in sent]
    assert any(later < earlier for earlier, later in pairwise(whole))


def test_a_break_delivers_some_bytes_and_then_resets(world: World) -> None:
    accepted = world.connect()
    world.network.weather = Weather(breaks=1.0)
    world.dialled.stream.write(b"0123456789" * 10)
    world.wait(0.1)
    assert (b"0123456789" * 10).startswith(accepted.got)
    assert len(accepted.got) < 100
    assert [type(error) for error in accepted.lost] == [ConnectionResetError]


def test_no_bytes_are_no_write(world: World) -> None:
    """A caller that says nothing must not break what breaks at a byte."""
    accepted = world.connect()
    world.network.weather = Weather(breaks=1.0)
    world.dialled.stream.write(b"")
    world.wait(0.1)
    assert accepted.got == b""
    assert accepted.lost == []
