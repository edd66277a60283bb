"""The byte streams of one simulated process, as its event loop shows them to the product's peer connections.

Does what the operating system and asyncio do for a socket: connects, with repeats, and accepts; takes what fits in the
system's buffer and keeps the rest; delivers what has arrived, in pieces unrelated to frames; reports the end after
everything before it. Knows bytes, not what they mean. Delays, cut paths and resets come from the network.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from metasrv.model.types import Endpoint
from metasrv.testing.memory_stream import MemoryTransport
from verification.simulation.loop import SimulatedLoop
from verification.simulation.network import CLOSED, Connection, Network
from verification.simulation.world import Wire

CONNECT_REPEAT_SECONDS = 1.0
"""An unanswered attempt to connect is repeated after this, then after twice as long, as Linux does."""
_FIRST_PORT = 32_768


class SimulatedStream(MemoryTransport):
    """One end of a connection. `outgoing` holds what the system's buffer had no room for."""

    def __init__(self, streams: Streams, connection: Connection, side: int) -> None:
        peer = connection.ends[1 - side].machine
        super().__init__(asyncio.Protocol(), f"node-{peer}")
        self.other: SimulatedStream
        """The same connection at its other end."""
        self._streams = streams
        self._loop = streams.loop
        self._connection = connection
        self._side = side
        self._room = streams.wire.buffer_bytes
        """Bytes that the system's buffer has room for."""
        self._arrived: list[bytes] = []
        self._ended = False
        """Whether the other side has closed; the protocol is told once it has read everything."""
        self._error: Exception | None = None
        self._started = False
        self._read_due = False
        self._transmit_due = False
        self._finished = False
        self._late: bytes | None = None
        """Bytes that the damaged network will deliver after the next ones."""

    # ------------------------------------------------------------------ called by the protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Use the history's own limit if it is lower, so that connections pause before megabytes wait."""
        limit = self._streams.wire.unsent_bytes_high
        if limit is not None and high is not None and limit < high:
            high, low = limit, limit // 4
        super().set_write_buffer_limits(high, low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing() or not data:  # as asyncio's own: nothing is sent for no bytes
            return
        if not self.outgoing and self._room > 0:
            sent = bytes(data[: self._room])
            self._send(sent)
            data = data[len(sent) :]
        if data:
            was_paused = self._paused
            super().write(data)
            if self._paused and not was_paused:
                self._streams.network.counts["connections paused"] += 1

    def resume_reading(self) -> None:
        super().resume_reading()
        self._read_soon()

    def close(self) -> None:
        if not self.is_closing():
            super().close()
            self._arrived.clear()
            if not self.outgoing:
                self._finish()

    def abort(self) -> None:
        super().abort()
        self._arrived.clear()
        self._finish()

    # ------------------------------------------------------------------ the process's loop

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """Begin as asyncio does: the protocol hears of its connection in the loop's next turn, and reads after that."""
        self.set_protocol(protocol)
        self._loop.call_soon(protocol.connection_made, self)
        self._loop.call_soon(self._start_reading)

    def _start_reading(self) -> None:
        self._started = True
        if self._error is not None:
            self._fail(self._error)
        else:
            self._read_soon()

    def _read_soon(self) -> None:
        if (self._arrived or self._ended) and self._started and self.reading and not self._read_due:
            self._read_due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_due = False
        if self.is_closing() or not self.reading:
            return
        if self._arrived:
            data = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
            self._arrived.clear()
            self.other.taken(len(data))
            self.receive(data)
        if self._ended and not self.is_closing() and self.reading:
            self._protocol.eof_received()
            self.outgoing.clear()  # nobody will read it: the other side has closed both directions
            self.close()

    def _transmit(self) -> None:
        self._transmit_due = False
        while self.outgoing and self._room > 0:
            self._send(self.take(self._room))
        if self.is_closing() and not self.outgoing:
            self._finish()

    def _fail(self, error: Exception) -> None:
        self.outgoing.clear()
        self.lose(error)

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._streams.finish(self._connection, self._side)
            self._loop.call_soon(self.lose)

    # ------------------------------------------------------------------ the system

    def arrived(self, data: bytes) -> None:
        """Bytes came for this end; the process reads them in its next turn."""
        if data:
            self._arrived.append(data)
            self._read_soon()

    def taken(self, size_bytes: int) -> None:
        """The other process has read this many bytes."""
        self._room += size_bytes
        if self.outgoing and not self._transmit_due:
            self._transmit_due = True
            self._loop.call_soon(self._transmit)

    def broken(self, reason: str) -> None:
        """The network closed this end."""
        if reason == CLOSED:
            self._ended = True
            self._read_soon()
            return
        self._error = ConnectionResetError(reason)
        if self._started:
            self._loop.call_soon(self._fail, self._error)

    def _send(self, data: bytes) -> None:
        network, source = self._streams.network, self._streams.source
        weather = network.weather
        breaks = bool(weather.breaks) and source.random() < weather.breaks
        if breaks:
            data = data[: source.randrange(len(data))]
        pieces = [data] if not self._streams.wire.splits else self._streams.split(data)
        if weather.damage or self._late is not None:
            pieces = self._damage(pieces)
        for piece in pieces:
            self._room -= len(piece)
            self._streams.note(self._connection, self._side, piece)
            network.send(self._connection, self._side, partial(self.other.arrived, piece))
        if breaks:
            network.send(self._connection, self._side, partial(network.reset, self._connection))

    def _damage(self, pieces: list[bytes]) -> list[bytes]:
        """What the damaged network delivers instead of these pieces."""
        source, share = self._streams.source, self._streams.network.weather.damage
        result: list[bytes] = []
        for piece in pieces:
            late, self._late = self._late, None
            if piece and source.random() < share:
                what = source.choice(("flip", "cut", "drop", "double", "insert", "late"))
                if what in ("cut", "drop", "late"):
                    self._streams.network.incomplete[self._connection] = None
                self._streams.network.counts["packets damaged"] += 1
                if what == "late":
                    self._late = piece
                else:
                    result += damaged(piece, what, source)
            else:
                result.append(piece)
            if late is not None:
                result.append(late)
        return result


def damaged(data: bytes, what: str, source: random.Random) -> list[bytes]:
    """Bytes with one kind of damage; half the time near their start, where frames have their lengths."""
    at = source.randrange(min(len(data), source.choice((8, len(data)))))
    match what:
        case "flip":
            return [data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :]]
        case "cut":
            return [data[:at] + data[at + source.randint(1, 20) :]]
        case "double":
            return [data, data]
        case "insert":
            return [data[:at] + source.randbytes(source.randint(1, 40)) + data[at:]]
    return []


class _Attempt:
    """An attempt to connect. `over` once the network has decided or the process gave up."""

    def __init__(self, endpoint: Endpoint, answered: asyncio.Future[SimulatedStream]) -> None:
        self.endpoint = endpoint
        self.answered = answered
        self.over = False
        self.connected: SimulatedStream | None = None

    def refuse(self) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionRefusedError(111, "Connection refused"))

    def succeed(self, stream: SimulatedStream) -> None:
        if self.answered.done():
            stream.abort()
        else:
            self.connected = stream
            self.answered.set_result(stream)


class Streams:
    """All streams of one process, listening and dialling. Implements the network's `End`."""

    def __init__(self, network: Network, machine: int, loop: SimulatedLoop, wire: Wire, source: random.Random) -> None:
        self.network = network
        self.machine = machine
        self.loop = loop
        self.wire = wire
        self.source = source
        self._open: dict[tuple[int, int], SimulatedStream] = {}
        self._factories: dict[Endpoint, Callable[[], asyncio.BaseProtocol]] = {}

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    async def resolved(self, host: str) -> None:
        """Return when the name is known; raises OSError, or never returns, when the look-up fails."""
        unresolved = self.network.weather.unresolved
        if unresolved and self.source.random() < unresolved:
            if self.source.random() < 0.5:
                await self.loop.create_future()
            raise OSError(f"the name {host} is not known")
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ accepting

    def listen(self, endpoint: Endpoint, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._factories[endpoint] = make_protocol
        self.network.listen(endpoint, self)

    def unlisten(self, endpoint: Endpoint) -> None:
        self._factories.pop(endpoint, None)
        self.network.unlisten(endpoint, self)

    def accept(self, endpoint: Endpoint, stream: SimulatedStream) -> None:
        """A connection is established; the process accepts it in its next turn."""
        self.loop.call_soon(self._accept, endpoint, stream)

    def _accept(self, endpoint: Endpoint, stream: SimulatedStream) -> None:
        make_protocol = self._factories.get(endpoint)
        if make_protocol is None:
            stream.abort()
        else:
            stream.start(make_protocol())

    # ------------------------------------------------------------------ dialling

    async def connect(self, endpoint: Endpoint) -> SimulatedStream:
        """A stream that is not started yet. Raises ConnectionRefusedError; never returns while nobody answers."""
        attempt = _Attempt(endpoint, self.loop.create_future())
        self._knock(attempt, CONNECT_REPEAT_SECONDS)
        try:
            return await attempt.answered
        except asyncio.CancelledError:
            attempt.over = True
            if attempt.connected is not None:
                attempt.connected.abort()
            raise

    def _knock(self, attempt: _Attempt, repeat_seconds: float) -> None:
        if attempt.over or not self.alive:
            return
        network, scheduler = self.network, self.network.scheduler
        home = network.home(attempt.endpoint)
        if home is None:  # nobody has ever listened there
            self.loop.call_soon(attempt.refuse)
            return
        scheduler.after(network.delay(self.machine, home), self._knocked, attempt, home)
        scheduler.after(repeat_seconds, self._knock, attempt, 2 * repeat_seconds)

    def _knocked(self, attempt: _Attempt, home: int) -> None:
        """The request to connect has crossed the path, unless that is cut or the machine has no power."""
        network = self.network
        if network.is_cut(self.machine, home) or network.is_dark(home):
            return
        network.scheduler.after(network.delay(home, self.machine), self._answered, attempt, home)

    def _answered(self, attempt: _Attempt, home: int) -> None:
        """The answer has come back: a connection, or a refusal."""
        network = self.network
        if attempt.over or not self.alive or network.is_cut(home, self.machine):
            return
        attempt.over = True
        target = network.listener(attempt.endpoint)
        if not isinstance(target, Streams):
            self.loop.call_soon(attempt.refuse)
            return
        connection = network.connect(self, target)
        here, there = self._new(connection, 0), target._new(connection, 1)
        here.other, there.other = there, here
        network.send(connection, 0, partial(target.accept, attempt.endpoint, there))
        self.loop.call_soon(attempt.succeed, here)

    def _new(self, connection: Connection, side: int) -> SimulatedStream:
        stream = self._open[connection.number, side] = SimulatedStream(self, connection, side)
        return stream

    # ------------------------------------------------------------------ for the streams

    def split(self, data: bytes) -> list[bytes]:
        """The pieces in which one write arrives."""
        if len(data) < 2 or self.source.random() >= self.wire.splits:
            return [data]
        at = self.source.randrange(1, len(data))
        return [data[:at], data[at:]]

    def note(self, connection: Connection, side: int, data: bytes) -> None:
        """Note a packet in the trace, when the whole trace is wanted."""
        if self.network.note_packet is not None:
            self.network.note_packet(connection.number, side, data)

    def finish(self, connection: Connection, side: int) -> None:
        """Close a stream in order, for its process; a dead process sends nothing any more."""
        self._open.pop((connection.number, side), None)
        if self.alive:
            self.network.finish(connection, side)

    def connection_broken(self, connection: Connection, side: int, reason: str) -> None:
        stream = self._open.pop((connection.number, side), None)
        if stream is not None:
            stream.broken(reason)
