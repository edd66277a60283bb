"""Accepts the connections of one listening socket, with bounds on what strangers may hold before they have said a word.

The event loop's own server knows nothing of a connection until its TLS handshake is over, and closes for good, or drops
callers silently, when the process has no descriptor left. Here unfinished handshakes are counted, have a time limit and
make room for newer ones; a shortage of descriptors is reported, and a few spare ones carry the port over it. The TLS
context is asked for at each connection, so that certificates may change. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from metasrv.model.limits import SPARE_DESCRIPTORS, TLS_HANDSHAKE_SECONDS_MAX, TLS_HANDSHAKES_MAX

logger = logging.getLogger(__name__)

ACCEPTED_PER_STEP = 32
"""Connections that are accepted before the rest of the loop has its turn."""
PAUSE_SECONDS = 0.1
"""How long the port waits when no descriptor is left at all."""
REPORT_SECONDS = 60.0
"""A shortage that lasts is written again after this time."""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

MakeProtocol = Callable[[], asyncio.BaseProtocol]
CurrentTls = Callable[[], ssl.SSLContext | None]


class AcceptingObserver(Protocol):
    """Is told what happens before a connection reaches its protocol; every method is cheap and never raises."""

    def tls_handshakes(self, port: str, count: int) -> None:
        """This many TLS handshakes are unfinished now."""
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


class AcceptingSocket:
    """Accepts on `listening`, which belongs to it from now on; implements `Server`."""

    def __init__(
        self,
        port: str,
        listening: socket.socket,
        make_protocol: MakeProtocol,
        tls: CurrentTls,
        observer: AcceptingObserver,
    ) -> None:
        """`port` is the name for logs and metrics: raft, admin."""
        self._port = port
        self._listening = listening
        self._make_protocol = make_protocol
        self._tls = tls
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self.spares = SpareDescriptors(SPARE_DESCRIPTORS)
        self._beginning: dict[asyncio.Task[None], socket.socket | None] = {}
        """Connections whose protocol is not yet reached, oldest first; None once they have been told to make room."""
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
        for task in list(self._beginning):
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
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in SHORTAGES:
                    continue  # the caller has gone before it was accepted
                if not self._short(error):
                    return
                continue
            accepted.setblocking(False)
            self._begin(accepted)

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
        oldest = next((task for task, accepted in self._beginning.items() if accepted is not None), None)
        if oldest is not None:
            self._make_room(oldest)
        if self.spares.give_up():
            return True
        self._loop.remove_reader(self._listening)
        self._paused = self._loop.call_later(PAUSE_SECONDS, self._resume)
        return False

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listening, self._readable)

    # ------------------------------------------------------------------------- until the protocol is reached

    def _begin(self, accepted: socket.socket) -> None:
        context = self._tls()
        waiting = [task for task, one in self._beginning.items() if one is not None]
        if context is not None and len(waiting) >= TLS_HANDSHAKES_MAX:
            self._make_room(waiting[0])
        task = self._loop.create_task(self._connect(accepted, context))
        self._beginning[task] = accepted
        task.add_done_callback(self._begun)
        if context is not None:
            self._observer.tls_handshakes(self._port, len(self._beginning))

    def _begun(self, task: asyncio.Task[None]) -> None:
        del self._beginning[task]
        self._observer.tls_handshakes(self._port, len(self._beginning))

    async def _connect(self, accepted: socket.socket, context: ssl.SSLContext | None) -> None:
        begun_at = self._loop.time()
        timeout = None if context is None else TLS_HANDSHAKE_SECONDS_MAX
        task = asyncio.current_task()
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol, accepted, ssl=context, ssl_handshake_timeout=timeout
            )
        except OSError as error:  # of TLS as well, and of its time limit
            accepted.close()
            if task is not None and self._beginning.get(task) is None:
                reason = "made room"
            elif timeout is not None and self._loop.time() - begun_at >= timeout:
                reason = "timeout"
            else:
                reason = "failed"
            self._observer.tls_handshake_failed(self._port, reason)
            logger.debug("a connection to the %s port came to nothing before its first byte: %s", self._port, error)

    def _make_room(self, task: asyncio.Task[None]) -> None:
        """End a connection that has not reached its protocol: its stream ends, and its task with it."""
        accepted = self._beginning.get(task)
        if accepted is None:
            return
        self._beginning[task] = None
        try:
            accepted.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself


StartAccepting = Callable[[str, socket.socket, MakeProtocol, CurrentTls, AcceptingObserver], Server]
"""As `AcceptingSocket`; another is given where a simulated network takes the system's place."""
