"""A session that knew a collection when it was nearly empty searches it as any other does once it is large."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pgvector import Vector
from psycopg import sql

from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian

pytestmark = pytest.mark.accept

SEED = 9
CHUNKS = 100_000
DIMENSION = 16
FIRST = 3  # documents that are there when the session begins
TABLES = ("document", "document_chunk", "chunk")
MODES = ("vector", "hybrid", "text")
SEARCH = "select document_id from livedex.search_vector(%s::vector, collection => 'growing', mode => %s, query => 'dragon')"


def made(numbers: range, vectors: Any) -> list[Document]:
    """Documents of a chunk each; every 200th has the word."""
    return [
        Document(
            name=f"doc/{n}", pieces=[Piece(text=f"{'dragon' if n % 200 == 0 else 'falcon'} number {n}", vector=vectors[n])]
        )
        for n in numbers
    ]


def read_whole(session: Connection, url: str) -> dict[str, int]:
    """How many rows of each table were read by scans of all of it so far, as another session sees it."""
    session.execute("select pg_stat_force_next_flush()")
    with psycopg.connect(url) as other:
        statement = "select relname, seq_tup_read from pg_stat_user_tables where schemaname = 'livedex' and relname = any(%s)"
        return {name: int(count) for name, count in other.execute(statement, (list(TABLES),)).fetchall()}


@pytest.fixture(scope="module")
def grown(stack: Addresses, template: str) -> Iterator[tuple[Connection, str]]:
    """A session that searched when there was hardly anything; much was added since, and not analyzed."""
    vectors = gaussian(SEED, CHUNKS, DIMENSION)
    with (
        fresh_database(stack.database_url, template) as url,
        connection_to(url) as writer,
        connection_to(url) as session,
    ):
        for table in TABLES:
            writer.execute(sql.SQL("alter table livedex.{} set (autovacuum_enabled = off)").format(sql.Identifier(table)))
        generation = create_collection(writer, "growing", model=f"hash-{DIMENSION}")
        fill(writer, generation, made(range(FIRST), vectors))
        for _ in range(8):  # more often than a plan takes to be kept
            for mode in MODES:
                assert session.execute(SEARCH, (Vector(vectors[0]), mode)).fetchall()
        fill(writer, generation, made(range(FIRST, CHUNKS), vectors), analyze=False)
        session.execute("set statement_timeout = '60s'")
        yield session, url


@pytest.mark.parametrize("mode", MODES)
def test_a_session_older_than_the_rows_reads_neither_documents_nor_the_map_as_a_whole(
    grown: tuple[Connection, str], mode: str
) -> None:
    """No plan that was made for three rows is kept for a hundred thousand."""
    session, url = grown
    before = read_whole(session, url)
    rows = session.execute(SEARCH, (Vector(gaussian(SEED + 1, 1, DIMENSION)[0]), mode)).fetchall()
    assert len(rows) == 10
    after = read_whole(session, url)
    for table in ("document", "document_chunk"):  # whether words are looked up in chunk's index is for statistics to say
        assert after[table] - before[table] < CHUNKS / 10, table
