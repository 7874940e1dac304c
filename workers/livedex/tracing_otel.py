"""The tracer that records, by OpenTelemetry's SDK, and sends by OTLP over HTTP. Needs the extra `tracing`.

The SDK reads its own variables: where to send to, what to sample, how much to keep. What it records waits in a queue of bounded
length, from which a thread sends it; what has no room there, or finds no collector, is lost, and the work goes on.
"""

import logging
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Tracer as OtelSdkTracer

from livedex import __version__
from livedex.core.trace_context import TraceContext
from livedex.tracing import Attributes, Kind, Say, Span, Tracer

QUEUE = 8192  # spans, some 2 kB each: a batch of 500 traced records leaves 3,000 at once, and the SDK's default is 2,048
# The first two say at each attempt what is said here once; the last quotes headers that it cannot read, which hold secrets.
_LOUD = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.util.re")
LAST_WORDS = 2.0  # seconds that a process that ends gives to what is not sent yet
_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT, "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}  # fmt: skip


class OtelTracer(Tracer):
    """Records what the sampler takes. A provider of its own: that of an application around it is not touched."""

    on = True

    def __init__(self, variables: Mapping[str, str], service: str, instance: str, say: Say) -> None:
        for loud in _LOUD:
            logging.getLogger(loud).setLevel(logging.CRITICAL)
        self._provider = TracerProvider(resource=_resource(service, instance), shutdown_on_exit=False)
        size = None if variables.get("OTEL_BSP_MAX_QUEUE_SIZE") else QUEUE
        self._exporter = _Told(OTLPSpanExporter(), say)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=size))
        self._tracer = self._provider.get_tracer("livedex", __version__)

    def begin(self, name: str, *, kind: Kind = "internal", parent: TraceContext | Span | None = None,
              start: float | None = None, links: Sequence[TraceContext] = (), attributes: Attributes | None = None,
              ) -> Span:  # fmt: skip
        """See Tracer."""
        context = set_span_in_context(_otel(parent))
        made = self._tracer.start_span(
            name, context, _KINDS[kind], attributes, [Link(_remote(each)) for each in links], _nanoseconds(start)
        )
        return _OtelSpan(self._tracer, made)

    def close(self) -> None:
        """See Tracer."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-ends", daemon=True)
        ending.start()
        ending.join(LAST_WORDS)
        self._exporter.hush()  # what is still tried behind the end is nobody's concern


class _OtelSpan(Span):
    """One that may be recorded, as the sampler says."""

    def __init__(self, tracer: OtelSdkTracer, span: OtelSpan) -> None:
        super().__init__()
        self._tracer, self.span = tracer, span
        self.recorded = span.is_recording()

    @property
    def context(self) -> TraceContext | None:
        """See Span."""
        own = self.span.get_span_context()
        return TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags.sampled, own.trace_state.to_header())

    def child(self, name: str, *, start: float, end: float, kind: Kind = "internal", attributes: Attributes | None = None,
              failed: str | None = None) -> None:  # fmt: skip
        """See Span."""
        made = self._tracer.start_span(
            name, set_span_in_context(self.span), _KINDS[kind], attributes, start_time=_nanoseconds(start)
        )
        child = _OtelSpan(self._tracer, made)
        child.note(failed=failed)
        child.end(end)

    def note(self, *, name: str | None = None, attributes: Attributes | None = None, failed: str | None = None) -> None:
        """See Span."""
        if name is not None:
            self.span.update_name(name)
        if attributes is not None:
            self.span.set_attributes(attributes)
        if failed is not None:
            self.span.set_attribute("error.type", failed)
            self.span.set_status(StatusCode.ERROR)  # without a description: an error's text may quote a document

    def end(self, at: float | None = None) -> None:
        """See Span."""
        self.span.end(_nanoseconds(at))


class _Told(SpanExporter):
    """Tells once when spans begin to be lost, and once when they arrive again; the SDK would at each attempt."""

    def __init__(self, exporter: SpanExporter, say: Say) -> None:
        self._exporter = exporter
        self._say = say
        self._arrives = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = self._exporter.export(spans)
        arrives = result is SpanExportResult.SUCCESS
        if arrives and not self._arrives:
            self._say("tracing.spans_arrive", "spans reach the collector again")
        elif self._arrives and not arrives:
            self._say("tracing.spans_lost", "spans do not reach the collector, and are lost: check OTEL_EXPORTER_OTLP_ENDPOINT")
        self._arrives = arrives
        return result

    def hush(self) -> None:
        """Tell nothing any more."""
        self._say = lambda _event, _why: None

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanExporter."""
        return self._exporter.force_flush(timeout_millis)


_ROOT = NonRecordingSpan(SpanContext(0, 0, is_remote=False))  # is no parent, whatever is current in this thread


def _resource(service: str, instance: str) -> Resource:
    """Who sends the spans. What the operator's variables say of it wins."""
    said = Resource.create().attributes
    unsaid = str(said.get("service.name", "")).startswith("unknown_service")
    own = {"service.name": service, "service.version": __version__, "service.instance.id": instance}
    return Resource({**own, **{name: value for name, value in said.items() if not (unsaid and name == "service.name")}})


def _otel(parent: TraceContext | Span | None) -> OtelSpan:
    if isinstance(parent, _OtelSpan):
        return parent.span
    context = parent.context if isinstance(parent, Span) else parent
    return _ROOT if context is None else NonRecordingSpan(_remote(context))


def _remote(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([context.state]) if context.state else None
    trace_id, span_id = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags, trace_state=state)


def _nanoseconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment * 1e9)
