"""A listening TCP socket, for each of the node's three ports.

Not left to the event loop: after a bind that failed inside uvloop, its loop never closes, nor does the process end. And
already listening, since two sockets may share an address until one of them does. Runs at the start of a listener.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

Address = tuple[Any, ...]
"""As `getaddrinfo` gives it: host, port, and for IPv6 flow and scope."""
OpenSocket = Callable[[int, Address, int], socket.socket]
"""As `listening_socket`; another is given where a simulated network takes the system's place."""


def listening_socket(family: int, address: Address, backlog: int) -> socket.socket:
    """Bound and listening, for the event loop to accept on; raises OSError and leaves nothing open."""
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening
