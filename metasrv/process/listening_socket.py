"""A listening TCP socket, for each of the node's three ports.

Bound here and not by the event loop: after a failed bind inside uvloop, the loop never closes and the process never
ends. It listens at once, because two sockets may share an address until one of them listens. Runs when a listener starts.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

Address = tuple[Any, ...]
"""As `getaddrinfo` gives it: host, port, and for IPv6 flow and scope."""
OpenSocket = Callable[[int, Address, int], socket.socket]
"""As `listening_socket`; another is given where a simulated network takes the system's place."""


def shared_listening_socket(family: int, address: Address, backlog: int | None) -> socket.socket:
    """As `listening_socket`, for an address that several processes share (SO_REUSEPORT); None: bound, not listening.

    The kernel spreads connections over the sockets that listen.
    """
    shared = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.setblocking(False)
        shared.bind(address)
        if backlog is not None:
            shared.listen(backlog)
    except BaseException:
        shared.close()
        raise
    return shared


def listening_socket(family: int, address: Address, backlog: int) -> socket.socket:
    """Bound and listening, for the event loop to accept on; raises OSError and leaves nothing open."""
    # With the protocol named, asyncio turns off the delay of small writes on what it accepts; uvloop always does.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening
