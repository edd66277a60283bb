"""Pipes of a breakable network over streams in memory: sound links change nothing, and harm is counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from metasrv.testing.link import QUEUED_BYTES_MAX, SOUND, Link, LinkFault, Pipe


class Stream:
    def __init__(self) -> None:
        self.written = b""
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Way:
    """A pipe with its ends."""

    def __init__(self, fault: LinkFault = SOUND) -> None:
        self.link = Link(random.Random(1), Counter())
        self.link.set_fault(fault)
        self.near, self.far = Stream(), Stream()
        self.resets = 0
        self.pipe = Pipe(self.link, self.near, self.far, self._reset)

    def _reset(self) -> None:
        self.resets += 1

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_sound_link_passes_bytes_at_once() -> None:
    way = Way()
    way.pipe.feed(b"abc")
    assert way.far.written == b"abc"
    assert not way.link.strikes


async def test_what_is_held_back_arrives_in_order_once_the_link_is_healed() -> None:
    way = Way(LinkFault(held=True))
    way.pipe.feed(b"one ")
    await way.settle()
    assert way.far.written == b""
    way.link.set_fault(SOUND)
    way.pipe.feed(b"two")
    await way.settle()
    assert way.far.written == b"one two"
    assert way.link.strikes["held back"] == 1


async def test_a_sender_is_stopped_while_too_much_waits() -> None:
    way = Way(LinkFault(held=True))
    way.pipe.feed(bytes(QUEUED_BYTES_MAX))
    assert not way.near.reading
    way.link.set_fault(SOUND)
    await way.settle()
    assert way.near.reading
    assert len(way.far.written) == QUEUED_BYTES_MAX


async def test_a_sender_is_stopped_while_the_target_is_full() -> None:
    way = Way()
    way.pipe.set_target_full(True)
    assert not way.near.reading
    way.pipe.set_target_full(False)
    assert way.near.reading


async def test_swallowed_bytes_never_arrive() -> None:
    way = Way(LinkFault(swallows=True))
    way.pipe.feed(b"abc")
    way.link.set_fault(SOUND)
    way.pipe.feed(b"def")
    await way.settle()
    assert way.far.written == b"def"


async def test_a_cut_passes_a_part_and_resets() -> None:
    way = Way(LinkFault(cut=1.0))
    way.pipe.feed(b"0123456789")
    await way.settle()
    assert way.resets == 1
    assert b"0123456789".startswith(way.far.written)
    assert way.far.written != b"0123456789"


@pytest.mark.parametrize(
    ("fault", "kind", "change"),
    [
        (LinkFault(corrupt=1.0), "bit flipped", 0),
        (LinkFault(shorten=1.0), "bytes missing", -1),
        (LinkFault(garbage=1.0), "garbage inserted", 1),
    ],
)
async def test_bytes_are_changed_removed_or_added(fault: LinkFault, kind: str, change: int) -> None:
    way = Way(fault)
    data = bytes(range(200))
    way.pipe.feed(data)
    await way.settle()
    size = len(way.far.written)
    assert way.far.written != data
    assert (size > len(data)) - (size < len(data)) == change
    assert way.link.strikes == Counter({kind: 1})


async def test_exactly_one_bit_is_flipped() -> None:
    way = Way(LinkFault(corrupt=1.0))
    way.pipe.feed(bytes(100))
    await way.settle()
    assert sum(byte.bit_count() for byte in way.far.written) == 1


async def test_a_pipe_that_stopped_delivers_nothing_more() -> None:
    way = Way(LinkFault(held=True))
    way.pipe.feed(b"abc")
    way.pipe.stop()
    way.link.set_fault(SOUND)
    await way.settle()
    assert way.far.written == b""
