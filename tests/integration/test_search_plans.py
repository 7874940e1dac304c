"""livedex.search_vector at 12,000 chunks, where the vector index answers: its plan, its recall, and that it never starves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import Vector
from psycopg.types.json import Jsonb

from livedex.catalogue import Generation
from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian, stage
from support.waiting import until

SEED = 7
CHUNKS = 12_000
DIMENSION = 32
SHARES = {"permille": 1000, "percent": 100, "tenth": 10, "half": 2}  # one document in so many has the mark
UNMAPPED = 1200  # more than one scan of the vector index gives
CANARIES = 200  # documents of livedex canary: more than a leg's first candidates


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents of one chunk each, `documents[n]` with `vectors[n]`."""

    connection: Connection
    url: str
    generation: Generation
    vectors: NDArray[np.float32]
    collection: str = "large"
    index: str = field(init=False, default="embedding_1_hnsw")

    def search(self, near: NDArray[np.float32], /, **arguments: Any) -> list[tuple[str, float]]:
        """Document ids with scores."""
        named = "".join(f", {name} => %({name})s" for name in arguments)
        statement = f"select document_id, score from livedex.search_vector(%(v)s::vector, collection => 'large'{named})"
        return self.connection.execute(statement, {**arguments, "v": Vector(near)}).fetchall()

    def nearest(self, query: NDArray[np.float32], k: int, every: int = 1) -> list[str]:
        """The k nearest by brute force among the documents whose number `every` divides."""
        numbers = np.arange(0, len(self.vectors), every)
        vectors = self.vectors[numbers]
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
        return [f"doc/{numbers[place]}" for place in np.argsort(-cosines)[:k]]

    def index_scans(self) -> int:
        """How often the vector index was scanned so far, as another session sees it."""
        self.connection.execute("select pg_stat_force_next_flush()")
        with psycopg.connect(self.url) as other:
            row = other.execute("select idx_scan from pg_stat_user_indexes where indexrelname = %s", (self.index,)).fetchone()
        assert row is not None
        return int(row[0])

    def vector_reads(self) -> int:
        """How many vectors were read by other ways than the vector index, as another session sees it."""
        self.connection.execute("select pg_stat_force_next_flush()")
        statement = """
            select t.seq_tup_read + i.idx_tup_read from pg_stat_user_tables t, pg_stat_user_indexes i
             where t.relname = 'embedding_1' and i.indexrelname = 'embedding_1_pkey'"""
        with psycopg.connect(self.url) as other:
            row = other.execute(statement).fetchone()
        assert row is not None
        return int(row[0])

    def plan(self, *, mode: str, exact: bool, filter: dict[str, Any], few: bool = False) -> str:  # noqa: A002
        """The plan of the statement behind a search."""
        generation = self.generation
        select = "select livedex.search_statement(g, %s, %s, %s, %s, %s) from livedex.generation g where generation_id = %s"
        words = (["dragon"], [1.5]) if mode != "vector" else (None, None)
        row = self.connection.execute(select, (mode, exact, few, *words, generation.generation_id)).fetchone()
        assert row is not None
        with self.connection.transaction(force_rollback=True), psycopg.RawCursor(self.connection) as cursor:
            cursor.execute("set local hnsw.iterative_scan = 'relaxed_order'")
            cursor.execute("set local random_page_cost = 1.1")
            types = "vector, int, int, jsonb, timestamptz, timestamptz, int, tsquery"
            cursor.execute(f"prepare search ({types}) as {row[0]}")
            values = psycopg.sql.SQL(", ").join([Vector(QUERIES[0]), generation.collection_id, generation.chunking_id,
                                                 Jsonb(filter), None, None, 50, "4711"])  # fmt: skip
            rows = cursor.execute(
                psycopg.sql.SQL("explain execute search ({})").format(values).as_string(self.connection)
            ).fetchall()
            cursor.execute("deallocate search")
        return "\n".join(line for (line,) in rows)


QUERIES = gaussian(SEED + 1, 20, DIMENSION)


@pytest.fixture(scope="module")
def corpus(stack: Addresses, template: str) -> Iterator[Corpus]:
    """The collection, with unmapped chunks nearer to the first query than any document, and canaries nearer to the second."""
    vectors = gaussian(SEED, CHUNKS, DIMENSION)
    documents = [
        Document(
            name=f"doc/{number}",
            pieces=[Piece(text=f"{'dragon' if number % 3 == 0 else 'falcon'} number {number} of many", vector=vectors[number])],
            metadata={mark: number % every == 0 for mark, every in SHARES.items()},
        )
        for number in range(CHUNKS)
    ]
    close = gaussian(SEED + 3, CANARIES, DIMENSION) / 20
    documents += [
        Document(name=f"livedex-canary/index/{n}", pieces=[Piece(text=f"dragon canary {n}", vector=QUERIES[1] + close[n])],
                 metadata=dict.fromkeys(SHARES, True))
        for n in range(CANARIES)
    ]  # fmt: skip
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        generation = create_collection(connection, "large", model=f"hash-{DIMENSION}")
        fill(connection, generation, documents)
        noise = gaussian(SEED + 2, UNMAPPED, DIMENSION) / 20
        unmapped = [Piece(text=f"dragon unmapped {n}", vector=QUERIES[0] + noise[n]) for n in range(UNMAPPED)]
        stage(connection, generation, unmapped)
        connection.execute("vacuum analyze")  # also of what the text index has put off
        yield Corpus(connection, url, generation, vectors)


@pytest.mark.parametrize(("mark", "every"), [(None, 1), *SHARES.items()])
@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_k_rows_come_whenever_k_match(corpus: Corpus, mode: str, mark: str | None, every: int) -> None:
    """Filters that keep from all down to one in a thousand give k rows, each of which matches."""
    condition = Jsonb({mark: True} if mark else {})
    matching = {f"doc/{number}" for number in range(0, CHUNKS, every)}
    for query in QUERIES[:5]:
        for k in (10, 100):
            rows = corpus.search(query, k=k, mode=mode, filter=condition, query="dragon or falcon")
            assert len(rows) == min(k, len(matching))
            assert {name for name, _ in rows} <= matching


@pytest.mark.parametrize(("mark", "every"), [(None, 1), *SHARES.items()])
def test_the_nearest_are_found(corpus: Corpus, mark: str | None, every: int) -> None:
    """Up to 5,000 eligible chunks the answer is exact; above, the index finds 95 of 100 of the ten nearest."""
    condition = Jsonb({mark: True} if mark else {})
    found = [
        len(set(corpus.nearest(query, 10, every)) & {name for name, _ in corpus.search(query, mode="vector", filter=condition)})
        for query in QUERIES
    ]
    recall = sum(found) / (10 * len(QUERIES))
    assert recall >= (0.95 if CHUNKS / every > 5000 else 1.0)


def test_rows_of_no_document_take_no_places(corpus: Corpus) -> None:
    """Staged vectors that are all nearer than any document's do not appear, and cost no document its place."""
    for mode in ("vector", "hybrid"):
        rows = corpus.search(QUERIES[0], k=50, mode=mode, query="dragon")
        assert len(rows) == 50
        assert all(name.startswith("doc/") for name, _ in rows)
    names = [name for name, _ in corpus.search(QUERIES[0], k=10, mode="vector")]
    assert len(set(names) & set(corpus.nearest(QUERIES[0], 10))) >= 9
    assert len(corpus.search(QUERIES[0], k=1000, mode="text", query="unmapped")) == 0


@pytest.mark.parametrize("mark", [None, *SHARES])
@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_canaries_take_no_places(corpus: Corpus, mode: str, mark: str | None) -> None:
    """Nearer than any document, with the words and the metadata that are asked for, they do not appear and cost no document its
    place, by the index and without; only who says so finds them.
    """
    condition = Jsonb({mark: True} if mark else {})
    k = 10 if mark == "permille" else 50
    rows = corpus.search(QUERIES[1], k=k, mode=mode, query="dragon canary", filter=condition)
    assert len(rows) == min(k, len(rows)) > 0
    assert all(name.startswith("doc/") for name, _ in rows)
    if mode == "hybrid":
        assert rows[0][1] >= 1 / 61, "the nearest document is the first of its leg: scores are what they were without canaries"
    if mode == "vector":
        assert len(rows) == k
        every = SHARES[mark] if mark else 1
        assert len({name for name, _ in rows[:10]} & set(corpus.nearest(QUERIES[1], 10, every))) >= 9
    with corpus.connection.transaction():
        corpus.connection.execute("set local livedex.canary = 'on'")
        found = corpus.search(QUERIES[1], k=k, mode=mode, query="dragon canary", filter=condition)
    assert found[0][0].startswith("livedex-canary/index/")


def test_scores_do_not_depend_on_the_path(corpus: Corpus) -> None:
    """A document that both the index and the comparison with every vector find has the same score."""
    by_index = dict(corpus.search(QUERIES[1], k=20, mode="vector"))
    exactly = dict(corpus.search(QUERIES[1], k=20, mode="vector", filter=Jsonb({"tenth": True})))
    both = by_index.keys() & exactly.keys()
    assert both
    assert {name: by_index[name] for name in both} == pytest.approx({name: exactly[name] for name in both}, abs=1e-6)


def test_many_eligible_chunks_are_answered_by_the_index_and_few_are_not(corpus: Corpus) -> None:
    """A search without a filter scans the vector index; one whose filter keeps a hundredth does not."""
    before = corpus.index_scans()
    corpus.search(QUERIES[0], mode="vector", filter=Jsonb({"percent": True}))
    assert corpus.index_scans() == before
    corpus.search(QUERIES[0], mode="vector")
    until(lambda: corpus.index_scans() > before, timeout=5, what="a scan of the vector index")


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
@pytest.mark.parametrize("mark", [None, "half"])
def test_the_plan_uses_the_vector_index_only_on_the_index_path(corpus: Corpus, mode: str, mark: str | None) -> None:
    """The index path walks the vector index and looks documents up by key; the exact path never takes it."""
    condition = {mark: True} if mark else {}
    indexed = corpus.plan(mode=mode, exact=False, filter=condition)
    assert f"Index Scan using {corpus.index}" in indexed
    assert "Seq Scan on embedding" not in indexed
    assert "Index Scan using document_chunk_chunk_idx" in indexed
    assert corpus.index not in corpus.plan(mode=mode, exact=True, filter=condition)


def test_the_plan_of_a_text_search_uses_the_text_index(corpus: Corpus) -> None:
    """Words are looked up in the text index."""
    assert "Bitmap Index Scan on chunk_tsv_idx" in corpus.plan(mode="text", exact=True, filter={})


def test_the_index_goes_on_past_rows_of_no_document(corpus: Corpus) -> None:
    """The scan continues behind the staged vectors; not every vector is compared because of them."""
    before = corpus.vector_reads()
    corpus.search(QUERIES[0], mode="vector")
    assert corpus.vector_reads() - before < CHUNKS / 10


def test_words_of_no_document_crowd_no_words_out(corpus: Corpus) -> None:
    """In a hybrid search the staged texts, which are shorter and so rank higher, leave their places to documents."""
    names = {name for name, _ in corpus.search(QUERIES[1], query="dragon")}
    assert names - set(corpus.nearest(QUERIES[1], 100)), "found by their words"


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_an_index_scan_that_stops_short_is_completed_exactly(corpus: Corpus, mode: str) -> None:
    """Where the scan meets its own limit among rows of no document, every eligible vector is compared."""
    with corpus.connection.transaction():
        corpus.connection.execute("set local hnsw.max_scan_tuples = 1")
        names = [name for name, _ in corpus.search(QUERIES[0], k=400, mode=mode, query="nothing")]
    assert names == corpus.nearest(QUERIES[0], 400)


def test_a_leg_that_stops_short_is_completed_though_the_other_gave_k_rows(corpus: Corpus) -> None:
    """In a hybrid search the words give k rows; the nearest documents are still among them when the index scan stops short."""
    with corpus.connection.transaction():
        corpus.connection.execute("set local hnsw.max_scan_tuples = 1")
        names = {name for name, _ in corpus.search(QUERIES[0], k=100, query="dragon")}
    assert set(corpus.nearest(QUERIES[0], 10)) <= names
