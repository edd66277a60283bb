"""A client's address as gRPC writes it. Pure."""

from __future__ import annotations

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
