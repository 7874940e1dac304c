"""From a metric to a trace: exemplars, as a real Prometheus takes them from real workers."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
from support.collector import Collector
from support.kafka import Log
from support.prometheus import Prometheus, scrape_config
from support.waiting import until
from support.workers import Workers

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OF_EVENTS = ("livedex_freshness_seconds", "livedex_embedding_lag_seconds", "livedex_stage_seconds")
OF_SEARCHES = ("livedex_search_seconds", "livedex_search_stage_seconds")
STAGES = {"poll", "plan", "embed", "stage", "apply"}


def traceparent(trace: str, *, sampled: bool = True) -> str:
    """A header that continues a trace."""
    return f"00-{trace}-00f067aa0ba902b7-{int(sampled):02x}"


def open_metrics(text: str) -> list[Metric]:
    """The families of OpenMetrics; ValueError where it is not well formed."""
    return list(strict_families(text))  # type: ignore[no-untyped-call]


class Scene:
    """Both workers in this process, and how an event and a search are sent to them."""

    def __init__(self, workers: Workers, log: Log, topic: str, index: str, serve: str) -> None:
        self.addresses = {"index": [index], "serve": [serve]}
        self._workers, self._log, self._topic, self.index, self.serve = workers, log, topic, index, serve

    def send(self, header: str | None = None) -> None:
        """An event, until it is searchable."""
        headers = [] if header is None else [("traceparent", header.encode())]
        place = self._log.send(self._topic, {"id": "a", "text": f"A text {secrets.token_hex(4)}."}, headers=headers)
        self._workers.caught_up(self._topic, {0: place.offset + 1})
        until(lambda: f'outcome="applied"}} {place.offset + 1}.0' in self.metrics(self.index), what="the event to be counted")

    def search(self, header: str | None = None) -> None:
        """A search by meaning."""
        headers = {} if header is None else {"traceparent": header}
        answer = httpx.get(f"{self.serve}/v1/search", params={"q": "text"}, headers=headers, trust_env=False)
        assert answer.json()["results"]

    def metrics(self, address: str, accept: str = "*/*") -> str:
        """The metrics of a worker."""
        return httpx.get(f"{address}/metrics", headers={"accept": accept}, trust_env=False).text

    def traces(self, *names: str) -> dict[str, set[str]]:
        """The trace ids of the exemplars of these metrics now."""
        families = [each for of in (self.index, self.serve) for each in open_metrics(self.metrics(of, OPEN_METRICS))]
        samples = [sample for family in families for sample in family.samples]
        return {
            name: {sample.exemplar.labels["trace_id"] for sample in samples if sample.exemplar and sample.name.startswith(name)}
            for name in names
        }


OpenScene = Callable[[], AbstractContextManager[Scene]]


@pytest.fixture
def scene(workers: Workers, log: Log) -> OpenScene:
    """Starts both workers."""

    @contextmanager
    def started() -> Iterator[Scene]:
        topic = log.topic()
        config = workers.config(topic)
        workers.apply(config)
        index, serve = IndexApp(workers.settings(config)), QueryApp(workers.settings(config))
        with workers.in_thread(index) as of_index, workers.in_thread(serve) as of_serve:
            yield Scene(workers, log, topic, of_index, of_serve)

    return started


def test_prometheus_finds_the_traces_of_events_and_searches(scene: OpenScene, tmp_path: Path) -> None:
    """Without OpenTelemetry, what a producer and a client began is found by Prometheus beside each of the five histograms, with
    every stage; and what they do not record is not.
    """
    event, asked, dark = secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16)
    with scene() as both, Prometheus(scrape_config(both.addresses), tmp_path) as prometheus:
        prometheus.wait_for_targets()
        began = time.time() - 60
        both.send(traceparent(event))
        both.send(traceparent(dark, sampled=False))
        both.send()
        both.search(traceparent(asked))
        both.search(traceparent(dark, sampled=False))
        both.search()

        def found(name: str, label: str = "") -> set[tuple[str, str]]:
            series = prometheus.get("query_exemplars", query=f"{name}_bucket", start=began, end=time.time() + 60)
            return {
                (row["seriesLabels"].get(label, ""), exemplar["labels"]["trace_id"])
                for row in series
                for exemplar in row["exemplars"]
            }

        for name in OF_EVENTS:
            until(lambda: found(name), what=f"exemplars of {name}")  # noqa: B023
        until(lambda: len(found("livedex_stage_seconds", "stage")) == len(STAGES), what="exemplars of all stages")
        for name in OF_SEARCHES:
            until(lambda: found(name), what=f"exemplars of {name}")  # noqa: B023
        assert {name: found(name) for name in OF_EVENTS} == {name: {("", event)} for name in OF_EVENTS}
        assert found("livedex_stage_seconds", "stage") == {(stage, event) for stage in STAGES}
        assert found("livedex_search_seconds", "mode") == {("hybrid", asked)}
        assert found("livedex_search_stage_seconds", "stage") == {("embed", asked), ("sql", asked)}


def test_own_traces_stand_for_what_has_none(scene: OpenScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a collector, an event and a search that nobody traced are found too: by the batch's trace and the request's."""
    with Collector() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        with scene() as both:
            both.send()
            both.search()
            exemplars = both.traces(*OF_EVENTS, "livedex_search_seconds")
            until(lambda: collector.named("apply") and collector.named("GET /v1/search"), what="the spans")
    batch, request = {span.trace_id for span in collector.named("apply")}, {span.trace_id for span in collector.named("sql")}
    assert exemplars == {**dict.fromkeys(OF_EVENTS, batch), "livedex_search_seconds": request}


def test_metrics_are_what_the_one_who_asks_can_read(scene: OpenScene) -> None:
    """OpenMetrics where it is accepted, the older text otherwise; both are well formed as a whole, and have the same series."""
    with scene() as both:
        both.send(traceparent(secrets.token_hex(16)))
        both.search(traceparent(secrets.token_hex(16)))
        for address in (both.index, both.serve):
            for accept, form in ((OPEN_METRICS, "application/openmetrics-text"), ("*/*", "text/plain"), ("", "text/plain")):
                answer = httpx.get(f"{address}/metrics", headers={"accept": accept}, trust_env=False)
                assert answer.headers["content-type"].startswith(form)
                assert ("trace_id" in answer.text) is (accept == OPEN_METRICS)
                assert answer.text.endswith("# EOF\n") is (accept == OPEN_METRICS)
            text, strict = both.metrics(address), both.metrics(address, OPEN_METRICS)
            named = [
                {sample.name for family in families for sample in family.samples}
                for families in (plain_families(text), open_metrics(strict))
            ]
            assert {name for name in named[0] ^ named[1] if not name.endswith("_created")} == set()
