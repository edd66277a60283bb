"""What one client does, for whoever wants to count it: `AsyncClient(…, observer=ClientMetrics())`.

`ClientMetrics` counts for prometheus-client, which the program that uses it serves; any object with the two methods of
`CallObserver` will do. Not loaded unless it is imported. Runs on the client's event loop.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

SECONDS_BOUNDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096)


class ClientMetrics:
    """`metasrv_client_request_seconds{method,outcome}` and `metasrv_client_retries_total{method,endpoint}`.

    One object may observe many clients; make it once for a registry, which refuses the same names twice with ValueError.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "metasrv_client_request_seconds",
            "Calls of this client, with all their attempts.",
            ("method", "outcome"),
            registry=registry,
            buckets=SECONDS_BOUNDS,
        )
        self._retries = Counter(
            "metasrv_client_retries",
            "Attempts that certainly changed nothing and were made again, by the endpoint that did not answer them.",
            ("method", "endpoint"),
            registry=registry,
        )

    def call_ended(self, method: str, outcome: str, seconds: float) -> None:
        self._seconds.labels(method, outcome).observe(seconds)

    def sent_again(self, method: str, endpoint: str) -> None:
        self._retries.labels(method, endpoint).inc()
