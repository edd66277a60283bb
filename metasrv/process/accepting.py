"""Accepts the connections of one listening socket, with bounds on what strangers may hold before they have said a word.

The event loop's own server knows nothing of a connection until its TLS handshake is over, and closes for good, or drops
callers silently, when the process has no descriptor left. Here unfinished handshakes are counted, have a time limit, make
room for newer ones and take turns; TLS begins when the caller has said something, so that a silent one costs no more than
its descriptor. A shortage of descriptors is reported, and a few spare ones carry the port over it. The TLS context is
asked for at each connection, so that certificates may change. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol

from metasrv.model.limits import (
    SPARE_DESCRIPTORS,
    TLS_HANDSHAKE_SECONDS_MAX,
    TLS_HANDSHAKES_AT_ONCE_MAX,
    TLS_HANDSHAKES_MAX,
)
from metasrv.process.handshake_pace import HandshakePace

logger = logging.getLogger(__name__)

ACCEPTED_PER_STEP = 32
"""Connections that are accepted before the rest of the loop has its turn."""
PAUSE_SECONDS = 0.1
"""How long the port waits when no descriptor is left at all."""
LEFT_SECONDS_MIN = 0.05
"""A handshake that begins in the last moment has this time at least."""
REPORT_SECONDS = 60.0
"""A shortage that lasts is written again after this time."""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

MakeProtocol = Callable[[], asyncio.BaseProtocol]
CurrentTls = Callable[[], ssl.SSLContext | None]


class AcceptingObserver(Protocol):
    """Is told what happens before a connection reaches its protocol; every method is cheap and never raises."""

    def tls_handshakes(self, port: str, change: int) -> None:
        """So many more TLS handshakes are unfinished, on one of the sockets of the port; fewer when negative."""
        ...

    def tls_handshake_failed(self, port: str, reason: str) -> None:
        """One came to nothing: `timeout`, `made room` for a newer one, or `failed`."""
        ...

    def descriptors_short(self, port: str) -> None:
        """A connection could not be accepted, because the process or the system has no descriptor left."""
        ...


class Server(Protocol):
    """What a listener needs of whatever accepts for it."""

    def close(self) -> None:
        """Accept no more; connections that are open stay."""
        ...

    async def wait_closed(self) -> None: ...

    def give_descriptor(self) -> bool:
        """Free a spare descriptor for a connection that is to be dialled; False when there is none."""
        ...


class SpareDescriptors:
    """Descriptors that are kept open for nothing, to be given up one by one when there are no others."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self.refill()

    def refill(self) -> None:
        """Take back what was given up, as far as there are descriptors."""
        try:
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return  # there is still a shortage: the next connection that ends asks again

    def give_up(self) -> bool:
        """Free one; False when none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def close(self) -> None:
        """Give up all of them for good."""
        self._count = 0
        while self.give_up():
            continue


class _Caller(NamedTuple):
    """A connection that has not reached its protocol."""

    host: str
    accepted: socket.socket


class AcceptingSocket:
    """Accepts on `listening`, which belongs to it from now on; implements `Server`."""

    def __init__(
        self,
        port: str,
        listening: socket.socket,
        make_protocol: MakeProtocol,
        tls: CurrentTls,
        observer: AcceptingObserver,
        handshakes_max: int = TLS_HANDSHAKES_MAX,
    ) -> None:
        """`port` is the name for logs and metrics: raft, admin, grpc."""
        self._port = port
        self._listening = listening
        self._make_protocol = make_protocol
        self._tls = tls
        self._observer = observer
        self._handshakes_max = handshakes_max
        self._loop = asyncio.get_running_loop()
        self.spares = SpareDescriptors(SPARE_DESCRIPTORS)
        self._beginning: set[asyncio.Task[None]] = set()
        """Connections whose protocol is not yet reached."""
        self._waiting: dict[asyncio.Task[None], _Caller] = {}
        """Those of them that have not been told to make room, oldest first."""
        self._waiting_by_host: dict[str, dict[asyncio.Task[None], None]] = {}
        self._pace = HandshakePace(TLS_HANDSHAKES_AT_ONCE_MAX, self._make_room)
        self._paused: asyncio.TimerHandle | None = None
        self._reported_at: float | None = None
        self._closed = False
        self._loop.add_reader(listening, self._readable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._paused is None:
            self._loop.remove_reader(self._listening)
        else:
            self._paused.cancel()
        self._listening.close()
        self.spares.close()
        for task in list(self._waiting):
            self._make_room(task)

    async def wait_closed(self) -> None:
        if self._beginning:
            await asyncio.wait(list(self._beginning))

    def give_descriptor(self) -> bool:
        return self.spares.give_up()

    # ------------------------------------------------------------------------- accepting

    def _readable(self) -> None:
        self.spares.refill()
        for _ in range(ACCEPTED_PER_STEP):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in SHORTAGES:
                    continue  # the caller has gone before it was accepted
                if not self._short(error):
                    return
                continue
            accepted.setblocking(False)
            self._begin(_Caller(str(address[0]) if isinstance(address, tuple) else "", accepted))

    def _short(self, error: OSError) -> bool:
        """No descriptor is left: count it, and whether another attempt may succeed at once."""
        self._observer.descriptors_short(self._port)
        now = self._loop.time()
        if self._reported_at is None or now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            logger.error(
                "the %s port cannot accept a connection: %s; see docs/operating.md, descriptors",
                self._port,
                error.strerror,
            )
        if self._waiting:
            self._make_room(next(iter(self._waiting)))
        if self.spares.give_up():
            return True
        self._loop.remove_reader(self._listening)
        self._paused = self._loop.call_later(PAUSE_SECONDS, self._resume)
        return False

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening, self._readable)

    # ------------------------------------------------------------------------- until the protocol is reached

    def _begin(self, caller: _Caller) -> None:
        context = self._tls()
        if context is not None and len(self._waiting) >= self._handshakes_max:
            # An address that has many makes room for itself, so that it cannot end the handshakes of others.
            own = self._waiting_by_host.get(caller.host, {})
            self._make_room(next(iter(own if len(own) > self._handshakes_max // 4 else self._waiting)))
        beginning = self._connect(caller) if context is None else self._connect_with_tls(caller, context)
        task = self._loop.create_task(beginning)
        self._beginning.add(task)
        self._waiting[task] = caller
        self._waiting_by_host.setdefault(caller.host, {})[task] = None
        task.add_done_callback(self._begun)
        if context is not None:
            self._observer.tls_handshakes(self._port, 1)
            task.add_done_callback(lambda _: self._observer.tls_handshakes(self._port, -1))

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self._forget(task)

    async def _connect(self, caller: _Caller) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, caller.accepted)
        except OSError as error:
            caller.accepted.close()
            logger.debug("a connection to the %s port came to nothing before its first byte: %s", self._port, error)

    async def _connect_with_tls(self, caller: _Caller, context: ssl.SSLContext) -> None:
        """Let TLS begin once the caller has said something and it is its turn."""
        ends_at = self._loop.time() + TLS_HANDSHAKE_SECONDS_MAX
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout_at(ends_at):
                await self._first_byte(caller.accepted)
                if task not in self._waiting or not await self._pace.begin(caller.host, task):
                    raise ConnectionAbortedError("it made room for another one")
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                caller.accepted,
                ssl=context,
                ssl_handshake_timeout=max(ends_at - self._loop.time(), LEFT_SECONDS_MIN),
            )
        except OSError as error:  # of TLS as well, and of its time limit
            caller.accepted.close()
            if task not in self._waiting:
                reason = "made room"
            elif self._loop.time() >= ends_at:
                reason = "timeout"
            else:
                reason = "failed"
            self._observer.tls_handshake_failed(self._port, reason)
            logger.debug("a connection to the %s port came to nothing before its first byte: %s", self._port, error)
        finally:
            self._pace.leave(caller.host, task)

    async def _first_byte(self, accepted: socket.socket) -> None:
        """Wait until the caller has said something, or has gone."""
        arrived = asyncio.Event()
        self._loop.add_reader(accepted, arrived.set)
        try:
            await arrived.wait()
        finally:
            self._loop.remove_reader(accepted)

    def _make_room(self, task: asyncio.Task[None]) -> None:
        """End a connection that has not reached its protocol: its stream ends, and its task with it."""
        caller = self._forget(task)
        if caller is None:
            return
        self._pace.leave(caller.host, task)
        try:
            caller.accepted.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself

    def _forget(self, task: asyncio.Task[None]) -> _Caller | None:
        """The caller waits no more; None when it did not."""
        caller = self._waiting.pop(task, None)
        if caller is not None:
            own = self._waiting_by_host[caller.host]
            del own[task]
            if not own:
                del self._waiting_by_host[caller.host]
        return caller


StartAccepting = Callable[[str, socket.socket, MakeProtocol, CurrentTls, AcceptingObserver], Server]
"""As `AcceptingSocket`; another is given where a simulated network takes the system's place."""
