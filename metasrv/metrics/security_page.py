"""The families about listeners, certificates and what is loaded anew.

`metasrv_listener_*`, `metasrv_certificate_*`, `metasrv_reload*`.

Pure functions over counters; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import SecurityCounters
from metasrv.metrics.exposition import Family, Labels, labelled

LISTENER = "metasrv_listener_"


def security_families(security: SecurityCounters) -> Iterator[Family]:
    unfinished: dict[Labels, float] = {(("port", port),): count for port, count in security.handshakes.items()}
    yield labelled(f"{LISTENER}tls_handshakes", "gauge", "TLS handshakes that are not finished.", unfinished)
    failed: dict[Labels, float] = {
        (("port", port), ("reason", reason)): count for (port, reason), count in security.handshakes_failed.values.items()
    }
    text = "Connections that ended before their TLS handshake did."
    yield labelled(f"{LISTENER}tls_handshakes_failed_total", "counter", text, failed)
    short: dict[Labels, float] = {(("port", port),): count for port, count in security.descriptors_short.values.items()}
    text = "Attempts to accept a connection that found no free descriptor."
    yield labelled(f"{LISTENER}descriptors_short_total", "counter", text, short)
    expiries: dict[Labels, float] = {(("port", port),): at for port, at in security.expires_at.items()}
    text = "When the certificate of the port expires, in seconds since the epoch."
    yield labelled("metasrv_certificate_expiry_timestamp_seconds", "gauge", text, expiries)
    reloads: dict[Labels, float] = {
        (("name", name), ("outcome", outcome)): count for (name, outcome), count in security.reloads.values.items()
    }
    yield labelled("metasrv_reloads_total", "counter", "Attempts to load changed files.", reloads)
    newest: dict[Labels, float] = {(("name", name),): int(failed) for name, failed in security.reload_failed.items()}
    text = "1 while changed files could not be loaded and what they held before is in force."
    yield labelled("metasrv_reload_failed", "gauge", text, newest)
