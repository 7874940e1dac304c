"""livedex.search_vector at 100,000 chunks: each way through it uses the indexes that it should, whatever Postgres believes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql
from psycopg.types.json import Jsonb

from livedex.catalogue import Generation
from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import EPOCH, Document, Piece, connection_to, create_collection, fill, gaussian

pytestmark = pytest.mark.accept

SEED = 8
CHUNKS = 100_000
DIMENSION = 32
SHARES = {"permille": 1000, "percent": 100, "tenth": 10, "half": 2}  # one document in so many has the mark
# Vectors of texts differ in few directions, and those in all of them are hard for any index.
_SPREAD = gaussian(SEED + 2, 10, DIMENSION)
QUERIES = (gaussian(SEED + 1, 20, 10) @ _SPREAD).astype(np.float16).astype(np.float32)
VECTOR_INDEX, TEXT_INDEX = "Index Scan using embedding_1_hnsw", "Bitmap Index Scan on chunk_tsv_idx"
TYPES = "vector, int, int, jsonb, timestamptz, timestamptz, int, tsquery"

NO_FILTER = Jsonb({})
CHOICES: dict[str, tuple[Jsonb, datetime | None, datetime | None]] = {
    "all": (NO_FILTER, None, None),
    "one of a thousand": (Jsonb({"permille": True}), None, None),
    "one of a hundred": (Jsonb({"percent": True}), None, None),
    "half": (Jsonb({"half": True}), None, None),
    "a thousand by their time": (NO_FILTER, EPOCH + timedelta(seconds=50_000), EPOCH + timedelta(seconds=51_000)),
    "the newest of half": (Jsonb({"half": True}), EPOCH + timedelta(seconds=CHUNKS - 500), None),
    "the oldest half": (NO_FILTER, None, EPOCH + timedelta(seconds=CHUNKS // 2)),
}

# What Postgres may believe: what ANALYZE found, nothing, or what it found when there was hardly anything.
BELIEFS = {
    "analyzed": "analyze",
    "nothing": """delete from pg_statistic s using pg_class c
                   where c.oid = s.starelid and c.relnamespace = 'livedex'::regnamespace;
                  update pg_class set reltuples = -1, relpages = 0, relallvisible = 0
                   where relnamespace = 'livedex'::regnamespace and relkind = 'r'""",
    "small": """update pg_class set reltuples = 10, relpages = 1
                 where relnamespace = 'livedex'::regnamespace and relkind = 'r'""",
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents of one chunk each."""

    connection: Connection
    url: str
    generation: Generation
    vectors: NDArray[Any]

    def plan(
        self,
        *,
        mode: str,
        exact: bool,
        few: bool = False,
        filter: dict[str, Any],  # noqa: A002
        since: datetime | None = None,
        cache: str,
    ) -> str:
        """The plan of the statement behind a search, under the settings that searches have."""
        select = "select livedex.search_statement(g, %s, %s, %s, %s, %s) from livedex.generation g"
        words = (["dragon", "falcon"], [1.5, 1.0]) if mode != "vector" else (None, None)
        row = self.connection.execute(select, (mode, exact, few, *words)).fetchone()
        assert row is not None
        with self.connection.transaction(force_rollback=True), psycopg.RawCursor(self.connection) as cursor:
            settings = (
                "from pg_proc, unnest(proconfig) s where oid = to_regproc('livedex.search_vector') and s !~ '^search_path='"
            )
            cursor.execute(f"select set_config(split_part(s, '=', 1), split_part(s, '=', 2), true) {settings}")
            assert len(cursor.fetchall()) > 1
            cursor.execute(f"set local plan_cache_mode = {cache}")
            cursor.execute(f"prepare search ({TYPES}) as {row[0]}")
            values = sql.SQL(", ").join([Vector(QUERIES[0]), self.generation.collection_id, self.generation.chunking_id,
                                         Jsonb(filter), since, None, 50, "dragon"])  # fmt: skip
            explain = sql.SQL("explain execute search ({})").format(values).as_string(self.connection)
            rows = cursor.execute(explain).fetchall()
            cursor.execute("deallocate search")
        return "\n".join(line for (line,) in rows)

    def rows_read(self) -> dict[str, int]:
        """How many rows were read so far, of each table by going through it, of the map by indexes too; as another session sees
        it.
        """
        self.connection.execute("select pg_stat_force_next_flush()")
        statement = """
            select relname, seq_tup_read from pg_stat_user_tables
            union all
            select 'indexes of the map', sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = 'document_chunk'"""
        with psycopg.connect(self.url) as other:
            return dict(other.execute(statement).fetchall())

    def counted(self, name: str) -> int:
        """How often an index was scanned so far, as another session sees it."""
        self.connection.execute("select pg_stat_force_next_flush()")
        with psycopg.connect(self.url) as other:
            row = other.execute("select idx_scan from pg_stat_user_indexes where indexrelname = %s", (name,)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def filled(stack: Addresses, template: str) -> Iterator[Corpus]:
    """The collection."""
    vectors = (gaussian(SEED, CHUNKS, 10) @ _SPREAD).astype(np.float16).astype(np.float32)
    documents = [
        Document(
            name=f"doc/{n}", pieces=[Piece(text=f"{'dragon' if n % 200 == 0 else 'falcon'} number {n}", vector=vectors[n])],
            metadata={mark: n % every == 0 for mark, every in SHARES.items()}, event_time=EPOCH + timedelta(seconds=n),
        )
        for n in range(CHUNKS)
    ]  # fmt: skip
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        for table in ("document", "chunk", "document_chunk"):  # so that belief is the test's alone
            connection.execute(sql.SQL("alter table livedex.{} set (autovacuum_enabled = off)").format(sql.Identifier(table)))
        generation = create_collection(connection, "large", model=f"hash-{DIMENSION}")
        connection.execute("alter table livedex.embedding_1 set (autovacuum_enabled = off)")
        fill(connection, generation, documents)
        connection.execute("vacuum analyze")
        connection.execute("select livedex.note_frequent_words()")
        yield Corpus(connection, url, generation, vectors)


@pytest.fixture(params=BELIEFS)
def corpus(filled: Corpus, request: pytest.FixtureRequest) -> Iterator[Corpus]:
    """The collection, of which Postgres believes this or that."""
    filled.connection.execute("set allow_system_table_mods = on")
    filled.connection.execute(BELIEFS[request.param])
    filled.connection.execute("discard plans")
    yield filled
    filled.connection.execute("analyze")


@pytest.mark.parametrize("cache", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("mark", [None, "half", "tenth"])
def test_the_index_path_walks_the_vector_index(corpus: Corpus, mark: str | None, cache: str) -> None:
    """Where many chunks are eligible, the vector index gives them, and each is looked up in the map by its key."""
    for mode in ("vector", "hybrid"):
        plan = corpus.plan(mode=mode, exact=False, filter={mark: True} if mark else {}, cache=cache)
        assert VECTOR_INDEX in plan
        assert "Seq Scan on embedding" not in plan
        assert "document_chunk_chunk_idx" in plan
        assert "Seq Scan on document" not in plan


@pytest.mark.parametrize("cache", ["force_custom_plan", "force_generic_plan"])
def test_words_are_looked_up_in_the_text_index(corpus: Corpus, cache: str) -> None:
    """No search by words reads all chunks."""
    for mode, exact in (("hybrid", False), ("text", True)):
        plan = corpus.plan(mode=mode, exact=exact, filter={}, cache=cache)
        assert TEXT_INDEX in plan
        assert "Seq Scan on chunk" not in plan


@pytest.mark.parametrize("cache", ["force_custom_plan", "force_generic_plan"])
def test_few_eligible_chunks_are_found_by_the_filter(corpus: Corpus, cache: str) -> None:
    """Where few chunks are eligible, the filter's index finds their documents, and no index is asked for vectors or words."""
    for mode in ("vector", "hybrid", "text"):
        plan = corpus.plan(mode=mode, exact=True, few=True, filter={"permille": True}, cache=cache)
        assert "document_metadata_idx" in plan
        assert VECTOR_INDEX not in plan
        assert TEXT_INDEX not in plan


def test_few_eligible_chunks_are_found_by_their_time(corpus: Corpus) -> None:
    """Where few chunks are eligible by time alone, its index finds their documents. Searches give the statement its values when
    it is planned, and only then is it known whether there is a time.
    """
    newest = EPOCH + timedelta(seconds=CHUNKS - 500)
    for mode in ("vector", "hybrid", "text"):
        plan = corpus.plan(mode=mode, exact=True, few=True, filter={}, since=newest, cache="force_custom_plan")
        assert "document_event_time_idx" in plan
        assert VECTOR_INDEX not in plan
        assert "Seq Scan on document" not in plan


@pytest.mark.parametrize("cache", ["force_custom_plan", "force_generic_plan"])
def test_without_a_vector_index_words_are_looked_up_all_the_same(corpus: Corpus, cache: str) -> None:
    """While a generation has no vector index yet, all vectors are compared, but not all words."""
    for mode in ("vector", "hybrid"):
        plan = corpus.plan(mode=mode, exact=True, filter={}, cache=cache)
        assert VECTOR_INDEX not in plan
        assert (TEXT_INDEX in plan) == (mode == "hybrid")
        assert "Seq Scan on chunk" not in plan


@pytest.mark.parametrize("prepare", [True, False])
def test_searches_of_a_prepared_statement_take_the_index_each_time(corpus: Corpus, prepare: bool) -> None:
    """However often a client runs a prepared search, each walks the vector index once, and finds what comparing all finds."""
    before = corpus.counted("embedding_1_hnsw")
    statement = "select document_id from livedex.search_vector(%s::vector, collection => 'large', mode => 'vector')"
    found = 0
    for query in QUERIES:
        rows = corpus.connection.execute(statement, (Vector(query),), prepare=prepare).fetchall()
        cosines = corpus.vectors @ query / (corpus.vectors**2).sum(axis=1) ** 0.5
        found += len({name for (name,) in rows} & {f"doc/{number}" for number in (-cosines).argsort()[:10]})
    assert corpus.counted("embedding_1_hnsw") - before == len(QUERIES)
    assert found / (10 * len(QUERIES)) >= 0.95


@pytest.mark.parametrize("eligible", CHOICES)
@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_no_search_goes_through_all_rows_of_a_table(corpus: Corpus, mode: str, eligible: str) -> None:
    """Neither what counts who is eligible, nor what finds the candidates, nor what gives their rows; by marks and by time."""
    before = corpus.rows_read()
    statement = (
        "select document_id from livedex.search_vector(%s::vector, collection => 'large', query => 'dragon falcon', "
        "mode => %s, filter => %s, since => %s, until => %s)"
    )
    for query in QUERIES:
        arguments = (Vector(query), mode, *CHOICES[eligible])
        assert len(corpus.connection.execute(statement, arguments).fetchall()) == 10
    after = corpus.rows_read()
    often = {table: rows - before[table] for table, rows in after.items() if rows - before[table] > len(QUERIES) * CHUNKS / 4}
    assert not often, "of these tables so many rows"


@pytest.mark.parametrize(("mark", "every"), SHARES.items())
def test_a_filter_loses_no_rows(filled: Corpus, mark: str, every: int) -> None:
    """Filters that match 0.1 to 50 % give k rows that match, and 95 of 100 of the nearest."""
    numbers = range(0, CHUNKS, every)
    vectors = filled.vectors[::every]
    statement = (
        "select document_id from livedex.search_vector(%s::vector, collection => 'large', mode => 'vector', filter => %s)"
    )
    found = 0
    for query in QUERIES:
        names = {name for (name,) in filled.connection.execute(statement, (Vector(query), Jsonb({mark: True}))).fetchall()}
        cosines = vectors @ query / (vectors**2).sum(axis=1) ** 0.5
        assert len(names) == 10
        assert names <= {f"doc/{number}" for number in numbers}
        found += len(names & {f"doc/{numbers[place]}" for place in (-cosines).argsort()[:10]})
    assert found / (10 * len(QUERIES)) >= 0.95
