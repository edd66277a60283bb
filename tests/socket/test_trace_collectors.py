"""Spans reach a collector over HTTP, and one that is dead costs a node nothing but them."""

from __future__ import annotations

import logging
import socket
import time

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from metasrv.model.limits import TRACE_SPANS_WAITING_MAX
from metasrv.tracing.spans import EXPORT_SPANS_MAX, OncePerMinute, OtelTracer, make_tracer
from metasrv.tracing.times import RequestEnd
from metasrv.tracing.watch import CLOSE_SECONDS_MAX, RequestWatch
from tests.support.collector import Collector


def tracer_to(url: str, exporter: SpanExporter | None = None) -> OtelTracer:
    return make_tracer(url, 1.0, node_id=7, version="1.2.3", cluster_name="c", exporter=exporter)


def ask(watch: RequestWatch) -> None:
    """A request that this node answers alone: two spans."""
    times = watch.begin(100.0, "MemberList", lambda _name: None)
    assert times is not None
    watch.end(times, 100.5, lambda: RequestEnd(method="MemberList", outcome="ok"))


async def test_a_collector_receives_what_waits_when_a_node_stops() -> None:
    with Collector() as collector:
        watch = RequestWatch(7, lambda: 1, tracer_to(collector.url))
        ask(watch)
        await watch.close()
    assert not watch.on
    assert sorted((span.name, span.instance, span.seconds) for span in collector.spans) == [
        ("MemberList", "7", 0.5),
        ("answer", "7", 0.5),
    ]


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "nobody answers"])
async def test_a_dead_collector_keeps_no_request_and_no_stop_waiting(listens: bool) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if listens:
            port.listen(1)
        watch = RequestWatch(7, lambda: 1, tracer_to(f"http://127.0.0.1:{port.getsockname()[1]}/v1/traces"))
        began = time.monotonic()
        for _ in range(200):
            ask(watch)
        asked = time.monotonic() - began
        began = time.monotonic()
        await watch.close()
        assert time.monotonic() - began < CLOSE_SECONDS_MAX + 2.0
        assert asked < 5.0, "a request hands its spans to a queue"


class Stuck(SpanExporter):
    """A collector that takes nothing until the test lets it."""

    def __init__(self) -> None:
        self.released = False
        self.batches: list[int] = []

    def export(self, spans: object) -> SpanExportResult:
        self.batches.append(len(spans))  # type: ignore[arg-type]
        while not self.released:
            time.sleep(0.01)
        return SpanExportResult.SUCCESS


async def test_spans_that_wait_are_bounded_and_the_complaint_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TRACE_SPANS_WAITING_MAX >= EXPORT_SPANS_MAX
    monkeypatch.setattr("metasrv.tracing.spans.TRACE_SPANS_WAITING_MAX", EXPORT_SPANS_MAX)
    stuck = Stuck()
    watch = RequestWatch(7, lambda: 1, tracer_to("http://unused/", stuck))
    for _ in range(2 * EXPORT_SPANS_MAX):
        ask(watch)
    assert caplog.messages == ["Queue full, dropping Span."]
    stuck.released = True
    await watch.close()
    assert sum(stuck.batches) <= 2 * EXPORT_SPANS_MAX, "of four times as many"


def test_complaints_have_one_line_a_minute_with_the_number_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("metasrv.tracing.spans.time.monotonic", lambda: now)
    once = OncePerMinute()
    lines = []
    for second in range(121):
        now = float(second)
        record = logging.makeLogRecord({"msg": "export %s", "args": ("failed",)})
        if once.filter(record):
            lines.append(record.getMessage())
    more = " (and 59 more lines since the last one)"
    assert lines == ["export failed", f"export failed{more}", f"export failed{more}"]
