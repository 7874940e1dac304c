"""The query worker over HTTP: what it answers, what it refuses and how, and that no request breaks it."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from livedex.dev.stack import Addresses
from livedex.query.searcher import Search, Searcher
from support.served import MODEL, TEXTS, TOPIC, Served, is_problem, names, serving
from support.synthetic import EPOCH
from support.waiting import until


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker that asks for no tokens."""
    with serving(stack, template, tmp_path_factory.mktemp("http")) as worker:
        yield worker


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_search_answers_in_each_mode_by_body_and_by_address(served: Served, mode: str) -> None:
    """POST and GET give the same documents; the one that has the question's words and vector is first."""
    by_body = served.ask(query=TEXTS["bridges"], mode=mode, k=2)
    by_address = served.client.get("/v1/search", params={"q": TEXTS["bridges"], "mode": mode, "k": 2})
    assert names(by_body)[0] == "bridges"
    assert names(by_address) == names(by_body)
    assert len(names(by_body)) == (1 if mode == "text" else 2)


def test_the_answer_has_the_shape_of_the_contract(served: Served) -> None:
    """Exactly the documented fields, times as RFC 3339, milliseconds that add up."""
    body = served.ask(query=TEXTS["apples"], mode="vector", k=1).json()
    assert body.keys() == {"results", "took_ms", "generation", "degraded"}
    assert body["took_ms"].keys() == {"embed", "search", "rerank", "total"}
    took = body["took_ms"]
    assert 0 < took["embed"] + took["search"] <= took["total"] + 0.01
    assert took["rerank"] == 0
    assert (body["generation"], body["degraded"]) == (1, False)
    (row,) = body["results"]
    indexed_at = row.pop("indexed_at")
    assert "T" in indexed_at
    assert row.pop("score") == pytest.approx(1, abs=1e-3)
    assert row == {"document_id": "apples", "title": None, "chunk": TEXTS["apples"], "ordinal": 0, "version": 0,
                   "metadata": {"initial": "a", "n": 0}, "event_time": EPOCH.isoformat().replace("+00:00", "Z")}  # fmt: skip


def test_every_parameter_reaches_the_search(served: Served) -> None:
    """Filter, times, per_document and after mean over HTTP what they mean in SQL."""
    question = {"query": "Clocks", "k": 10}
    assert names(served.ask(**question, filter={"initial": "b"})) == ["bridges"]
    assert names(served.ask(**question, since="2026-01-01T00:00:00.000001Z")) == []
    assert len(names(served.ask(**question, until="2026-01-01T00:00:01Z", per_document=3))) == 3
    assert len(names(served.ask(**question, after=f"{TOPIC}:0:9"))) == 3
    address = {"q": "Clocks", "filter": '{"initial": "b"}', "since": "2025-01-01T00:00:00Z", "after": f"{TOPIC}:0:9"}
    assert names(served.client.get("/v1/search", params=address)) == ["bridges"]


BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "query"),
    ({"query": ""}, "query"),
    ({"query": "x" * 8193}, "query"),
    ({"query": "a\0b"}, "query"),
    ({"query": 7}, "query"),
    ({"query": "x", "k": 0}, "k"),
    ({"query": "x", "k": -1}, "k"),
    ({"query": "x", "k": 1001}, "k"),
    ({"query": "x", "k": 1_000_000}, "k"),
    ({"query": "x", "k": "5"}, "k"),
    ({"query": "x", "k": True}, "k"),
    ({"query": "x", "k": "many"}, "k"),
    ({"query": "x", "per_document": 0}, "per_document"),
    ({"query": "x", "mode": "fuzzy"}, "mode"),
    ({"query": "x", "filter": []}, "filter"),
    ({"query": "x", "filter": "x"}, "filter"),
    ({"query": "x", "filter": None}, "filter"),
    ({"query": "x", "filter": {"a": "b\0"}}, "filter"),
    ({"query": "x", "filter": {"a\0": "b"}}, "filter"),
    ({"query": "x", "since": "yesterday"}, "since"),
    ({"query": "x", "since": 1767225600}, "since"),
    ({"query": "x", "since": "1767225600"}, "since"),
    ({"query": "x", "since": "2026-01-01T00:00:00"}, "since"),
    ({"query": "x", "timeout_ms": 0}, "timeout_ms"),
    ({"query": "x", "timeout_ms": 60_001}, "timeout_ms"),
    ({"query": "x", "collection": "a\0"}, "collection"),
    ({"query": "x", "K": 3}, "K"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
def test_a_wrong_field_is_named(served: Served, body: dict[str, Any], field: str) -> None:
    """400 with the field, for each that can be wrong, an unknown one included."""
    problem = is_problem(served.ask(**body), 400, field)
    assert problem["errors"][0]["field"].split(".")[0] == field


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "q"),
        ({"q": ""}, "q"),
        ({"q": "x", "k": "0"}, "k"),
        ({"q": "x", "filter": "{"}, "filter"),
        ({"q": "x", "filter": "[1]"}, "filter"),
        ({"q": "x", "filter": "[" * 15_000}, "filter"),
        ({"q": "x\0"}, "q"),
        ({"q": "x", "mode": "fuzzy"}, "mode"),
        ({"q": "x", "query": "x"}, "query"),
    ],
)
def test_a_wrong_parameter_is_named(served: Served, parameters: dict[str, str], field: str) -> None:
    """The same for a search in the address."""
    problem = is_problem(served.client.get("/v1/search", params=parameters), 400, field)
    assert problem["errors"][0]["field"].split(".")[0] == field


RAW_BODIES = [
    b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"query": "\\ud800"}', b'{"query": "x", "collection": "\\udfff"}',
    b'{"query": "x", "filter": {"a": "\\ud800"}}', b'{"query": "x", "filter": {"\\ud800": 1}}',
    b'{"query": "x", "filter": {"a": NaN}}', b'{"query": "x", "filter": {"a": Infinity}}',
    b'{"query": "x", "k": 1' + b"0" * 5000 + b"}", b"[" * 60_000,
    b'{"query": "x", "filter": {"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    b'{"query": "x", "filter": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    b'{"query": "x", "filter": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
]  # fmt: skip


@pytest.mark.parametrize("body", RAW_BODIES, ids=range(len(RAW_BODIES)))
def test_a_body_that_is_no_search_is_refused(served: Served, body: bytes) -> None:
    """Broken JSON, lone surrogates, numbers that are none and endless nesting are all the caller's mistake."""
    response = served.client.post("/v1/search", content=body, headers={"content-type": "application/json"})
    is_problem(response, 400)


INJECTIONS = [
    "'",
    '"',
    "\\",
    "'; drop table livedex.document; --",
    "$$",
    "%s %(k)s",
    "a' | 'b & !c:*",
    "<script>",
    "\u202e",
    "\n\r\t",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_quotes_and_statements_are_text(served: Served, text: str) -> None:
    """In the query, the filter and the names: nothing of it is obeyed, and what is refused is refused as documented."""
    for mode in ("hybrid", "vector", "text"):
        names(served.ask(query=text, mode=mode))
    assert names(served.ask(query="x", filter={text: text})) == []
    is_problem(served.ask(query="x", collection=text), 404)
    is_problem(served.ask(query="x", after=text), 400, "token")
    is_problem(served.ask(query="x", mode=text), 400, "mode")
    assert len(names(served.ask(query="x"))) == 3


def test_another_content_type_is_refused(served: Served) -> None:
    """A form is no search."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    is_problem(served.client.post("/v1/search", content=b"query=x", headers=headers), 400)


def test_a_collection_without_a_reranker_is_not_reranked(served: Served) -> None:
    """The caller is told."""
    is_problem(served.ask(query="x", rerank=True), 400, "rerank")


def test_an_unknown_collection_is_404(served: Served) -> None:
    """So is an unknown path; an unknown method is 405. All are problem documents."""
    assert is_problem(served.ask(query="x", collection="absent"), 404, "absent")["hint"]
    is_problem(served.client.get("/v1/nothing"), 404)
    is_problem(served.client.delete("/v1/search"), 405)


def test_a_body_that_is_too_large_is_413(served: Served) -> None:
    """Before it is read; a body whose length is not said is refused too."""
    is_problem(served.ask(query="x", filter={"a": "y" * 70_000}), 413, "65536")
    for path in ("/v1/search", "/v1/search/batch"):
        is_problem(served.client.post(path, json={"query": "x" * 2**20}), 413, "bytes")
    is_problem(served.client.post("/v1/search", content=iter([b'{"query": "x"}'])), 411)


def test_the_deadline_is_504(served: Served) -> None:
    """A token that does not come, and a time in which nothing can be done, end as late answers; the worker stays ready."""
    is_problem(served.ask(query="x", after=f"{TOPIC}:0:10", timeout_ms=100), 504)
    for _ in range(5):
        response = served.ask(query="x", timeout_ms=1)
        if response.status_code != 200:  # a fast machine may be in time
            is_problem(response, 504)
    assert served.client.get("/readyz").status_code == 200


def test_the_deadline_ends_a_statement(served: Served) -> None:
    """Of a search that Postgres has begun, and cannot go on with: it is no outage, and nobody waits longer than he wanted."""
    with psycopg.connect(served.workers.database_url) as connection:
        connection.execute("lock table livedex.document in access exclusive mode")
        for mode in ("text", "vector", "hybrid"):
            began = time.monotonic()
            is_problem(served.ask(query=TEXTS["apples"], mode=mode, timeout_ms=300), 504)
            assert time.monotonic() - began < 10
        assert served.client.get("/readyz").status_code == 200
    assert names(served.ask(query=TEXTS["apples"])) != []


@pytest.mark.parametrize("after", ["no token", "another-topic:0:1"])
def test_a_token_that_names_no_place_is_400(served: Served, after: str) -> None:
    """And says which field is meant."""
    body = is_problem(served.ask(query="x", after=after), 400, "after: ")
    assert [each["field"] for each in body["errors"]] == ["after"]


def test_two_hundred_searches_at_once_are_answered(served: Served) -> None:
    """More than there are threads and connections: they wait for their turn, and the worker stays ready."""
    with ThreadPoolExecutor(50) as pool, httpx.Client(base_url=served.client.base_url, timeout=60, trust_env=False) as client:

        def ask(number: int) -> int:
            name = list(TEXTS)[number % 3]
            answer = client.post("/v1/search", json={"query": TEXTS[name], "timeout_ms": 30_000})
            return answer.status_code if names(answer)[0] == name else 0

        assert set(pool.map(ask, range(200))) == {200}
    assert served.client.get("/readyz").status_code == 200


def test_waiting_for_a_connection_is_lateness_and_not_an_outage(served: Served) -> None:
    """When all connections are busy, a search in a hurry is 504; the worker does not take that for Postgres being down."""
    pool = served.app._pool
    with ExitStack() as busy:
        for _ in range(pool.max_size):
            busy.enter_context(pool.connection())
        is_problem(served.ask(query="x", timeout_ms=50), 504, "kept every connection busy")
        is_problem(served.ask(query="x", after=f"{TOPIC}:0:9", timeout_ms=50), 504, "kept every connection busy")
        assert served.client.get("/readyz").status_code == 200
    assert names(served.ask(query=TEXTS["apples"]))[0] == "apples"


WAITING = 60  # more than there are connections and threads


def test_searches_that_wait_for_an_event_delay_no_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While sixty searches wait for an event that does not come, others are answered; when it comes, all are."""
    seen: set[str] = set()
    reached = Searcher.reached

    def noted(self: Searcher, search: Search, deadline: float) -> bool:
        seen.add(search.query)
        return reached(self, search, deadline)

    monkeypatch.setattr(Searcher, "reached", noted)
    limits = httpx.Limits(max_connections=WAITING)
    with (
        httpx.Client(base_url=served.client.base_url, timeout=60, trust_env=False, limits=limits) as client,
        ThreadPoolExecutor(WAITING) as pool,
    ):

        def wait(number: int) -> httpx.Response:
            body = {"query": f"clocks {number}", "after": f"{TOPIC}:0:99", "timeout_ms": 30_000}
            return client.post("/v1/search", json=body)

        waiting = [pool.submit(wait, number) for number in range(WAITING)]
        try:
            until(lambda: len(seen) == WAITING, what="every search to wait")
            for name, text in TEXTS.items():
                assert names(served.ask(query=text))[0] == name
            assert not any(answer.done() for answer in waiting)
        finally:
            served.workers.rows("update livedex.source_progress set next_offset = 100 returning 1")
        for answer in waiting:
            assert len(names(answer.result())) == 3
            assert answer.result().json()["took_ms"]["total"] > 0
    served.workers.rows("update livedex.source_progress set next_offset = 10 returning 1")


def test_an_event_that_does_not_come_is_named(served: Served) -> None:
    """The problem says which, and how long it was waited for; a collection that is not there is not waited for."""
    is_problem(
        served.ask(query="x", after=f"{TOPIC}:0:10", timeout_ms=1000), 504, f"'{TOPIC}:0:10' was not searchable within 1 s"
    )
    is_problem(served.ask(query="x", after=f"{TOPIC}:0:10", collection="absent", timeout_ms=60_000), 404, "absent")
    is_problem(served.ask(query="x", after="other:0:1"), 400, "'other:0:1' names no topic that the collection")


def test_searches_are_counted_and_timed(served: Served) -> None:
    """Each answer counts once by its code; each stage of a search is timed; other routes are no searches."""
    before = served.metrics()
    served.ask(query="x", mode="vector")
    served.ask(query="x", mode="text")
    served.ask(query="x", collection="absent")
    served.ask(k=0)
    served.client.get("/healthz")
    after = served.metrics()

    def rise(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert rise("livedex_search_requests_total", route="http", code="200") == 2
    assert rise("livedex_search_requests_total", route="http", code="404") == 1
    assert rise("livedex_search_requests_total", route="http", code="400") == 1
    assert rise("livedex_search_requests_total") == 4
    assert rise("livedex_search_seconds_count", route="http", mode="vector") == 1
    served.ask(query="x", mode="vector", after=f"{TOPIC}:0:10", timeout_ms=1)
    after = served.metrics()
    assert rise("livedex_search_requests_total", route="http", code="504-after") == 1
    assert rise("livedex_search_requests_total", route="http", code="504") == 0
    assert rise("livedex_search_seconds_count", route="http", mode="vector") == 1, "it waited, and searched nothing"
    assert rise("livedex_search_seconds_count", route="http", mode="text") == 1
    assert rise("livedex_search_stage_seconds_count", stage="embed") == 1
    assert rise("livedex_search_stage_seconds_count", stage="sql") >= 2
    assert after.value("livedex_dependency_up", dependency="postgres") == 1
    assert f'model="{MODEL}"' in after.text


def test_operators_find_health_status_and_documentation(served: Served) -> None:
    """/healthz, /readyz, /v1/status, /openapi.json and /docs answer."""
    assert served.client.get("/healthz").json() == {"status": "alive"}
    assert served.client.get("/readyz").json() == {"status": "ready", "waiting_for": []}
    status = served.client.get("/v1/status").json()
    assert [(row["topic"], row["next_offset"]) for row in status["sources"]] == [(TOPIC, 10)]
    assert [(row["collection"], row["documents"]) for row in status["collections"]] == [("default", 3)]
    paths = served.client.get("/openapi.json").json()["paths"]
    assert paths.keys() >= {"/v1/search", "/v1/status", "/healthz", "/readyz", "/metrics"}
    assert paths["/v1/search"]["post"]["responses"].keys() >= {"200", "400", "403", "404", "413", "503", "504"}
    assert served.client.get("/docs").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.3.2.1", "[::1]:8080", "[::1]"])
def test_without_tokens_the_machines_own_names_are_answered(served: Served, host: str) -> None:
    """With any port: that of a forwarded one is another."""
    assert served.client.get("/v1/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1:8080",
             "[2001:db8::1]", "localhost:8080@evil.example", "[localhost]", "127.0.0.1, evil.example", ""],
)  # fmt: skip
def test_without_tokens_a_foreign_host_is_refused(served: Served, host: str) -> None:
    """A name of somebody's that points to this machine must not let his pages read the index (DNS rebinding)."""
    for path in ("/v1/status", "/v1/search?q=x", "/", "/metrics", "/absent"):
        is_problem(served.client.get(path, headers={"Host": host}), 421, "localhost and loopback addresses only")
    assert served.client.get("/v1/status").status_code == 200


def test_the_openapi_document_describes_the_errors_that_come(served: Served) -> None:
    """No route promises FastAPI's own 422, which never comes."""
    paths = served.client.get("/openapi.json").json()["paths"]
    assert not [path for path, methods in paths.items() for method in methods.values() if "422" in method["responses"]]


TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates and NUL included
LEAF = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT
JSON = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(TEXT, LEAF | st.lists(LEAF, max_size=3), max_size=3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "k": st.integers(-1, 1100), "collection": st.sampled_from(["default", "absent"]) | TEXT,
    "filter": st.dictionaries(TEXT, JSON, max_size=3), "mode": st.sampled_from(["hybrid", "vector", "text"]),
    "rerank": st.booleans(), "per_document": st.integers(0, 1100),
    "since": st.datetimes(timezones=st.timezones()).map(str) | st.none(),
    "until": st.datetimes(timezones=st.timezones()).map(str), "after": st.none() | TEXT | st.just(f"{TOPIC}:0:3"),
    "timeout_ms": st.integers(0, 60_001),
}  # fmt: skip
SEARCHES = st.fixed_dictionaries({"query": TEXT}, optional=FIELDS) | st.fixed_dictionaries(
    {"query": JSON}, optional=dict.fromkeys(FIELDS, JSON)
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=SEARCHES)
@example(body={"query": "\\' \\", "mode": "text"})
@example(body={"query": "x", "since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-12:00"})
def test_no_search_breaks_the_worker(served: Served, body: dict[str, Any]) -> None:
    """Whatever is asked is answered or refused; 500 never comes, and every refusal is a problem document."""
    content = json.dumps(body)
    response = served.client.post("/v1/search", content=content.encode(), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404, 413, 504), response.text
    if response.status_code != 200:
        is_problem(response, response.status_code)
