"""Traces, as a real collector of OpenTelemetry gets them from real workers: of an event, of its batch, and of a search."""

import gc
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import httpx
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from livedex.core.trace_context import TraceContext
from livedex.index.app import IndexApp
from livedex.index.batch import Batch
from livedex.index.journey import Journey
from livedex.query.app import QueryApp
from support.asking import watched
from support.collector import Collector, Span
from support.kafka import Log
from support.waiting import until
from support.workers import Metrics, Workers

App = TypeVar("App", IndexApp, QueryApp)
CLOCK = 1e-3  # seconds that two clocks of one machine may differ by
STAGES = ["plan", "embed", "stage", "apply"]
SECRET = "pomegranate"  # a word of documents and questions


class Traced:
    """Workers in this process that send their spans to a collector, and a producer whose own spans nobody sees."""

    def __init__(self, workers: Workers, log: Log, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
        self.collector = collector
        self.topic = log.topic()
        self.config = workers.config(self.topic)
        workers.apply(self.config)
        self._workers, self._log, self._monkeypatch = workers, log, monkeypatch

    @contextmanager
    def index(self, **environment: str) -> Iterator[IndexApp]:
        """An index worker at work."""
        with self._in_thread(IndexApp, environment) as app:
            yield app

    @contextmanager
    def serve(self, **environment: str) -> Iterator[str]:
        """The address of a query worker."""
        with self._in_thread(QueryApp, environment) as app:
            yield f"http://{app.http.address}"

    @contextmanager
    def _in_thread(self, kind: type[App], environment: dict[str, str]) -> Iterator[App]:
        for name, value in {**self.collector.environment, **environment}.items():
            self._monkeypatch.setenv(name, value)
        app = kind(self._workers.settings(self.config))
        with self._workers.in_thread(app):
            yield app

    def send(self, *headers: tuple[str, bytes], **event: Any) -> int:
        """An event, its offset, once it is searchable."""
        place = self._log.send(self.topic, {"id": "a", "text": f"A text of {SECRET}.", **event}, headers=list(headers))
        self._workers.caught_up(self.topic, {0: place.offset + 1})
        return place.offset

    def post(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Events with a context each."""
        for trace, event in events:
            self._log.post(self.topic, event, headers=[parent(trace)])
        self._log.flush()

    def ends(self, *traces: str) -> list[Span]:
        """The spans of the events with these contexts."""
        name = f"process {self.topic}"
        return [next(span for span in self.collector.await_trace(trace, name) if span.name == name) for trace in traces]

    def ended(self, trace: str, outcome: str) -> list[Span]:
        """Those of them that say that this became of the event."""
        return [span for span in self.collector.of(trace) if span.attributes.get("livedex.outcome") == outcome]


def trace_id() -> str:
    """One that nobody has."""
    return secrets.token_hex(16)


def parent(trace: str, *, sampled: bool = True) -> tuple[str, bytes]:
    """The header of a span in this trace."""
    return "traceparent", f"00-{trace}-00f067aa0ba902b7-{int(sampled):02x}".encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One that takes everything."""
    with Collector() as own:
        yield own


@pytest.fixture
def traced(workers: Workers, log: Log, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Traced:
    """Workers that are not started yet."""
    return Traced(workers, log, collector, monkeypatch)


def below(spans: list[Span], root: Span) -> list[Span]:
    """The children of a span, in their order."""
    return [span for span in spans if span.parent_id == root.span_id]


def test_an_event_is_followed_from_its_producer_until_it_is_searchable(traced: Traced, collector: Collector) -> None:
    """In the producer's own trace there are the poll and the four stages of its event, in order, under one span that says which
    record it was and what became of it.
    """
    trace = trace_id()
    with traced.index():
        offset = traced.send(parent(trace), ("tracestate", b"vendor=1"))
        whole = traced.ends(trace)[0]
        spans = collector.await_trace(trace, "apply")
    assert (whole.parent_id, whole.kind, whole.state) == ("00f067aa0ba902b7", "consumer", "vendor=1")
    assert whole.attributes == {
        "messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": traced.topic, "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": traced.topic, "messaging.kafka.offset": offset,
        "messaging.message.body.size": len(json.dumps({"id": "a", "text": f"A text of {SECRET}."})),
        "livedex.collection": "default", "livedex.outcome": "applied",
    }  # fmt: skip
    assert whole.service == "livedex-index"
    assert {"service.version", "service.instance.id"} <= whole.resource.keys()
    children = below(spans, whole)
    assert [(span.name, span.kind) for span in children] == [
        (f"poll {traced.topic}", "client"), *((name, "internal") for name in STAGES),
    ]  # fmt: skip
    assert all(span.start <= span.end for span in spans)
    assert all(one.end <= other.start + CLOCK for one, other in pairwise(children))
    assert whole.start <= children[0].start
    assert whole.end >= children[-1].end - CLOCK
    assert not any(span.failed for span in spans)


def test_a_poll_is_part_of_an_event_since_the_event_was_written(traced: Traced, log: Log) -> None:
    """A poll that waited before is shown from when the record was there on, and by a clock that is ahead it took no time."""
    ahead, past = trace_id(), trace_id()
    with traced.index():
        for trace, clock in ((ahead, 1800), (past, -1800)):
            written = int((time.time() + clock) * 1000)
            log.send(traced.topic, {"id": "a", "text": trace}, headers=[parent(trace)], timestamp_ms=written)
            traced.collector.await_trace(trace, f"poll {traced.topic}", "apply")
        polls = [below(traced.collector.of(trace), traced.ends(trace)[0])[0] for trace in (ahead, past)]
    assert [poll.name for poll in polls] == [f"poll {traced.topic}"] * 2
    assert polls[0].end == polls[0].start
    assert 0 < polls[1].end - polls[1].start < 60


def test_a_batch_has_a_trace_of_its_own_that_leads_to_its_records(traced: Traced, collector: Collector) -> None:
    """Many records of one batch are one span for each stage, with links to a bounded number of their producers' spans; and each
    of the records is followed in its own trace, which leads back.
    """
    traces = [trace_id() for _ in range(300)]
    traced.post([(trace, {"id": str(number), "text": f"Text {number}."}) for number, trace in enumerate(traces)])
    with traced.index():
        ends = traced.ends(*traces)
    batches = [span for span in collector.named(f"process {traced.topic}") if span.trace_id not in traces]
    assert sum(span.attributes["messaging.batch.message_count"] for span in batches) == 300
    assert max(span.attributes["messaging.batch.message_count"] for span in batches) > 64
    assert len(batches) < 10
    for whole in batches:
        assert (whole.parent_id, whole.kind) == ("", "consumer")
        assert len(whole.links) == min(64, whole.attributes["messaging.batch.message_count"])
        assert {trace for trace, _ in whole.links} <= set(traces)
        names = [span.name for span in below(collector.of(whole.trace_id), whole)]
        assert names[-4:] == STAGES
        assert set(names[:-4]) == {f"poll {traced.topic}"}
    assert {span.links[0] for span in ends} == {(whole.trace_id, whole.span_id) for whole in batches}
    assert all(len(collector.of(trace)) == 6 for trace in traces)


def test_nothing_is_kept_of_events_that_are_done(traced: Traced) -> None:
    """Once their spans are sent, no context, journey or batch of them is left in memory."""
    before = {id(each) for each in of_events()}  # that other tests of this process keep
    traced.post([(trace_id(), {"id": str(number), "text": f"Text {number}."}) for number in range(100)])
    with traced.index():
        last = trace_id()
        traced.send(parent(last), id="last")
        traced.ends(last)
        until(lambda: {id(each) for each in of_events()} <= before, what="all of them to be gone")


def of_events() -> list[object]:
    """What there is in memory of events under way."""
    return [each for each in gc.get_objects() if isinstance(each, TraceContext | Journey | Batch)]


def test_what_becomes_of_an_event_is_said(traced: Traced, log: Log) -> None:
    """A dead letter has failed, for its reason; a repeated document is unchanged; a null value is a tombstone."""
    traces = [trace_id() for _ in range(4)]
    with traced.index():
        traced.send(parent(traces[0]))
        traced.send(parent(traces[1]))
        traced.send(parent(traces[2]), text=7)
        log.send(traced.topic, None, key="a", headers=[parent(traces[3])])
        ends = traced.ends(*traces)
    assert [span.attributes["livedex.outcome"] for span in ends] == ["applied", "unchanged", "dead_letter", "applied"]
    assert [span.failed for span in ends] == [False, False, True, False]
    assert ends[2].attributes["error.type"] == "schema"
    assert ends[3].attributes["messaging.kafka.message.tombstone"] is True


def test_a_batch_that_is_dropped_has_failed_and_its_next_try_has_not(traced: Traced, workers: Workers) -> None:
    """In the trace of the event both tries can be seen, the first with the stage that failed and the kind of failure."""
    trace = trace_id()
    with traced.index():
        traced.send(id="before")
        with workers.connect() as connection, connection.transaction():
            connection.execute("lock table livedex.document in access exclusive mode")
            traced.post([(trace, {"id": "a", "text": "A text."})])
            first = traced.ends(trace)[0]
        applied = until(lambda: traced.ended(trace, "applied"), what="the try that came true")
        spans = traced.collector.await_trace(trace, "apply")
    assert (first.failed, first.attributes["livedex.outcome"]) == (True, "dropped")
    failed = below(spans, first)[-1]
    assert failed.failed
    assert failed.attributes["error.type"] == first.attributes["error.type"] == "ConflictError"
    assert not applied[0].failed
    assert [span.name for span in below(spans, applied[0])] == [f"poll {traced.topic}", *STAGES]


MALFORMED = {
    "wrong length": [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0")],
    "all zeros": [("traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01")],
    "no hex": [("traceparent", b"00-" + b"z" * 32 + b"-00f067aa0ba902b7-01")],
    "huge": [("traceparent", b"00-" + b"4" * 2**19)],
    "no ASCII": [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473\u0664-00f067aa0ba902b7-01".encode())],
    "no UTF-8": [("traceparent", bytes(range(128, 183)))],
    "two": [parent("4bf92f3577b34da6a3ce929d0e0e4736"), parent("4bf92f3577b34da6a3ce929d0e0e4737")],
    "empty": [("traceparent", b"")],
    "only a state": [("tracestate", b"a=1")],
    "a bad state": [parent("4bf92f3577b34da6a3ce929d0e0e4738"), ("tracestate", b"\xff" * 2000)],
}


def test_a_malformed_traceparent_is_nobodys_error(traced: Traced, workers: Workers) -> None:
    """Whatever stands in the headers, the event is applied, there is no dead letter, and the worker says nothing."""
    with capture_logs() as lines, traced.index() as app:
        for number, headers in enumerate(MALFORMED.values()):
            traced.send(*headers, id=str(number))
        traced.ends("4bf92f3577b34da6a3ce929d0e0e4738")
        metrics = Metrics(generate_latest(app.metrics.registry).decode())
    assert metrics.value("livedex_events_total", outcome="applied") == len(MALFORMED)
    assert metrics.value("livedex_retries_total") == 0
    assert workers.rows("select count(*) from livedex.documents") == [(len(MALFORMED),)]
    assert workers.rows("select count(*) from livedex.dead_letters") == [(0,)]
    assert [line for line in lines if line["log_level"] not in {"debug", "info"}] == []
    ends = [span for span in traced.collector.named(f"process {traced.topic}") if "messaging.kafka.offset" in span.attributes]
    assert [span.trace_id for span in ends] == ["4bf92f3577b34da6a3ce929d0e0e4738"], "a good context with a bad state, no other"


def test_what_a_producer_does_not_record_is_not_recorded_here(traced: Traced, collector: Collector) -> None:
    """The usual samplers keep to the flag that comes in, and OTEL_TRACES_SAMPLER says what is done without one."""
    dark, light = trace_id(), trace_id()
    with traced.index(OTEL_TRACES_SAMPLER="parentbased_always_off"):
        traced.send(parent(dark, sampled=False))
        traced.send(parent(light))
        collector.await_trace(light, f"process {traced.topic}", *STAGES)
    assert {span.trace_id for span in collector.spans} == {light}, (
        "neither the dark event nor the batches, which have no parent"
    )


def test_spans_hold_no_text(traced: Traced, collector: Collector) -> None:
    """Neither a document's text, title, id or metadata, nor a question, is in anything that is sent, failures included."""
    traces = [trace_id(), trace_id(), trace_id()]
    with traced.index():
        traced.send(parent(traces[0]), id=f"{SECRET}-id", title=f"The {SECRET}", metadata={"of": SECRET})
        traced.send(parent(traces[1]), id=f"{SECRET}-id", op=SECRET)
        traced.ends(*traces[:2])
    with traced.serve() as address:
        for query in ({"q": SECRET}, {"q": SECRET, "mode": SECRET}, {"q": SECRET, "filter": f'{{"of": "{SECRET}"}}'}):
            httpx.get(f"{address}/v1/search", params=query, headers=http(parent(traces[2])), trust_env=False)
        until(lambda: len(collector.named("GET /v1/search")) == 3, what="three searches")
    assert not any(SECRET.encode() in body for body in collector.bodies)


def http(*headers: tuple[str, bytes]) -> list[tuple[bytes, bytes]]:
    """Headers as an HTTP client takes them, whatever bytes they hold."""
    return [(name.encode(), value) for name, value in headers]


def test_a_search_continues_the_trace_of_whoever_asks(traced: Traced, collector: Collector) -> None:
    """The server's span is below the client's, and has the embedding and the SQL below it; a refused search says its code, a
    malformed context begins a trace, and who asks for health or metrics leaves no span.
    """
    trace = trace_id()
    with traced.index():
        traced.send()
    with traced.serve() as address, httpx.Client(base_url=address, trust_env=False, timeout=20) as client:

        def search(*headers: tuple[str, bytes], **body: Any) -> httpx.Response:
            return client.post("/v1/search", json={"query": "a text", **body}, headers=http(*headers))

        assert search(parent(trace), mode="vector").json()["results"]
        spans = collector.await_trace(trace, "POST /v1/search")
        malformed = [b"00-00-00-00", b"\xff" * 55, parent(trace)[1] + b", " + parent(trace)[1], b"0" * 2**14]
        for value in malformed:
            assert search(("traceparent", value)).status_code == httpx.codes.OK
        assert search(parent(trace), parent(trace), mode="what").status_code == httpx.codes.BAD_REQUEST
        for path in ("/healthz", "/readyz", "/metrics", "/v1/nothing"):
            client.get(path)
        until(lambda: collector.named("GET"), what="the span of what is not there")
    server, embed, sql = spans
    assert (server.service, server.kind, server.parent_id) == ("livedex-serve", "server", "00f067aa0ba902b7")
    assert server.attributes == {
        "http.request.method": "POST", "url.path": "/v1/search", "url.scheme": "http", "http.route": "/v1/search",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert [(span.name, span.parent_id) for span in (embed, sql)] == [("embed", server.span_id), ("sql", server.span_id)]
    assert sql.attributes == {
        "db.system.name": "postgresql", "livedex.collection": "default", "livedex.mode": "vector", "livedex.k": 10,
    }  # fmt: skip
    others = [span for span in collector.named("POST /v1/search") if span.trace_id != trace]
    assert [span.parent_id for span in others] == [""] * (len(malformed) + 1)
    assert others[-1].attributes["http.response.status_code"] == httpx.codes.BAD_REQUEST
    assert not others[-1].failed, "what a client did wrong is no failure of the server"
    served = {span.name for span in collector.spans if span.service == "livedex-serve"}
    assert served == {"POST /v1/search", "embed", "sql", "GET"}


def test_several_searches_at_once_are_one_request(traced: Traced, collector: Collector) -> None:
    """Below the span of the request there are one embedding for all texts and the SQL of each."""
    trace = trace_id()
    with traced.serve() as address:
        body = {"searches": [{"query": "one"}, {"query": "two"}]}
        httpx.post(f"{address}/v1/search/batch", json=body, headers=http(parent(trace)), trust_env=False)
        server, *others = collector.await_trace(trace, "POST /v1/search/batch")
    assert [(span.name, span.parent_id) for span in others] == [(name, server.span_id) for name in ("embed", "sql", "sql")]


def test_a_search_in_sql_begins_a_trace(traced: Traced, workers: Workers, collector: Collector) -> None:
    """What the query worker embeds for a session is a span."""
    with traced.serve():
        until(lambda: watched(workers.database_url), what="a worker that looks into the mailbox")
        assert workers.rows("select document_id from livedex.search('a text', timeout => interval '20 s')") == []
        root = until(lambda: collector.named("answer sql"), what="the span of the answer")[0]
        spans = collector.await_trace(root.trace_id, "embed")
    assert (root.parent_id, root.attributes) == ("", {"livedex.collection": "default", "livedex.questions": 1})
    assert [span.name for span in below(spans, root)] == ["embed"]


def test_what_livedex_publishes_begins_a_trace_each(traced: Traced, workers: Workers, collector: Collector) -> None:
    """A document that `livedex publish` sends is found, with its way through the index worker, in one trace."""
    paths = [workers.folder / f"{name}.md" for name in ("one", "two")]
    for path in paths:
        path.write_text(f"# {path.stem}")
    with traced.index():
        done = workers.run("publish", *map(str, paths), "--wait", config=traced.config, **collector.environment)
        assert done.returncode == 0, done.stderr
        sent = collector.named(f"send {traced.topic}")
        ends = traced.ends(*(span.trace_id for span in sent))
    assert len({span.trace_id for span in sent}) == len(paths)
    for span, followed in zip(sent, ends, strict=True):
        assert (span.kind, span.parent_id, span.service) == ("producer", "", "livedex-publish")
        assert followed.parent_id == span.span_id
        assert followed.attributes["messaging.kafka.offset"] == span.attributes["messaging.kafka.offset"]


def test_a_collector_that_is_away_holds_up_nothing(traced: Traced, collector: Collector) -> None:
    """Events are applied, and one line says that spans are lost, one that they arrive again."""
    collector.refuses = True
    with capture_logs() as lines, traced.index():
        for _ in range(3):
            asked = collector.requests
            traced.send(parent(trace_id()))
            until(lambda: collector.requests > asked, what="another attempt")  # noqa: B023
        collector.refuses = False
        trace = trace_id()
        traced.send(parent(trace))
        traced.ends(trace)
        until(lambda: "tracing.spans_arrive" in [line["event"] for line in lines], what="the line that spans arrive")
    assert [line["event"] for line in lines].count("tracing.spans_lost") == 1


def test_the_last_spans_are_sent_at_the_end(traced: Traced, collector: Collector) -> None:
    """A worker that stops sends what waits, although the next sending was an hour away."""
    trace = trace_id()
    with traced.index(OTEL_BSP_SCHEDULE_DELAY="3600000"):
        traced.send(parent(trace))
        assert collector.requests == 0
    assert {f"process {traced.topic}", *STAGES} <= {span.name for span in collector.of(trace)}


WITHOUT_EXTRA = "import sys; sys.modules['opentelemetry.sdk'] = None; from livedex.cli import main; main()"


def test_without_the_extra_traces_are_said_to_be_off(traced: Traced, workers: Workers, log: Log, collector: Collector) -> None:
    """An endpoint without the extra is told, with the remedy, and the rest works."""
    path = workers.folder / "one.md"
    path.write_text("# one")
    done = workers.run_code(WITHOUT_EXTRA, "publish", str(path), config=traced.config, **collector.environment)
    assert done.returncode == 0, done.stderr
    assert "pip install livedex[tracing]" in " ".join(done.stderr.split())
    assert done.stdout.count("\n") == 1, "the token, and nothing else"
    assert collector.requests == 0
    assert [record.headers for record in log.records(traced.topic)] == [()]
