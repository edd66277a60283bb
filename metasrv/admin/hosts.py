"""The names under which the admin API answers, against DNS rebinding.

A page of evil.example whose name suddenly resolves to this node is of the same origin for a browser; only the Host header
still says evil.example. Addresses cannot be rebound, so they are always fine. Pure.
"""

from __future__ import annotations

import ipaddress
import socket

from metasrv.config.model import Config
from metasrv.model.types import Endpoint


class AllowedHosts:
    """The node's own names, and those of `admin_allowed_hosts`; one that begins with a dot allows every name below."""

    def __init__(self, config: Config, own_name: str | None = None) -> None:
        raft = config.raft_config
        own = (raft.raft_advertise_host, raft.raft_listen_host, config.admin_endpoint.addr, config.grpc_endpoint.addr)
        names = [
            *own,
            config.grpc_api_advertise_host or "",
            own_name or socket.gethostname(),
            *config.admin_allowed_hosts,
        ]
        self._names = frozenset(name.lower().rstrip(".") for name in names if name and not name.startswith("."))
        self._suffixes = tuple(name.lower() for name in names if name.startswith("."))

    def allow(self, header: bytes | None) -> bool:
        """Whether to answer a request with this Host header; one without it is from no browser."""
        if header is None:
            return True
        name = _host_in(header)
        if name is None:
            return False
        return (
            name == "localhost"
            or name.endswith((".localhost", *self._suffixes))
            or name in self._names
            or _is_address(name)
        )


def _host_in(header: bytes) -> str | None:
    """The host of a Host header, without its port, in lower case; None when it cannot be read."""
    try:
        text = header.decode("ascii").strip().lower()
        if text.startswith("["):
            address, bracket, port = text[1:].partition("]")
            return address if bracket and (not port or port[1:].isdigit()) else None
        if ":" not in text:
            return text.rstrip(".") or None
        return Endpoint.parse(text).addr.rstrip(".") or None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
