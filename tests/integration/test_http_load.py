"""More searches than can be served: some are served, some later, the rest are told so; and several searches in one request."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.dev.stack import Addresses
from livedex.encoders import Encoder
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from support.served import TEXTS, TOPIC, Served, is_problem, names, serving
from support.waiting import until

QUEUE = 4
CONNECTIONS = 50  # of the client: more than slots and queue


class SlowEncoder(HashEncoder):
    """Notes its calls; refuses texts that begin with `bad`; while it is `held`, calls wait."""

    calls: list[list[str]]
    go_on: threading.Event

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        self.calls.append(list(texts))
        assert self.go_on.wait(60)
        if any(text.startswith("bad") for text in texts):
            raise ValueError("the model refuses this text")
        return super().encode_queries(texts)


class Worker:
    """A query worker whose model can be held."""

    def __init__(self, served: Served, encoder: SlowEncoder) -> None:
        self.served = served
        self.encoder = encoder
        self.slots = served.app._answering._admission._slots

    @contextmanager
    def full(self, pool: ThreadPoolExecutor) -> "Iterator[list[Future[httpx.Response]]]":
        """Every slot is taken by a search, and QUEUE more wait; all go on at the end."""
        self.encoder.go_on.clear()
        asked: list[Future[httpx.Response]] = []
        try:
            asked += [
                pool.submit(self.served.ask, query=f"slow {n}", mode="vector", timeout_ms=30_000) for n in range(self.slots)
            ]
            until(lambda: self.served.app._answering._admission._free == 0, what="every slot to be taken")
            asked += [pool.submit(self.served.ask, query=f"queued {n}", mode="text", timeout_ms=30_000) for n in range(QUEUE)]
            until(lambda: self.waiting() == QUEUE, what="the queue to be full")
            yield asked
        finally:
            self.encoder.go_on.set()

    def waiting(self) -> float:
        """How many the metric says."""
        return self.served.metrics().value("livedex_search_waiting")


@pytest.fixture(scope="module")
def worker(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """With a short queue."""
    made: list[SlowEncoder] = []

    def open_encoder(_embedder: EmbedderName, generation: Generation) -> Encoder:
        encoder = SlowEncoder(generation.model_spec)
        encoder.calls, encoder.go_on = [], threading.Event()
        encoder.go_on.set()
        made.append(encoder)
        return encoder

    folder: Path = tmp_path_factory.mktemp("http")
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with (
        serving(stack, template, folder, open_encoder=open_encoder, http_queue=QUEUE) as served,
        httpx.Client(base_url=served.client.base_url, timeout=60, trust_env=False, limits=limits) as client,
    ):
        yield Worker(Served(served.app, client, served.workers), made[0])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Those who ask at once."""
    with ThreadPoolExecutor(CONNECTIONS) as made:
        yield made


def test_one_more_than_may_wait_is_429(worker: Worker, pool: ThreadPoolExecutor) -> None:
    """At once, with Retry-After and the count; those who were there before are all answered, and then everybody is."""
    before = worker.served.metrics()
    with worker.full(pool) as asked:
        for refused in (worker.served.ask(query="x"), worker.served.ask_all({"query": "x"}, {"query": "y"})):
            is_problem(refused, 429, f"{QUEUE} searches wait already")
            assert refused.headers["retry-after"] == "1"
        for path in ("/healthz", "/readyz", "/metrics", "/v1/status"):
            assert worker.served.client.get(path).status_code == 200, "an operator sees a busy worker"
    assert {each.result().status_code for each in asked} == {200}
    assert (worker.waiting(), worker.served.ask(query="x").status_code) == (0, 200)
    after = worker.served.metrics()
    codes = {
        code: after.value("livedex_search_requests_total", code=code) - before.value("livedex_search_requests_total", code=code)
        for code in ("200", "429")
    }
    assert codes == {"200": worker.slots + QUEUE + 1, "429": 2}


def test_who_waits_too_long_is_504_and_dropped_unserved(worker: Worker, pool: ThreadPoolExecutor) -> None:
    """Its deadline ends its wait while others still wait; its text is never embedded, and its place is free."""
    worker.encoder.calls.clear()
    worker.encoder.go_on.clear()
    slow = [pool.submit(worker.served.ask, query=f"again {n}", mode="vector", timeout_ms=30_000) for n in range(worker.slots)]
    until(lambda: worker.served.app._answering._admission._free == 0, what="every slot to be taken")
    try:
        for _ in range(QUEUE + 1):
            is_problem(worker.served.ask(query="expired", mode="vector", timeout_ms=50), 504, "turn")
        (late,) = worker.served.ask_all({"query": "expired", "timeout_ms": 50}).json()["results"]
        assert late["status"] == 504
    finally:
        worker.encoder.go_on.set()
    assert {each.result().status_code for each in slow} == {200}
    assert "expired" not in str(worker.encoder.calls)


def test_one_that_is_worked_on_too_long_is_504(worker: Worker, pool: ThreadPoolExecutor) -> None:
    """The deadline holds inside, too: while another's text is being embedded."""
    worker.encoder.go_on.clear()
    first = pool.submit(worker.served.ask, query="first of two", mode="vector", timeout_ms=30_000)
    try:
        until(lambda: ["first of two"] in worker.encoder.calls, what="the model to be busy")
        started = time.monotonic()
        is_problem(worker.served.ask(query="second of two", mode="vector", timeout_ms=50), 504, "embedded")
        assert time.monotonic() - started < 10, "as soon as the deadline has passed"
        assert names(worker.served.ask(query=TEXTS["clocks"], mode="text")) == ["clocks"], "a search by words needs no model"
    finally:
        worker.encoder.go_on.set()
    assert first.result().status_code == 200


def test_searches_that_come_at_once_share_a_call_of_the_model(worker: Worker, pool: ThreadPoolExecutor) -> None:
    """While the model is busy with one, the others wait for each other; every answer is that of its text."""
    worker.encoder.calls.clear()
    worker.encoder.go_on.clear()
    texts = [f"{text} At once." for text in list(TEXTS.values())[: worker.slots - 1]]
    first = pool.submit(worker.served.ask, query="the first", mode="vector", timeout_ms=30_000)
    try:
        until(lambda: worker.encoder.calls == [["the first"]], what="the model to be busy")
        asked = [pool.submit(worker.served.ask, query=text, timeout_ms=30_000) for text in texts]
        until(lambda: len(worker.served.app._embedder._waiting) == len(texts), what="the others to wait")
    finally:
        worker.encoder.go_on.set()
    assert [names(each.result())[0] for each in asked] == list(TEXTS)[: len(texts)]
    assert first.result().status_code == 200
    assert sorted(worker.encoder.calls[1]) == sorted(texts)


# --- several searches in one request


def test_a_batch_answers_each_in_its_place(worker: Worker) -> None:
    """What is wrong with one is told in its place."""
    bodies: list[dict[str, Any]] = [
        {"query": TEXTS["apples"], "k": 1},
        {"query": "absent", "collection": "absent"},
        {"query": TEXTS["bridges"], "mode": "vector", "k": 2},
        {"query": "clocks", "mode": "text"},
        {"query": "x", "rerank": True},
        {"query": TEXTS["clocks"], "filter": {"initial": "a"}},
    ]
    response = worker.served.ask_all(*bodies)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [each["status"] for each in results] == [200, 404, 200, 200, 400, 200]
    found = [[row["document_id"] for row in each["results"]] if each["status"] == 200 else each["detail"] for each in results]
    assert found[0] == ["apples"]
    assert "absent" in found[1]
    assert (found[2][0], len(found[2])) == ("bridges", 2)
    assert (found[3], found[5]) == (["clocks"], ["apples"])
    assert "rerank" in found[4]
    assert results[0].keys() == {"status", "results", "took_ms", "generation", "degraded"}
    assert results[1].keys() >= {"type", "title", "status", "detail"}


def test_a_batch_is_embedded_in_one_call(worker: Worker) -> None:
    """Equal texts once, those of searches by words not at all."""
    worker.encoder.calls.clear()
    texts = [f"a new text {n}" for n in range(20)]
    worker.served.ask_all(*({"query": text} for text in [*texts, *texts[:5]]), {"query": "words", "mode": "text"})
    assert worker.encoder.calls == [texts]


def test_a_batch_finds_what_single_searches_find(worker: Worker) -> None:
    """The same rows and scores."""
    bodies = [{"query": text, "mode": mode} for text in TEXTS.values() for mode in ("hybrid", "vector", "text")]
    together = worker.served.ask_all(*bodies).json()["results"]
    alone = [worker.served.ask(**body).json() for body in bodies]
    assert [each["results"] for each in together] == [each["results"] for each in alone]


def test_a_text_that_the_model_refuses_fails_alone(worker: Worker) -> None:
    """500 in its place, the others are answered."""
    response = worker.served.ask_all({"query": "bad text"}, {"query": TEXTS["apples"]})
    assert [each["status"] for each in response.json()["results"]] == [500, 200]


def test_searches_of_a_batch_wait_for_their_own_event(worker: Worker) -> None:
    """One whose event does not come delays the answer, and no other search; each deadline is its own."""
    response = worker.served.ask_all(
        {"query": TEXTS["apples"], "after": f"{TOPIC}:0:9"},
        {"query": TEXTS["bridges"], "after": f"{TOPIC}:0:10", "timeout_ms": 300},
        {"query": TEXTS["clocks"], "timeout_ms": 200},
        {"query": "x", "after": "no token"},
    )
    results = response.json()["results"]
    assert [each["status"] for each in results] == [200, 504, 200, 400]
    assert results[0]["results"][0]["document_id"] == "apples"
    assert f"{TOPIC}:0:10" in results[1]["detail"]


def test_a_batch_is_counted_by_its_searches(worker: Worker) -> None:
    """Each by its own code."""
    before = worker.served.metrics()
    worker.served.ask_all({"query": "x", "mode": "text"}, {"query": "x", "collection": "absent", "mode": "text"})
    worker.served.ask_all()
    after = worker.served.metrics()

    def rise(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    counted = {code: rise("livedex_search_requests_total", route="http", code=code) for code in ("200", "404", "400")}
    assert counted == {"200": 1, "404": 1, "400": 1}
    assert rise("livedex_search_seconds_count", route="http", mode="text") == 2


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"searches": []}, "searches"),
        ({"searches": [{"query": "x"}] * 33}, "searches"),
        ({"searches": {"query": "x"}}, "searches"),
        ({"searches": [{"query": "x"}, {"query": "y", "k": 0}]}, "searches.1.k"),
        ({"searches": [7]}, "searches.0"),
        ({"searches": [{"query": "x"}], "k": 3}, "k"),
        ({}, "searches"),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(worker: Worker, content: dict[str, Any], field: str) -> None:
    """400 with the place of what is wrong: nothing is searched."""
    response = worker.served.client.post("/v1/search/batch", json=content)
    assert is_problem(response, 400)["errors"][0]["field"] == field


def test_the_largest_batch_is_answered_and_a_larger_one_is_413(worker: Worker) -> None:
    """32 of the longest queries."""
    longest = [{"query": f"{n} " + "x" * 8000, "mode": "vector", "timeout_ms": 30_000} for n in range(32)]
    assert {each["status"] for each in worker.served.ask_all(*longest).json()["results"]} == {200}
    is_problem(worker.served.ask_all(*[{"query": "x", "filter": {"a": "y" * 50_000}}] * 32), 413, "524288")
