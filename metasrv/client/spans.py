"""A span for each call of a client that was given a tracer, and the metadata that lets the cluster put its own under it.

The only module of the client library that knows OpenTelemetry, loaded with the first tracer. Runs on the client's event
loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from metasrv.protocol.methods import Method

_PROPAGATOR = TraceContextTextMapPropagator()


class CallSpans:
    """Makes the spans of one client."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def call(self, method: Method) -> Iterator[tuple[tuple[str, str], ...]]:
        """The span of one call with all its attempts; an error that leaves it is kept in it. Gives `traceparent`."""
        attributes = {"rpc.system.name": "grpc", "rpc.method": method.name}
        with self._tracer.start_as_current_span(f"metasrv {method.name}", kind=SpanKind.CLIENT, attributes=attributes):
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier)
            yield tuple(carrier.items())
