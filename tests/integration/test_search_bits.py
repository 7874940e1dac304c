"""Storage bit: the index finds by signs, and what it finds is ranked by the vectors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import Vector

from livedex.catalogue import Generation
from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian

SEED = 31
CHUNKS, DIMENSION, ASKED = 6000, 128, 40
SEARCH = "select document_id, score from livedex.search_vector(%s::vector, collection => 'signs', mode => 'vector', k => %s)"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents of one chunk each around a hundred centres, in a collection of storage bit, and questions near them."""

    connection: Connection
    generation: Generation
    vectors: NDArray[np.float32]
    questions: NDArray[np.float32]

    def nearest(self, question: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The nearest documents with their cosines, by comparing all."""
        cosines = self.vectors @ question / np.linalg.norm(self.vectors, axis=1) / np.linalg.norm(question)
        return [(f"doc/{row}", float(cosines[row])) for row in np.argsort(-cosines)[:k]]

    def search(self, question: NDArray[np.float32], k: int = 10) -> list[tuple[str, float]]:
        """What the database finds."""
        return self.connection.execute(SEARCH, (Vector(question), k)).fetchall()


@pytest.fixture(scope="module")
def corpus(stack: Addresses, template: str) -> Iterator[Corpus]:
    """Filled, with its index."""
    centres, noise = gaussian(SEED, 100, DIMENSION), gaussian(SEED + 1, CHUNKS, DIMENSION)
    vectors: NDArray[np.float32] = centres[np.arange(CHUNKS) % 100] + noise / np.float32(2)
    questions: NDArray[np.float32] = centres[:ASKED] + gaussian(SEED + 2, ASKED, DIMENSION) / np.float32(2)
    documents = [
        Document(name=f"doc/{row}", pieces=[Piece(text=f"number {row}", vector=vector)]) for row, vector in enumerate(vectors)
    ]
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        generation = create_collection(connection, "signs", model=f"hash-{DIMENSION}", storage="bit")
        fill(connection, generation, documents)
        yield Corpus(connection, generation, vectors, questions)


def test_the_best_of_what_the_signs_find_are_ranked_by_the_vectors(corpus: Corpus) -> None:
    """Nearly all of the nearest are found, in their order, and a score is the cosine."""
    found = wanted = 0
    for question in corpus.questions:
        rows, exact = corpus.search(question), dict(corpus.nearest(question, CHUNKS))
        assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)
        assert all(score == pytest.approx(exact[name], abs=1e-3) for name, score in rows)
        found += len({name for name, _ in rows} & set(list(exact)[:10]))
        wanted += 10
    assert found / wanted >= 0.95


def test_a_search_for_k_rows_gives_k_rows(corpus: Corpus) -> None:
    """However many are asked for."""
    assert [len(corpus.search(corpus.questions[0], k)) for k in (1, 100, 1000)] == [1, 100, 1000]


def test_the_index_is_used(corpus: Corpus) -> None:
    """The plan of the statement scans the index of signs, and no other way leads to the vectors."""
    select = "select livedex.search_statement(g, 'vector', false, false, null, null) from livedex.generation g"
    row = corpus.connection.execute(select).fetchone()
    assert row is not None
    made = corpus.generation
    with corpus.connection.transaction(force_rollback=True), psycopg.RawCursor(corpus.connection) as cursor:
        cursor.execute("set local hnsw.iterative_scan = 'relaxed_order'")
        cursor.execute(f"prepare search (vector, int, int, jsonb, timestamptz, timestamptz, int, tsquery) as {row[0]}")
        values = psycopg.sql.SQL(", ").join(
            [Vector(corpus.questions[0]), made.collection_id, made.chunking_id, "{}", None, None, 50, None]
        )
        plan = cursor.execute(
            psycopg.sql.SQL("explain execute search ({})").format(values).as_string(corpus.connection)
        ).fetchall()
        cursor.execute("deallocate search")
    text = "\n".join(line for (line,) in plan)
    assert f"Index Scan using {made.embeddings}_hnsw" in text
    assert "Seq Scan on embedding" not in text
