"""A collector of OpenTelemetry: a real HTTP server on a free port of 127.0.0.1 that takes apart what exporters send to it."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from support.waiting import until

KINDS = {
    Sent.SPAN_KIND_INTERNAL: "internal", Sent.SPAN_KIND_SERVER: "server", Sent.SPAN_KIND_CLIENT: "client",
    Sent.SPAN_KIND_PRODUCER: "producer", Sent.SPAN_KIND_CONSUMER: "consumer",
}  # fmt: skip
FAILED = 2  # STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One that arrived."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str  # empty of a root
    state: str
    start: float  # seconds since 1970
    end: float
    attributes: dict[str, Any]
    links: list[tuple[str, str]]  # trace and span ids
    failed: bool
    resource: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """What was sent, while it is in a `with`. It refuses as long as `refuses` is set."""

    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # as they came, uncompressed
    refuses: bool = False
    requests: int = 0
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests += 1
                if collector.refuses or self.path != "/v1/traces":
                    self.send_error(HTTPStatus.BAD_REQUEST if collector.refuses else HTTPStatus.NOT_FOUND)
                    return
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                collector.bodies.append(body)
                collector.spans += _decoded(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(HTTPStatus.OK)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="collector", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, Any]:
        """That has a process send its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def of(self, trace_id: str) -> list[Span]:
        """The spans of a trace, by their beginning."""
        return sorted((span for span in list(self.spans) if span.trace_id == trace_id), key=lambda span: span.start)

    def named(self, name: str) -> list[Span]:
        """The spans of a name."""
        return [span for span in list(self.spans) if span.name == name]

    def await_trace(self, trace_id: str, *names: str, timeout: float = 30) -> list[Span]:
        """The spans of a trace, once those of these names are there."""
        until(lambda: set(names) <= {span.name for span in self.of(trace_id)}, timeout=timeout,
              what=f"{names} in the trace {trace_id}")  # fmt: skip
        return self.of(trace_id)


def _decoded(body: bytes) -> Iterator[Span]:
    for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(sent.resource.attributes)
        for scope in sent.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=resource["service.name"], name=span.name, kind=KINDS[span.kind], trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(), parent_id=span.parent_span_id.hex(), state=span.trace_state,
                    start=span.start_time_unix_nano / 1e9, end=span.end_time_unix_nano / 1e9,
                    attributes=_attributes(span.attributes), links=[(at.trace_id.hex(), at.span_id.hex()) for at in span.links],
                    failed=span.status.code == FAILED, resource=resource,
                )  # fmt: skip


def _attributes(pairs: "list[KeyValue] | Any") -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
