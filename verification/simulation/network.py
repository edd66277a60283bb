"""The virtual network: connections between machines, with latency, and every fault a network has.

A connection keeps its order and loses nothing while it lives, as TCP does: a lost packet is a delay, and a cut path
holds everything back until it is mended or the sender gives up. `wild` breaks that on purpose: messages are dropped,
doubled and reordered. Carries callbacks from one end to the other; knows machines and connections, not contents.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from metasrv.model.types import Endpoint
from verification.simulation.scheduler import Scheduler

UNACKNOWLEDGED_SECONDS_MAX = 3.0
"""After this, a connection whose bytes are not acknowledged is given up; as `connection.UNACKNOWLEDGED_MS_MAX`."""
RETRANSMISSION_SECONDS = 0.2
"""A lost packet is sent again after this; packets held back by a cut path, within twice this after it is mended."""
ORDERLY_DEATH_SHARE = 0.5
"""Share of a killed process's connections whose kernel still delivers what was sent; the others are reset."""
CLOSED = "the other side closed the connection"
KEEPALIVE_SECONDS = 5.0
"""How often an idle connection is probed; as in `connection.py`."""


class End(Protocol):
    """One process's side of the network."""

    machine: int

    @property
    def alive(self) -> bool: ...

    def connection_broken(self, connection: Connection, side: int, reason: str) -> None:
        """This process's `side` of a connection is closed; `CLOSED` when the other side let go in order."""
        ...


@dataclass(slots=True)
class Weather:
    """Delays, losses and damage on all paths."""

    latency_seconds: float = 0.0004
    jitter_seconds: float = 0.0006
    loss: float = 0.0
    """Share of packets that come only after a retransmission."""
    wild: float = 0.0
    """Share of raft messages that are dropped, doubled or delayed past their successors."""
    damage: float = 0.0
    """Share of packets of a byte stream that arrive changed, twice, too late or not at all, unnoticed by TCP."""
    breaks: float = 0.0
    """Share of writes to a byte stream of which only the first bytes arrive before the connection is reset."""
    unresolved: float = 0.0
    """Share of look-ups of a host name that fail or are never answered."""


class Connection:
    """Two directions between the process that dialled (side 0) and the one that accepted (side 1)."""

    __slots__ = ("arrival", "ends", "giving_up", "number", "open", "releasing", "stalled", "stalled_at")

    def __init__(self, number: int, dialler: End, acceptor: End) -> None:
        self.number = number
        self.ends = (dialler, acceptor)
        self.open = [True, True]
        self.arrival = [0.0, 0.0]
        """When the last thing sent by each side arrives."""
        self.stalled: tuple[deque[Callable[[], None]], deque[Callable[[], None]]] = (deque(), deque())
        """What each side sent and a cut path holds back."""
        self.stalled_at = [0.0, 0.0]
        """Since when each side's has been."""
        self.giving_up = [False, False]
        self.releasing = [False, False]


class Network:
    """All paths between machines. Machine 0 is where the clients are."""

    def __init__(self, scheduler: Scheduler, source: random.Random) -> None:
        self.scheduler = scheduler
        self.source = source
        self.weather = Weather()
        self._weathers: list[Weather] = []
        """The weather of every fault that is not over; the last one holds."""
        self.slow_paths: dict[tuple[int, int], float] = {}
        """Extra seconds on some directed paths."""
        self._cut: set[tuple[int, int]] = set()
        self._dark: set[int] = set()
        self._homes: dict[Endpoint, int] = {}
        """The machine behind each endpoint on which somebody has listened."""
        self._listeners: dict[Endpoint, End] = {}
        self._connections: dict[int, Connection] = {}
        self.incomplete: dict[Connection, None] = {}
        """Connections on which bytes were lost: somebody may wait for these forever."""
        self._numbers = 0
        self.messages = 0
        self.counts: Counter[str] = Counter()
        """What happened to connections, for figures."""
        self.note_message: Callable[[int, int, bytes], None] | None = None
        """Hears of every raft message that is sent, from and to which node, when the whole trace is wanted."""
        self.note_packet: Callable[[int, int, bytes], None] | None = None
        """Hears of the bytes that each side of each connection sends, when the whole trace is wanted."""

    # ------------------------------------------------------------------ paths

    def cut(self, from_machine: int, to_machine: int) -> None:
        """Let nothing through in this direction."""
        self._cut.add((from_machine, to_machine))

    def mend(self, from_machine: int, to_machine: int) -> None:
        self._cut.discard((from_machine, to_machine))
        self._flush()

    def mend_all(self) -> None:
        self._cut.clear()
        self.slow_paths.clear()
        self._weathers.clear()
        self.weather = Weather()
        self.reset_incomplete()
        self._flush()

    @contextmanager
    def under(self, weather: Weather) -> Iterator[None]:
        """Have this weather until the end of the block, unless another begins later."""
        self._weathers.append(weather)
        self.weather = weather
        try:
            yield
        finally:
            self._weathers = [other for other in self._weathers if other is not weather]
            self.weather = self._weathers[-1] if self._weathers else Weather()

    def power(self, machine: int, on: bool) -> None:
        """Switch a machine on or off; without power it does not even answer with a reset."""
        if on:
            self._dark.discard(machine)
        else:
            self._dark.add(machine)

    def is_dark(self, machine: int) -> bool:
        return machine in self._dark

    def is_cut(self, from_machine: int, to_machine: int) -> bool:
        return (from_machine, to_machine) in self._cut

    def delay(self, from_machine: int, to_machine: int) -> float:
        weather, source = self.weather, self.source
        seconds = weather.latency_seconds + weather.jitter_seconds * source.random()
        if weather.loss and source.random() < weather.loss:
            seconds += RETRANSMISSION_SECONDS
        if self.slow_paths:
            seconds += self.slow_paths.get((from_machine, to_machine), 0.0) * source.random()
        return seconds

    # ------------------------------------------------------------------ listening and dialling

    def listen(self, endpoint: Endpoint, end: End) -> None:
        self._listeners[endpoint] = end
        self._homes[endpoint] = end.machine

    def unlisten(self, endpoint: Endpoint, end: End) -> None:
        if self._listeners.get(endpoint) is end:
            del self._listeners[endpoint]

    def home(self, endpoint: Endpoint) -> int | None:
        """The machine behind an endpoint, whether anybody listens there or not."""
        return self._homes.get(endpoint)

    def listener(self, endpoint: Endpoint) -> End | None:
        return self._listeners.get(endpoint)

    def connect(self, dialler: End, acceptor: End) -> Connection:
        self._numbers += 1
        self.counts["connections"] += 1
        connection = self._connections[self._numbers] = Connection(self._numbers, dialler, acceptor)
        return connection

    # ------------------------------------------------------------------ what travels

    def send(self, connection: Connection, side: int, deliver: Callable[[], None], *, raft: bool = False) -> None:
        """Call `deliver` when this arrives at the other side, unless the connection breaks before."""
        if not connection.open[side]:
            return
        self.messages += 1
        sender, receiver = connection.ends[side].machine, connection.ends[1 - side].machine
        when = self.scheduler.now + self.delay(sender, receiver)
        if raft and self.weather.wild and self.source.random() < self.weather.wild:
            self._send_wild(connection, side, deliver)
            return
        when = connection.arrival[side] = max(when, connection.arrival[side])
        self.scheduler.at(when, self._arrive, connection, side, deliver)

    def _send_wild(self, connection: Connection, side: int, deliver: Callable[[], None]) -> None:
        for _ in range(self.source.choice((0, 1, 2, 2))):
            late = self.scheduler.now + self.source.random() * self.source.choice((0.003, 0.05, 0.5))
            self.scheduler.at(late, self._arrive, connection, side, deliver)

    def _arrive(self, connection: Connection, side: int, deliver: Callable[[], None]) -> None:
        sender, receiver = connection.ends[side], connection.ends[1 - side]
        if not connection.open[1 - side] or not receiver.alive:
            self._answer_reset(connection, side)
            return
        if (sender.machine, receiver.machine) in self._cut or connection.stalled[side]:
            if not connection.stalled[side]:
                connection.stalled_at[side] = self.scheduler.now
            connection.stalled[side].append(deliver)
            self._give_up_later(connection, side)
            return
        deliver()

    def _answer_reset(self, connection: Connection, side: int) -> None:
        """Bytes arrived for a connection that is gone: its machine says so, if it has power and a way back."""
        sender, receiver = connection.ends[side], connection.ends[1 - side]
        if receiver.machine in self._dark or self.is_cut(receiver.machine, sender.machine):
            self._give_up_later(connection, side)
            return
        seconds = self.delay(receiver.machine, sender.machine)
        self.scheduler.after(seconds, self.close, connection, side, "the other side reset it")

    def _give_up_later(self, connection: Connection, side: int) -> None:
        if connection.giving_up[side]:
            return
        connection.giving_up[side] = True

        def give_up() -> None:
            connection.giving_up[side] = False
            stalled, receiver = connection.stalled[side], connection.ends[1 - side]
            if stalled and self.scheduler.now - connection.stalled_at[side] < UNACKNOWLEDGED_SECONDS_MAX * 0.99:
                self._give_up_later(
                    connection, side
                )  # this has been held back for less: the earlier packets have arrived meanwhile
            elif connection.open[side]:
                if stalled or not receiver.alive or not connection.open[1 - side]:
                    self.close(connection, side, "nobody acknowledged what was sent")
            elif stalled:  # its process closed it long ago; the other side has to find out by itself
                stalled.clear()
                self._probe_later(connection, 1 - side)

        since = connection.stalled_at[side] if connection.stalled[side] else self.scheduler.now
        self.scheduler.at(since + UNACKNOWLEDGED_SECONDS_MAX, give_up)

    def _flush(self) -> None:
        """Paths were mended: send what was held back on them again, after a while."""
        for connection in list(self._connections.values()):
            for side in (0, 1):
                sender, receiver = connection.ends[side].machine, connection.ends[1 - side].machine
                if connection.stalled[side] and not connection.releasing[side] and (sender, receiver) not in self._cut:
                    connection.releasing[side] = True
                    seconds = self.delay(sender, receiver) + 2 * RETRANSMISSION_SECONDS * self.source.random()
                    self.scheduler.after(seconds, self._release, connection, side)

    def _release(self, connection: Connection, side: int) -> None:
        """Deliver what was held back, and what has queued behind it since."""
        connection.releasing[side] = False
        held = connection.stalled[side]
        sender, receiver = connection.ends[side].machine, connection.ends[1 - side].machine
        if not held or (sender, receiver) in self._cut:
            return
        waiting = list(held)
        held.clear()
        for deliver in waiting:
            self._arrive(connection, side, deliver)

    # ------------------------------------------------------------------ endings

    def close(self, connection: Connection, side: int, reason: str) -> None:
        """Close one side; the other hears of it when path and power allow, perhaps before what is under way."""
        if not connection.open[side]:
            return
        connection.open[side] = False
        connection.stalled[side].clear()
        end = connection.ends[side]
        if end.alive:
            end.connection_broken(connection, side, reason)
        self._tell_other(connection, side)

    def finish(self, connection: Connection, side: int) -> None:
        """Close one side in order: what it has sent arrives first, and then the end."""
        if not connection.open[side]:
            return
        other = 1 - side
        self.send(connection, side, lambda: self.close(connection, other, CLOSED))
        connection.open[side] = False
        if not connection.open[other]:
            self._connections.pop(connection.number, None)

    def _tell_other(self, connection: Connection, side: int) -> None:
        other = 1 - side
        if not connection.open[other]:
            self._connections.pop(connection.number, None)
            return
        sender, receiver = connection.ends[side].machine, connection.ends[other].machine
        if sender in self._dark:
            return

        def arrive() -> None:
            if (sender, receiver) in self._cut:
                self.scheduler.after(RETRANSMISSION_SECONDS, arrive)
                return
            self.close(connection, other, CLOSED)

        self.scheduler.after(self.delay(sender, receiver), arrive)

    def break_some(self, source: random.Random) -> None:
        """Reset about half of all connections, at both ends at once."""
        for connection in list(self._connections.values()):
            if source.random() < 0.5:
                self.reset(connection)

    def reset_incomplete(self) -> None:
        """End the connections on which bytes were lost, as a middle box would that lost them."""
        incomplete, self.incomplete = self.incomplete, {}
        for connection in incomplete:
            self.reset(connection)

    def reset(self, connection: Connection) -> None:
        """Both ends hear at once that the connection is gone."""
        self.counts["connections reset"] += any(connection.open)
        for side in (0, 1):
            self.close(connection, side, "it was reset on the way")

    def process_ended(self, end: End, *, power_lost: bool) -> None:
        """Close the connections of a dead process; its kernel tells the others, unless the power is lost as well."""
        for endpoint, listener in list(self._listeners.items()):
            if listener is end:
                del self._listeners[endpoint]
        for connection in list(self._connections.values()):
            for side in (0, 1):
                if connection.ends[side] is not end:
                    continue
                was_open = connection.open[side]
                if was_open and not power_lost and self.source.random() < ORDERLY_DEATH_SHARE:
                    self.finish(connection, side)
                    continue
                connection.open[side] = False
                if power_lost:
                    connection.stalled[side].clear()
                    self._probe_later(connection, 1 - side)
                elif was_open:
                    connection.stalled[side].clear()
                    self._tell_other(connection, side)

    def _probe_later(self, connection: Connection, side: int) -> None:
        """Probe an idle connection later: nobody has said that its other side is gone."""

        def probe() -> None:
            if connection.open[side]:
                self._answer_reset(connection, side)

        self.scheduler.after(KEEPALIVE_SECONDS, probe)
