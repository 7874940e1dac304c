"""Searches that come after an event: while the index is behind, they count against no objective of searches."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from livedex.core.change import CANARY_HEADER
from livedex.dev.stack import Addresses
from livedex.query import waiting
from support.served import TOPIC, Served, is_problem, serving
from support.waiting import until

BEHIND = {"query": "x", "mode": "vector", "after": f"{TOPIC}:0:10"}
SLOW = 1.5  # seconds that a search must not take


@pytest.fixture
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker, beside an index that is behind by an event."""
    with serving(stack, template, tmp_path_factory.mktemp("after")) as worker:
        yield worker


def codes(served: Served) -> dict[str, float]:
    """Searches by their code, those that there are."""
    names = ("200", "429", "429-after", "504", "504-after")
    counts = {code: served.metrics().value("livedex_search_requests_total", route="http", code=code) for code in names}
    return {code: count for code, count in counts.items() if count}


def waits(served: Served) -> int:
    """How many searches wait for their event."""
    return served.app._answering._waiting._count


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_event_is_waited_for_whatever_transactions_are_by_default(served: Served, level: str) -> None:
    """In the snapshot of another level than READ COMMITTED it would never come."""
    with psycopg.connect(served.workers.database_url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} set default_transaction_isolation = {}").format(database, level))
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        connection.execute(f"select pg_terminate_backend(pid, 5000) {others}")
        until(lambda: served.client.get("/readyz").status_code == 200, what="the worker to be connected again")
        until(lambda: served.ask(query="x", mode="text").status_code == 200, what="its searches to be connected again")
        is_problem(served.ask(**BEHIND, timeout_ms=300), 504, "was not searchable")
        assert connection.execute(f"select count(*) > 0 {others}").fetchone() == (True,)


def test_waiting_for_an_event_is_no_time_of_a_search(served: Served) -> None:
    """Alone and in a batch only what a search takes is timed, once its event is there; one whose event does not come has a code
    of its own, and no time.
    """
    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(served.ask, **BEHIND, timeout_ms=30_000)
        until(lambda: waits(served) == 1, what="the first to wait")
        together = pool.submit(served.ask_all, {**BEHIND, "timeout_ms": 30_000}, {**BEHIND, "timeout_ms": 1_000})
        until(lambda: waits(served) == 3, what="all to wait")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > SLOW and waits(served) == 2, what="the third to have waited in vain")
        served.workers.rows("update livedex.source_progress set next_offset = 100 returning 1")
    assert alone.result().status_code == 200
    assert alone.result().json()["took_ms"]["total"] > SLOW * 1000, "who asked has waited"
    assert [each.get("status", 200) for each in together.result().json()["results"]] == [200, 504]
    assert codes(served) == {"200": 2, "504-after": 1}
    timed = {part: served.metrics().value(f"livedex_search_seconds_{part}", mode="vector") for part in ("count", "sum")}
    assert timed["count"] == 2
    assert timed["sum"] < SLOW


def test_too_many_that_wait_have_a_code_of_their_own(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where as many wait as may, one more is refused because the index is behind, not because searches are many."""
    monkeypatch.setattr(waiting, "LIMIT", 0)
    is_problem(served.ask(**BEHIND), 429, "searches wait for events already")
    assert codes(served) == {"429-after": 1}


def test_a_canary_that_waits_in_vain_is_answered(served: Served) -> None:
    """Its searches are not counted, and are told all the same that their event did not come."""
    asked = served.client.post("/v1/search", json={**BEHIND, "timeout_ms": 50}, headers={CANARY_HEADER: "1"})
    is_problem(asked, 504, "was not searchable within 0.05 s")
    assert codes(served) == {}


def test_what_is_too_slow_after_the_event_counts(served: Served) -> None:
    """Once its event is there, a search that comes too late failed as any other."""
    served.workers.rows("update livedex.source_progress set next_offset = 100 returning 1")
    admission = served.app._answering._admission
    admission._free, free = 0, admission._free
    try:
        is_problem(served.ask(**BEHIND, timeout_ms=200), 504, "")
    finally:
        admission._free = free
    assert codes(served) == {"504": 1}
    assert served.metrics().value("livedex_search_seconds_count", mode="vector") == 1, "it took its time too"
