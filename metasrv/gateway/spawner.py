"""A process of a node that does nothing but fork its gateways: each is there at once, and they share what is loaded.

The node forks it before its event loop and its threads begin, because a process with threads cannot be forked safely. If
it is lost, another one is started as a new program, which takes longer. It ends with its node, and gateways end with it.

    request   B letter, I process id    `s` with the descriptor of a link: start a gateway; `e`: end that process
    answer    i                         the process id; its exit code, negative for a signal

Runs without an event loop; the other end is `Spawner`, on the node's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from metasrv.process.operating_system import die_with_parent

_REQUEST = struct.Struct("!BI")
_ANSWER = struct.Struct("!i")
_START = ord("s")
_END = ord("e")
LINK_LOST_EXIT_CODE = 1


def fork_spawner() -> socket.socket:
    """Fork the process; returns the socket to it. Call it while this process has one thread and no event loop."""
    own, its = socket.socketpair()
    parent_id = os.getpid()
    if os.fork() == 0:
        own.close()
        _serve(its, parent_id)
    its.close()
    own.setblocking(False)
    return own


async def _execute_spawner() -> socket.socket:
    """The same as a new program."""
    own, its = socket.socketpair()
    own.setblocking(False)
    with its:
        # From the loop's thread: the process asks to be killed when the thread that started it ends.
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "metasrv.gateway.spawner",
            str(os.getpid()),
            str(its.fileno()),
            stdin=subprocess.DEVNULL,
            pass_fds=(its.fileno(),),
        )
    return own


def _serve(control: socket.socket, parent_id: int) -> NoReturn:
    """Fork gateways until the node is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the node's business
    if not die_with_parent(parent_id):
        os._exit(LINK_LOST_EXIT_CODE)
    from metasrv.gateway.child import serve  # loaded once for all gateways

    gc.collect()
    gc.freeze()
    own_id = os.getpid()
    control.setblocking(True)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST.size, 1)
        if len(request) != _REQUEST.size:
            os._exit(0)
        letter, process_id = _REQUEST.unpack(request)
        if letter == _END:
            control.sendall(_ANSWER.pack(_end(process_id)))
            continue
        process_id = os.fork()
        if process_id == 0:
            control.close()
            if die_with_parent(own_id):
                serve(descriptors[0])
            os._exit(LINK_LOST_EXIT_CODE)
        os.close(descriptors[0])
        control.sendall(_ANSWER.pack(process_id))


def _end(process_id: int) -> int:
    """Kill a gateway unless it has ended; it is not reaped before, so no other process has its id."""
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    except ChildProcessError:
        return 0


class Spawner:
    """The node's end. Starts another process when the one it has is lost."""

    def __init__(self, control: socket.socket | None) -> None:
        """`control` is what `fork_spawner` returned; None: start the process when it is needed."""
        self._control = control
        self._busy = asyncio.Lock()

    async def start(self, link: socket.socket) -> int:
        """Start a gateway with this link; returns its process id. Raises OSError."""
        async with self._busy:
            if self._control is None:
                self._control = await _execute_spawner()
            try:
                socket.send_fds(self._control, [_REQUEST.pack(_START, 0)], [link.fileno()])
                return await self._answer(self._control)
            except OSError:
                self.close()
                raise

    async def end(self, process_id: int) -> int:
        """Kill a gateway unless it has ended; returns its exit code."""
        async with self._busy:
            if self._control is None:
                return -signal.SIGKILL  # it has ended with the process that started it
            try:
                await asyncio.get_running_loop().sock_sendall(self._control, _REQUEST.pack(_END, process_id))
                return await self._answer(self._control)
            except OSError:
                self.close()
                return -signal.SIGKILL

    def close(self) -> None:
        """End the process, and with it what it has started."""
        if self._control is not None:
            self._control.close()
            self._control = None

    async def _answer(self, control: socket.socket) -> int:
        answer = await asyncio.get_running_loop().sock_recv(control, _ANSWER.size)
        if len(answer) != _ANSWER.size:
            raise ConnectionResetError("the process that starts gateways is gone")
        value: int = _ANSWER.unpack(answer)[0]
        return value


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[1]))
