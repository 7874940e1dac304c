"""When there are traces, and what is said when there are none."""

import socket
import subprocess
import sys
import threading
import time

import pytest
from structlog.testing import capture_logs

from livedex import tracing, tracing_otel
from livedex.core.trace_context import TraceContext
from livedex.tracing import OFF, current, exemplar, refusal

OFF_BECAUSE = "spans are not recorded, because "
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({}, ""),
        (ENDPOINT, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ""),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, ""),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console, otlp"}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "zipkin"}, f"{OFF_BECAUSE}OTEL_TRACES_EXPORTER is zipkin: only otlp is there"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, None),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            f"{OFF_BECAUSE}OTEL_EXPORTER_OTLP_PROTOCOL is grpc: only http/protobuf is there, on port 4318 of most collectors",
        ),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, None),
    ],
)
def test_traces_are_on_where_an_endpoint_is_named(variables: dict[str, str], refused: str | None) -> None:
    """And off otherwise, without a word where nobody asked for them."""
    assert refusal(variables) == refused


def started(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[tracing.Tracer, list[str]]:
    """The tracer of an environment, closed again, and what was said meanwhile."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with capture_logs() as lines:
        tracer = tracing.start("service", "instance")
        tracer.close()
    return tracer, [f"{line['event']}: {line['why']}" for line in lines]


def test_an_endpoint_turns_traces_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is needed, and nothing is said."""
    tracer, said = started(monkeypatch, **ENDPOINT)
    assert tracer.on
    assert said == []


def test_what_opentelemetry_is_told_wrongly_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no traces then, and it is said why."""
    tracer, said = started(monkeypatch, **ENDPOINT, OTEL_BSP_MAX_QUEUE_SIZE="-1")
    assert tracer is OFF
    assert said == [f"tracing.off: {OFF_BECAUSE}OpenTelemetry refuses its settings: max_queue_size must be a positive integer."]


def test_a_header_that_cannot_be_read_is_not_quoted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It may be a secret, written in another form than OpenTelemetry's."""
    tracer, said = started(monkeypatch, **ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS="Bearer pomegranate")
    assert tracer.on
    assert "pomegranate" not in caplog.text
    assert said == []


def test_without_the_extra_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where an endpoint is named."""
    for name in [*sys.modules]:
        if name.startswith(("opentelemetry", "livedex.tracing_otel")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert started(monkeypatch) == (OFF, [])
    remedy = f"tracing.off: {OFF_BECAUSE}the extra is not installed: pip install livedex[tracing]"
    assert started(monkeypatch, **ENDPOINT) == (OFF, [remedy])


def test_the_end_waits_for_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to be sent is lost where nobody answers, and whoever ends is not held up by it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = tracing.start("service", "instance")
        tracer.begin("a span").end()
        began = time.monotonic()
        tracer.close()
        assert time.monotonic() - began < 5, "OpenTelemetry itself waits for ten seconds and more"


def test_opentelemetry_is_not_loaded_where_nobody_asks_for_it() -> None:
    """Without an endpoint, nothing of its SDK is imported."""
    code = (
        "import sys; from livedex import tracing; assert tracing.start('service', 'instance') is tracing.OFF; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_contexts_pass_through_where_nothing_is_recorded() -> None:
    """What continues a context has it as the current one, and so do the parts of that; afterwards there is none."""
    with OFF.span("request", parent=CONTEXT) as span:
        assert span.context == current() == CONTEXT
        with OFF.span("part"):
            assert current() == CONTEXT
    assert current() is None


def test_an_exemplar_leads_to_a_trace_that_is_recorded() -> None:
    """A context that nobody records leads nowhere."""
    assert exemplar(CONTEXT) == {"trace_id": CONTEXT.trace_id}
    assert exemplar(TraceContext(CONTEXT.trace_id, CONTEXT.span_id, sampled=False)) is None
    assert exemplar(None) is None


def test_nothing_is_said_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the collector takes the last spans too late, it is told to nobody: the process is ending."""
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(tracing_otel, "LAST_WORDS", 0.0)
        tracer = tracing_otel.OtelTracer({}, "service", "instance", lambda event, _why: said.append(event))
        with tracer.span("a"):
            pass
        tracer.close()
    ends = [thread for thread in threading.enumerate() if thread.name == "tracing-ends"]
    for thread in ends:
        thread.join(20)
    assert ends
    assert said == []
