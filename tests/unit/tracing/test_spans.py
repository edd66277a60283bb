"""Spans of requests: which there are, under what, of which length; and that nothing is loaded where nobody asks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from metasrv.config.sections import TracingConfig
from metasrv.model.errors import ConfigError
from metasrv.tracing import choosing
from metasrv.tracing.spans import make_tracer
from metasrv.tracing.times import BatchTimes, RequestEnd
from metasrv.tracing.watch import RequestWatch

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
PARENT_NOT_SAMPLED = f"00-{'ab' * 16}-{'cd' * 8}-00"
OK = RequestEnd(method="Transaction", outcome="ok")


class Traced:
    """A watch that traces, and what it exported."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        tracer = make_tracer(
            "http://nobody/",
            sample_ratio,
            node_id=2,
            version="1.2.3",
            cluster_name="c",
            processor=SimpleSpanProcessor(self.exporter),
        )
        self.watch = RequestWatch(2, lambda: 9, tracer)

    def write(self, traceparent: str = "", end: RequestEnd = OK, *, forwarded_here: bool = False) -> None:
        """A write on this node, the leader; its sync takes a second."""
        headers = {"traceparent": traceparent}
        times = self.watch.begin(100.0, "Transaction", headers.get, may_begin_trace=not forwarded_here)
        assert times is not None
        times.asked_at = 100.001
        times.submit(100.001)
        times.batch = BatchTimes(70, 5, 100.002)
        times.batch.synced_at, times.batch.committed_at, times.batch.applied_at = 101.002, 101.003, 101.004
        self.watch.end(times, 101.005, lambda: end)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return round((span.end_time - span.start_time) / 1e9, 3)


def test_a_write_has_a_span_for_each_stage_under_that_of_the_request() -> None:
    traced = Traced()
    traced.write(PARENT)
    spans = traced.spans()
    assert sorted(spans) == ["Transaction", "answer", "apply", "batch", "queue", "quorum", "sync"]
    root = spans["Transaction"]
    assert root.context is not None
    assert root.parent is not None
    assert (root.context.trace_id, root.parent.span_id) == (int("ab" * 16, 16), int("cd" * 8, 16))
    for name, span in spans.items():
        if name != "Transaction":
            assert span.parent is not None
            assert span.parent.span_id == root.context.span_id
    assert (seconds(root), seconds(spans["sync"]), seconds(spans["quorum"])) == (1.005, 1.0, 0.001)
    assert spans["sync"].end_time == spans["quorum"].start_time
    attributes = dict(root.attributes or {})
    assert attributes["metasrv.log_index"] == 70
    assert attributes["metasrv.term"] == 5
    assert root.resource.attributes["service.instance.id"] == "2"


def test_a_failed_request_has_an_error_as_its_status() -> None:
    traced = Traced()
    traced.write(end=RequestEnd(method="Transaction", outcome="no_leader"))
    status = traced.spans()["Transaction"].status
    assert (status.status_code.name, status.description) == ("ERROR", "no_leader")


def test_who_calls_decides_for_all_nodes_and_the_ratio_only_for_those_who_say_nothing() -> None:
    never, always = Traced(0.0), Traced(1.0)
    never.write()
    always.write(PARENT_NOT_SAMPLED)
    assert never.spans() == always.spans() == {}
    never.write(PARENT)
    always.write()
    assert "sync" in never.spans()
    assert "sync" in always.spans()


def test_a_malformed_traceparent_begins_a_trace_of_its_own() -> None:
    traced = Traced()
    traced.write("00-zz-1")
    assert traced.spans()["Transaction"].parent is None


def test_a_forwarded_write_without_a_trace_begins_none() -> None:
    traced = Traced()
    traced.write(forwarded_here=True)
    assert traced.spans() == {}


def test_another_node_puts_its_spans_under_the_question_to_it() -> None:
    traced = Traced()
    times = traced.watch.begin(100.0, "Transaction", {"traceparent": PARENT}.get)
    assert times is not None
    assert times.trace is not None
    times.asked_at = 100.0
    times.forward(100.0, 1)
    first, _ = times.trace.forwarded(1)
    times.forward(100.2, 3)
    second, _ = times.trace.forwarded(3)
    times.answered_at = 100.4
    traced.watch.end(times, 100.5, lambda: OK)
    forwards = [span for span in traced.exporter.get_finished_spans() if span.name == "forward"]
    sent = [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01" for span in forwards if span.context]
    assert sent == [first, second]
    assert [dict(span.attributes or {})["metasrv.asked_node"] for span in forwards] == [1, 3]


@pytest.mark.program
def test_without_an_endpoint_nothing_of_the_library_is_loaded() -> None:
    """FastAPI loads the interfaces of OpenTelemetry for itself; the part that makes and sends spans is loaded by us."""
    program = (
        "import sys\n"
        "def loaded(*names):\n"
        "    return [name for name in sys.modules if name.startswith(names)]\n"
        "import metasrv.client\n"
        "assert loaded('opentelemetry') == []\n"
        "import metasrv.cli.server\n"
        "from metasrv.config.sections import TracingConfig\n"
        "from metasrv.tracing.choosing import tracer_of\n"
        "assert tracer_of(TracingConfig(), node_id=1, version='', cluster_name='') is None\n"
        "print(loaded('opentelemetry.sdk', 'opentelemetry.exporter', 'metasrv.tracing.spans', 'metasrv.client.spans'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_library_the_configuration_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metasrv.tracing.spans", None)
    with pytest.raises(ConfigError, match=r"install `metasrv\[otel\]`"):
        choosing.tracer_of(TracingConfig(otlp_endpoint="http://127.0.0.1:1/"), node_id=1, version="", cluster_name="")
