"""The families about the processes that serve a node's clients: `metasrv_gateway*`.

Pure functions over counters; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import GatewayCounters
from metasrv.metrics.exposition import Family, counter, gauge


def gateway_families(gateways: GatewayCounters) -> Iterator[Family]:
    """On a node without gateways of its own only those on other machines."""
    yield gauge("metasrv_remote_gateways", "Gateways on other machines that are linked to this node.", gateways.remote)
    if gateways.configured:
        yield gauge("metasrv_gateways", "Gateways that serve clients now.", gateways.up)
        yield gauge("metasrv_gateways_configured", "Gateways that this node is to have.", gateways.configured)
        text = "How often a gateway ended, or hung, and was started again."
        yield counter("metasrv_gateway_restarts_total", text, gateways.restarts)


def gateway_link_families(linked: bool, watchers: int) -> Iterator[Family]:
    """On the page of a gateway on another machine."""
    yield gauge("metasrv_gateway_linked", "1 while this gateway is linked to a node.", int(linked))
    yield gauge("metasrv_gateway_watchers", "Watch streams of this gateway's clients.", watchers)
