"""The families about the processes that serve a node's clients: `metasrv_gateway*`.

Pure functions over counters; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import GatewayCounters
from metasrv.metrics.exposition import Family, counter, gauge


def gateway_families(gateways: GatewayCounters) -> Iterator[Family]:
    """Nothing on a node without gateways."""
    if gateways.configured:
        yield gauge("metasrv_gateways", "Gateways that serve clients now.", gateways.up)
        yield gauge("metasrv_gateways_configured", "Gateways that this node is to have.", gateways.configured)
        text = "How often a gateway ended, or hung, and was started again."
        yield counter("metasrv_gateway_restarts_total", text, gateways.restarts)
