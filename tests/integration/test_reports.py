"""What the status of a query worker costs: it may be asked for every few seconds, by many, on a large index."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql

from livedex import status
from livedex.database import Connection, query
from livedex.dev.stack import Addresses
from livedex.query import overview
from support.served import MODEL, Served, serving
from support.synthetic import connection_to, create_collection

OLD = 30_000  # documents of a year
ONES: dict[str, dict[str, float]] = {
    "status_freshness": {"seconds": status.RECENT, "window": status.WINDOW},
    "freshness": {"window": overview.WINDOW_SECONDS, "slice": overview.SLICE_SECONDS, "most": overview.MOST_DOCUMENTS},
}


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker, and a collection with many documents that changed long ago and some that changed just now."""
    with serving(stack, template, tmp_path_factory.mktemp("reports")) as made:
        with connection_to(made.workers.database_url) as connection:
            create_collection(connection, "large", model=MODEL)
            for count, past in ((OLD, "interval '1 day' + n * interval '15 min'"), (100, "n * interval '2 s'")):
                connection.execute(
                    f"""insert into livedex.document
                          (collection_id, document_id, content_version, metadata_version, deleted, event_time, topic, partition,
                           "offset")
                        select (select collection_id from livedex.collection where name = 'large'), '{count}/' || n,
                               '{{0,1,0}}', '{{0,1,0}}', false, now() - ({past}), 'large', 0, n
                          from generate_series(1, {count}) n"""
                )
            connection.execute("analyze livedex.document")
        yield made


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def explain(connection: Connection, name: str) -> dict[str, Any]:
    """The plan of a query, with what it read."""
    row = connection.execute(query_explained(name), ONES[name]).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def query_explained(name: str) -> sql.Composed:
    """The query with EXPLAIN before it."""
    return sql.SQL("explain (analyze, format json) ") + query("query", name)


@pytest.mark.parametrize("name", list(ONES))
def test_freshness_reads_only_what_changed_just_now(served: Served, name: str) -> None:
    """By the index on event times: what changed a day ago is not even looked at."""
    with connection_to(served.workers.database_url) as connection:
        plan = explain(connection, name)
    read = [node for node in nodes(plan) if node.get("Relation Name") == "document"]
    assert read, plan
    for node in read:
        assert node["Node Type"] != "Seq Scan", plan
        assert node.get("Rows Removed by Filter", 0) * node["Actual Loops"] <= 100, plan
    scans = [node for node in nodes(plan) if node.get("Index Name") == "document_event_time_idx"]
    assert scans, plan
    assert all("event_time" in node["Index Cond"] for node in scans), plan


def test_a_status_is_read_once_for_all_who_ask(served: Served) -> None:
    """Over a pool of its own, so that no search waits for it; the metrics tell of it."""
    asked = [served.client.get(path).status_code for path in ("/v1/status", "/v1/overview") for _ in range(20)]
    assert set(asked) == {200}
    metrics = served.metrics()
    assert 1 <= metrics.value("livedex_pool_requests_total", pool="status") <= 10
    found = served.client.get("/v1/status").json()
    assert {row["collection"]: row["documents"] for row in found["collections"]} == {"default": 3, "large": OLD + 100}
    assert found["freshness"]["documents"] == 100


def test_a_status_that_takes_too_long_is_given_up(served: Served) -> None:
    """Its sessions say so to Postgres."""
    with served.app._reports.pool.connection() as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("15s",)
