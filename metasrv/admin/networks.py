"""Which clients count as one, for shares: an address of IPv4, and a network of 64 bits of IPv6, as one client gets it.

Pure.
"""

from __future__ import annotations

import ipaddress


def network_of(host: str) -> str:
    """The same text for all addresses that count as one client; a text that is no address stands for itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
