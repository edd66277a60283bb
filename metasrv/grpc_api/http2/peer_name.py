"""A client's address as gRPC writes it. Pure."""

from __future__ import annotations

from typing import Any


def peer_name(address: Any) -> str:
    """Write a socket's peer address as `ipv4:host:port` or `ipv6:[host]:port`; empty for anything but an IP address."""
    if not isinstance(address, tuple) or len(address) < 2:
        return ""
    host, port = address[0], address[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
