"""`after` and `livedex.wait_for`: who may wait for what, and what a search finds when it has waited."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from pgvector import Vector
from psycopg import errors

from livedex.database import Connection
from support.database import login_role
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian
from support.waiting import until
from support.workers import Workers

VECTOR = gaussian(1, 1, 8)[0]
SEARCH = "select document_id from livedex.search_vector(%s::vector, mode => 'vector', collection => 'one', after => %s)"
FOLLOW = "insert into livedex.source (topic, collection_id) select name, collection_id from livedex.collection where name = %s"
APPLY = "insert into livedex.source_progress (topic, partition, next_offset, owner) values (%s, 0, 3, 'a test')"


@pytest.fixture
def operator(database_url: str) -> Iterator[Connection]:
    """A superuser's session; two collections, each follows a topic of its name, of which three events were applied."""
    with connection_to(database_url) as connection:
        for name in ("one", "two"):
            generation = create_collection(connection, name, model="hash-8")
            fill(connection, generation, [Document(name=f"in {name}", pieces=[Piece(text=f"a zebra {name}", vector=VECTOR)])])
            connection.execute(FOLLOW, (name,))
            connection.execute(APPLY, (name,))
        yield connection


@pytest.mark.parametrize("statement", ["select livedex.wait_for(%s, timeout => '10 s')", "select {}"])
def test_what_a_role_may_not_search_cannot_be_told_from_what_is_not_there(
    database_url: str, operator: Connection, workers: Workers, statement: str
) -> None:
    """A token of another's topic is refused at once, in the words for one that nobody follows, however far the topic is."""
    search = SEARCH.replace("%s::vector", "array_fill(1, array[8])::vector")
    asked = statement.format(f"count(*) from ({search}) rows")
    with login_role(database_url) as (role, url):
        workers.run("grant", "one", role)
        with psycopg.connect(url, autocommit=True) as session:
            assert session.execute(asked, ("one:0:2",)).fetchone() in [(True,), (1,)]
            told = {each: _refused(session, asked, each) for each in ("two:0:2", "two:0:9", "two:7:0", "none:0:2")}
    assert {message.replace(token, "TOKEN") for token, message in told.items()} == {
        told["none:0:2"].replace("none:0:2", "TOKEN")
    }
    assert operator.execute("select livedex.wait_for('two:0:2')").fetchone() == (True,), "a superuser may wait for all"


def _refused(session: "psycopg.Connection[Any]", statement: str, token: str) -> str:
    with pytest.raises(errors.InvalidParameterValue, match=f"the token '{token}' names no topic") as refused:
        session.execute(statement.encode(), (token,))
    return str(refused.value)


def test_a_search_waits_for_events_of_its_collection_only(operator: Connection) -> None:
    """Another's would say nothing of what it finds, whoever asks."""
    assert operator.execute(SEARCH, (Vector(VECTOR), "one:0:2")).fetchall() == [("in one",)]
    with pytest.raises(errors.InvalidParameterValue, match="'two:0:2' names no topic that the collection one follows"):
        operator.execute(SEARCH, (Vector(VECTOR), "two:0:2"))


def test_the_generation_that_is_there_after_the_wait_is_searched(database_url: str, operator: Connection) -> None:
    """One that was replaced while the event was waited for, and its table, are not asked."""
    with connection_to(database_url) as session, ThreadPoolExecutor(1) as pool:
        found = pool.submit(
            lambda: session.execute(f"{SEARCH[:-1]}, timeout => '30 s')", (Vector(VECTOR), "one:0:3")).fetchall()
        )
        waits = "select true from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        until(lambda: operator.execute(waits).fetchone(), what="the search to wait")
        with operator.transaction():
            (new,) = operator.execute(
                """insert into livedex.generation (collection_id, chunking_id, model, model_revision, encoder, dimension)
                   select collection_id, chunking_id, model, model_revision, encoder, dimension from livedex.generation
                    where generation_id = 1 returning generation_id"""
            ).fetchone() or (0,)
            operator.execute("select livedex.create_embedding_table(%s)", (new,))
            operator.execute(f"insert into livedex.embedding_{new} select * from livedex.embedding_1")
            operator.execute("update livedex.collection set active_generation = %s where name = 'one'", (new,))
            operator.execute("drop table livedex.embedding_1")
            operator.execute("update livedex.source_progress set next_offset = 4 where topic = 'one'")
        assert found.result(30) == [("in one",)]
