"""livedex.search takes the arguments of livedex.search_vector, and hands each on; what it waits for itself, it waits for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.asking import ENCODER, MODEL, SlowEncoder, serving, unused
from support.database import fresh_database
from support.synthetic import EPOCH, Document, Piece, connection_to, create_collection, fill
from support.waiting import until
from support.workers import Workers

DOCUMENTS, RARE = 2_100, 3  # more than the 1,000 matches that a search by words begins with
TOPIC = "events"


@dataclass(frozen=True, slots=True)
class Site:
    """A query worker over documents, one a day, each of two chunks, one of which has the word that all have."""

    url: str
    connection: Connection
    encoder: SlowEncoder

    def found(self, text: str, **arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of livedex.search."""
        return self.connection.execute(call("search", "%(text)s", arguments), {"text": text, **arguments}).fetchall()


def call(function: str, first: str, arguments: dict[str, Any]) -> sql.Composed:
    """A statement that selects from a function."""
    named = [sql.SQL("{} => {}").format(sql.SQL(name), sql.Placeholder(name)) for name in arguments]
    return sql.SQL("select * from livedex.{}({})").format(sql.SQL(function), sql.SQL(", ").join([sql.SQL(first), *named]))


@pytest.fixture(scope="module")
def site(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a source whose progress stands at 10."""
    texts = [f"common day {n}" + (" zebra" if n < RARE else "") for n in range(DOCUMENTS)]
    seconds = [f"evening {n}" for n in range(DOCUMENTS)]
    vectors = iter(ENCODER.encode_documents([*texts, *seconds]))
    pieces, others = ([Piece(text=text, vector=next(vectors)) for text in side] for side in (texts, seconds))
    documents = [
        Document(name=f"{n:04}", pieces=both, metadata={"even": n % 2 == 0}, event_time=EPOCH + timedelta(days=n))
        for n, both in enumerate(zip(pieces, others, strict=True))
    ]
    with (
        fresh_database(stack.database_url, template) as url,
        Workers(stack, url, tmp_path_factory.mktemp("by-text")) as workers,
    ):
        with connection_to(url) as connection:
            fill(connection, create_collection(connection, "default", model=MODEL), documents)
            connection.execute("insert into livedex.source (topic, collection_id) select %s, 1", (TOPIC,))
            connection.execute(
                "insert into livedex.source_progress (topic, partition, next_offset, owner) values (%s, 0, 10, '')", (TOPIC,)
            )
            connection.execute("insert into livedex.frequent_word values ('common', 0.5), ('zebra', 0.001)")
        encoder = SlowEncoder()
        with serving(workers, url, encoder), psycopg.connect(url, autocommit=True) as own:
            yield Site(url, own, encoder)


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        ({}, False),
        ({"k": 3}, True),
        ({"filter": '{"even": false}'}, True),
        ({"mode": "vector"}, True),
        ({"mode": "text"}, True),
        ({"since": EPOCH + timedelta(days=1_000)}, True),
        ({"until": EPOCH + timedelta(days=1_000)}, True),
        ({"since": EPOCH + timedelta(days=10), "until": EPOCH + timedelta(days=20), "k": 30}, True),
        ({"per_document": 2, "filter": '{"even": true}', "until": EPOCH + timedelta(days=12)}, True),
        ({"after": f"{TOPIC}:0:9"}, False),
        ({"on_miss": "text"}, False),
        ({"collection": "default"}, False),
        ({"rerank": False}, False),
    ],
)
def test_each_argument_means_what_it_does_with_a_vector(site: Site, arguments: dict[str, Any], *, differs: bool) -> None:
    """The rows are those of livedex.search_vector with the text's vector and words."""
    text = "common day 1500 evening 1500"
    found = site.found(text, **arguments)
    with_vector = call("search_vector", "livedex.embed(%(text)s)", {**arguments, "query": text})
    assert found == site.connection.execute(with_vector, {"text": text, **arguments, "query": text}).fetchall()
    assert found
    assert (found != site.found(text)) is differs


def test_times_bound_the_rows(site: Site) -> None:
    """From the first on, and before the second."""
    since, before = EPOCH + timedelta(days=10), EPOCH + timedelta(days=20)
    found = site.found("common day", since=since, until=before, k=30)
    assert sorted(row[0] for row in found) == [f"{number:04}" for number in range(10, 20)]


def test_several_chunks_of_a_document_come_where_they_are_wanted(site: Site) -> None:
    """One of each else."""
    only = {"filter": '{"even": true}', "until": EPOCH + timedelta(days=1)}
    assert len(site.found("common day 0 evening 0", **only)) == 1
    assert len(site.found("common day 0 evening 0", **only, per_document=2)) == 2


def test_a_search_by_text_waits_for_its_event(site: Site) -> None:
    """It sees what came with it; where it does not come in time, the search fails with 57014, and says that it is the event."""
    assert site.found("common day 7", k=1)[0][0] == "0007"  # from now on the text's vector is known
    with pytest.raises(errors.QueryCanceled, match="was not searchable within") as late:
        site.found("common day 7", after=f"{TOPIC}:0:10", timeout="0.1 s")
    assert late.value.diag.message_detail == "after"
    asleep = """select count(*) from pg_stat_activity
                 where wait_event = 'PgSleep' and query like '%after =>%' and datname = current_database()"""
    with ThreadPoolExecutor(1) as pool, connection_to(site.url) as other:
        searching = pool.submit(site.found, "common day 7", k=1, after=f"{TOPIC}:0:10", timeout="30 s")
        until(lambda: other.execute(asleep).fetchone() == (1,), what="the search to wait")
        with other.transaction():
            other.execute("update livedex.document set deleted = true where document_id = '0007'")
            other.execute("update livedex.source_progress set next_offset = 11")
        assert searching.result(30)[0][0] != "0007"


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_rows_by_words_are_found_in_time_where_the_worker_is_late(site: Site, mode: str) -> None:
    """Also where the rare words of the question are not enough: a quarter of the time is kept for them."""
    site.encoder.go.clear()
    try:
        found = site.found(f"zebra common {unused()}", mode=mode, on_miss="text", timeout="2 s")
    finally:
        site.encoder.go.set()
    assert len(found) == 10
    assert {f"{number:04}" for number in range(RARE)} < {row[0] for row in found}
