"""Spans of requests for OpenTelemetry: one for the request, one for each of its stages, sent over HTTP by a thread.

The only module of a node that knows the library, loaded only where `tracing.otlp_endpoint` is set. Spans of stages are
made from the request's stamps when it ends, so a request that is not sampled costs the decision alone. Keys and values
never leave. Runs on the event loop; what the library sends, it sends in a thread of its own, out of a bounded queue.
"""

from __future__ import annotations

import logging
import threading
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from metasrv.model.limits import TRACE_SPANS_WAITING_MAX
from metasrv.tracing.request_ids import Header
from metasrv.tracing.times import RequestEnd, RequestTimes, Stage

EXPORT_SECONDS_MAX = 5.0
"""A collector that has not answered an export within this time has not got it: the spans are lost."""
EXPORT_SPANS_MAX = 512
EXPORT_EVERY_MS = 2_000
REPEAT_AFTER_SECONDS = 60.0
_NANOSECONDS = 1_000_000_000
_NAMES = {stage: stage.value for stage in Stage} | {Stage.PEERS: "quorum"}
_PROPAGATOR = TraceContextTextMapPropagator()


class OtelTrace:
    """The spans of one sampled request; implements `RequestTrace`."""

    __slots__ = ("_node_id", "_tracer", "forward", "root", "started_ns", "trace_id")

    def __init__(self, tracer: Tracer, node_id: int, root: Span, started_ns: int) -> None:
        self._tracer = tracer
        self._node_id = node_id
        self.root = root
        self.started_ns = started_ns
        self.trace_id = format_trace_id(root.get_span_context().trace_id)
        self.forward: Span | None = None
        """The span of the last question to another node."""

    def forwarded(self, node_id: int) -> tuple[str, str]:
        """Begin the span of a question to another node, under which that node puts its own."""
        self.end_forward(time.time_ns())
        context = set_span_in_context(self.root)
        attributes = {"metasrv.asked_node": node_id}
        self.forward = self._tracer.start_span("forward", context, SpanKind.CLIENT, attributes)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self.forward))
        return carrier["traceparent"], carrier.get("tracestate", "")

    def end(self, end: RequestEnd, times: RequestTimes, ended_at: float) -> None:
        """One span for each stage that took any time; the question to another node has its own already."""

        def ns(at: float) -> int:
            return self.started_ns + int((at - times.started_at) * _NANOSECONDS)

        context = set_span_in_context(self.root)
        for stage, began_at, stage_ended_at in times.stages(ended_at):
            if stage is Stage.FORWARD and self.forward is not None:
                self.end_forward(ns(stage_ended_at))
            elif stage_ended_at > began_at:
                self._tracer.start_span(_NAMES[stage], context, start_time=ns(began_at)).end(ns(stage_ended_at))
        self.end_forward(ns(ended_at))
        root = self.root
        root.set_attribute("rpc.system.name", "grpc")
        root.set_attribute("rpc.method", end.method)
        root.set_attribute("metasrv.node", self._node_id)
        root.set_attribute("metasrv.outcome", end.outcome)
        if times.batch is not None:
            root.set_attribute("metasrv.term", times.batch.term)
            root.set_attribute("metasrv.log_index", times.batch.index)
        if end.outcome != "ok":
            root.set_status(Status(StatusCode.ERROR, end.outcome))
        root.end(ns(ended_at))

    def end_forward(self, ended_ns: int) -> None:
        if self.forward is not None:
            self.forward.end(ended_ns)
            self.forward = None


class OtelTracer:
    """Implements `Tracer` with the spans of one node."""

    def __init__(self, provider: TracerProvider, node_id: int) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("metasrv")
        self._node_id = node_id

    def carried(self, header: Header) -> tuple[str, str]:
        return _text(header("traceparent")), _text(header("tracestate"))

    def begin(self, name: str, traceparent: str, tracestate: str) -> OtelTrace | None:
        """The sampler decides; a client that says `traceparent` has decided already (parent-based)."""
        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        started_ns = time.time_ns()
        root = self._tracer.start_span(name, _PROPAGATOR.extract(carrier), SpanKind.SERVER, start_time=started_ns)
        return OtelTrace(self._tracer, self._node_id, root, started_ns) if root.is_recording() else None

    def close(self) -> threading.Thread:
        """Begin to send what waits, in a thread that the process does not wait for."""
        thread = threading.Thread(target=self._provider.shutdown, name="trace-end", daemon=True)
        thread.start()
        return thread


def make_tracer(
    endpoint: str,
    sample_ratio: float,
    *,
    node_id: int,
    version: str,
    cluster_name: str,
    exporter: SpanExporter | None = None,
    processor: SpanProcessor | None = None,
) -> OtelTracer:
    """A tracer that sends to `endpoint`. Tests give an exporter or a processor of their own."""
    resource = Resource.create(
        {
            "service.name": "metasrv",
            "service.version": version,
            "service.instance.id": str(node_id),
            "metasrv.cluster_name": cluster_name,
        }
    )
    provider = TracerProvider(ParentBased(TraceIdRatioBased(sample_ratio)), resource, shutdown_on_exit=False)
    provider.add_span_processor(
        processor
        or BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS_MAX),
            max_queue_size=TRACE_SPANS_WAITING_MAX,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=EXPORT_SPANS_MAX,
        )
    )
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, OncePerMinute) for known in logger.filters):
            logger.addFilter(OncePerMinute())
    return OtelTracer(provider, node_id)


_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""What complains of a collector that does not answer, with every attempt."""


class OncePerMinute(logging.Filter):
    """Lets one line a minute through, with the number of those before it that it did not; called in any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._last_at = float("-inf")
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last_at < REPEAT_AFTER_SECONDS:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.getMessage()} (and {self._left_out} more lines since the last one)"
            record.args = None
        self._last_at, self._left_out = now, 0
        return True


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""
