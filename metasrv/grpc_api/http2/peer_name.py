"""What a transport knows about the client: its address as gRPC writes it, its host, its certificate. Pure."""

from __future__ import annotations

import asyncio
from typing import Any


def peer_name(address: Any) -> str:
    """Write a socket's peer address as `ipv4:host:port` or `ipv6:[host]:port`; empty for anything but an IP address."""
    if not isinstance(address, tuple) or len(address) < 2:
        return ""
    host, port = address[0], address[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def host_of(address: Any) -> str:
    """The IP address alone; empty for anything else. An IPv4 address on an IPv6 socket counts as itself."""
    if not isinstance(address, tuple) or len(address) < 2:
        return ""
    host: str = address[0]
    return host.removeprefix("::ffff:") if "." in host else host


def is_loopback(host: str) -> bool:
    """Whether a peer with this address runs on this machine."""
    return host.startswith("127.") or host == "::1"


def certificate_of(transport: asyncio.BaseTransport) -> Any:
    """What `getpeercert` gives for a certificate that was verified in this very handshake; falsy without one.

    A session of TLS 1.2 that is taken up again has the certificate of its beginning, which may have been revoked since.
    """
    connection = transport.get_extra_info("ssl_object")
    return None if connection is None or connection.session_reused else transport.get_extra_info("peercert")
