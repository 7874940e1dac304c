"""livedex.search_vector against a brute-force search in Python: ranking, filters, limits, and what it refuses."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import errors
from psycopg.types.json import Jsonb

from livedex.catalogue import Generation
from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import EPOCH, Document, Piece, connection_to, create_collection, fill, gaussian, sentence

SEED = 20260
DIMENSION = 8
METRICS = ("cosine", "dot", "l2")
COLUMNS = ["document_id", "score", "title", "chunk", "ordinal", "metadata", "version", "event_time", "indexed_at"]


def similarity(metric: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """What `score` means in mode vector: higher is nearer."""
    if metric == "dot":
        return float(a @ b)
    if metric == "l2":
        return float(1 / (1 + np.linalg.norm(a - b)))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk of one document."""

    score: float
    document: Document
    ordinal: int

    @property
    def place(self) -> tuple[str, int]:
        """What names it."""
        return self.document.name, self.ordinal


@dataclass(frozen=True, slots=True)
class Corpus:
    """The same documents in a collection of each metric, in one database."""

    connection: Connection
    url: str
    documents: list[Document]
    generations: dict[str, Generation]

    def search(self, embedding: NDArray[np.float32] | None, **arguments: Any) -> list[dict[str, Any]]:
        """The rows of livedex.search_vector."""
        named = "".join(f", {name} => %({name})s" for name in arguments)
        values = {name: Jsonb(value) if name == "filter" else value for name, value in arguments.items()}
        vector = None if embedding is None else Vector(embedding)
        with self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            statement = f"select * from livedex.search_vector(%(embedding)s::vector{named})"
            return cursor.execute(statement, {**values, "embedding": vector}).fetchall()

    def eligible(self, wanted: Callable[[Document], bool]) -> list[Document]:
        """Visible documents that a filter lets pass."""
        return [document for document in self.documents if not document.deleted and wanted(document)]

    def best(
        self, score: Callable[[Piece], float | None], k: int, per_document: int = 1, wanted: Callable[[Document], bool] = bool
    ) -> list[Hit]:
        """The k best by brute force; a piece without a score is no hit."""
        hits: list[Hit] = []
        for document in self.eligible(wanted):
            own = [Hit(s, document, n) for n, piece in enumerate(document.pieces) if (s := score(piece)) is not None]
            hits += sorted(own, key=lambda hit: (-hit.score, hit.ordinal))[:per_document]
        return sorted(hits, key=lambda hit: (-hit.score, *hit.place))[:k]


def make_documents() -> list[Document]:
    """Sixty documents of one to three chunks; some chunks are in several documents, some documents are deleted."""
    generator = random.Random(SEED)
    vectors = iter(gaussian(SEED, 200, DIMENSION))
    shared = [Piece(text=sentence(generator, f"shared {number}"), vector=next(vectors)) for number in range(4)]
    documents = []
    for number in range(60):
        pieces = [
            Piece(text=sentence(generator, f"{number}/{n}"), vector=next(vectors)) for n in range(generator.randrange(1, 4))
        ]
        if generator.random() < 0.3:
            pieces.insert(generator.randrange(len(pieces) + 1), generator.choice(shared))
        documents.append(
            Document(
                name=f"doc/{number:02}",
                pieces=pieces,
                metadata={"lang": generator.choice(["de", "en"]), "tags": generator.sample(["a", "b", "c"], 2)},
                event_time=EPOCH + timedelta(days=number),
                deleted=number % 10 == 9,
            )
        )
    return documents


@pytest.fixture(scope="module")
def corpus(stack: Addresses, template: str) -> Iterator[Corpus]:
    """The filled collections."""
    documents = make_documents()
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        generations = {name: create_collection(connection, name, model=f"hash-{DIMENSION}", metric=name) for name in METRICS}
        for generation in generations.values():
            fill(connection, generation, documents)
        connection.execute("select livedex.note_frequent_words()")
        yield Corpus(connection, url, documents, generations)


def places(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """What the rows name."""
    return [(row["document_id"], row["ordinal"]) for row in rows]


QUERY = gaussian(SEED + 1, 1, DIMENSION)[0]


def test_a_row_has_the_columns_of_the_contract(corpus: Corpus) -> None:
    """Each row carries the document, its chunk, its version and its times, under the contract's names in their order."""
    rows = corpus.search(QUERY, collection="cosine", mode="vector", k=1)
    found = corpus.best(lambda piece: similarity("cosine", QUERY, piece.vector), 1)[0]
    assert list(rows[0]) == COLUMNS
    row = rows[0]
    assert (row["document_id"], row["ordinal"]) == found.place
    assert row["chunk"] == found.document.pieces[found.ordinal].text
    assert row["metadata"] == found.document.metadata
    assert row["event_time"] == found.document.event_time
    assert row["version"] == corpus.documents.index(found.document)
    assert row["indexed_at"].tzinfo is not None


@pytest.mark.parametrize("metric", METRICS)
def test_vector_search_is_the_brute_force_ranking(corpus: Corpus, metric: str) -> None:
    """Rows, order and scores of random searches are those of a comparison with every vector, for each metric."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    generator = random.Random(seed)
    for query in gaussian(seed, 20, DIMENSION):
        k, per_document = generator.randrange(1, 40), generator.randrange(1, 4)
        lang = generator.choice(["de", "en"])
        since = EPOCH + timedelta(days=generator.randrange(-1, 40))
        until = since + timedelta(days=generator.randrange(1, 60))

        def wanted(document: Document, lang: str = lang, since: datetime = since, until: datetime = until) -> bool:
            return document.metadata["lang"] == lang and since <= document.event_time < until

        rows = corpus.search(
            query,
            collection=metric,
            mode="vector",
            k=k,
            per_document=per_document,
            filter={"lang": lang},
            since=since,
            until=until,
        )
        expected = corpus.best(lambda piece, query=query: similarity(metric, query, piece.vector), k, per_document, wanted)  # type: ignore[misc]
        assert places(rows) == [hit.place for hit in expected]
        assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected], abs=1e-4)


def text_weights(corpus: Corpus, collection: str, query: str) -> dict[str, float]:
    """The text rank of each chunk that has a word of the query: what its words say together, less for long texts."""
    statement = """
        with word as (select word, ln(1 + count(*) / count(*) filter (where c.tsv @@ word::tsquery)::float8) as weight
                        from unnest(%s::text[]) word, livedex.chunk c group by word)
        select c.text, sum(weight) / (1 + length(c.tsv) / 200.0)::float8
          from livedex.chunk c join word on c.tsv @@ word::tsquery
         where c.collection_id = %s group by c.chunk_key order by 2 desc, c.chunk_key"""
    arguments = (query.split(), corpus.generations[collection].collection_id)
    return dict(corpus.connection.execute(statement, arguments).fetchall())


def test_text_search_takes_any_word_and_ranks_texts_that_have_more_and_rarer_ones(corpus: Corpus) -> None:
    """In mode text a chunk needs one word of the question, and counts by how rare its words are; no vector is needed."""
    weights = text_weights(corpus, "cosine", "dragon lantern ember")
    rows = corpus.search(None, collection="cosine", mode="text", query="The dragons, and a lantern of embers?", k=30)
    expected = corpus.best(lambda piece: weights.get(piece.text), 30)
    assert len(rows) == 30
    assert len(set(weights.values())) > 3
    assert places(rows) == [hit.place for hit in expected]
    assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected], rel=1e-6)


def test_without_statistics_each_word_counts_the_same(corpus: Corpus) -> None:
    """Where nobody has noted which words are frequent, the same rows come, by how many of the words they have."""
    question = {"collection": "cosine", "mode": "text", "query": "dragon lantern ember", "k": 60}
    noted = corpus.search(None, **question)
    with corpus.connection.transaction(force_rollback=True):
        corpus.connection.execute("delete from livedex.frequent_word")
        rows = corpus.search(None, **question)
    assert {row["document_id"] for row in rows} == {row["document_id"] for row in noted}
    many = [sum(word in row["chunk"] for word in ("dragon", "lantern", "ember")) for row in rows]
    assert many == sorted(many, reverse=True)
    assert len(set(many)) == 3


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_a_text_search_needs_no_right_to_write(corpus: Corpus, mode: str) -> None:
    """In a READ ONLY transaction the same rows come."""
    question = {"collection": "cosine", "mode": mode, "query": "dragon lantern"}
    rows = corpus.search(QUERY, **question)
    with corpus.connection.transaction():
        corpus.connection.execute("set transaction read only")
        assert corpus.search(QUERY, **question) == rows


def test_hybrid_search_fuses_the_two_rankings_by_rank(corpus: Corpus) -> None:
    """In mode hybrid a chunk's score is the sum of 1 / (60 + rank) over the two rankings; a missing one counts nothing."""
    pieces = {piece.text: piece for document in corpus.eligible(bool) for piece in document.pieces}
    near = sorted(pieces.values(), key=lambda piece: -similarity("cosine", QUERY, piece.vector))
    worded = [text for text in text_weights(corpus, "cosine", "canyon") if text in pieces]
    ranks = ({piece.text: n for n, piece in enumerate(near, 1)}, {text: n for n, text in enumerate(worded, 1)})

    def score(piece: Piece) -> float:
        return sum(1 / (60 + ranking[piece.text]) for ranking in ranks if piece.text in ranking)

    rows = corpus.search(QUERY, collection="cosine", query="canyon", k=50)
    expected = corpus.best(score, 50)
    assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected])
    assert places(rows) == [hit.place for hit in expected]


def test_hybrid_without_usable_words_is_the_vector_ranking(corpus: Corpus) -> None:
    """No query text, or one of stop words only, leaves the vector ranking; in mode text it finds nothing."""
    expected = places(corpus.search(QUERY, collection="cosine", mode="vector"))
    for query in (None, "the of and", "?!"):
        assert places(corpus.search(QUERY, collection="cosine", query=query)) == expected
    assert corpus.search(None, collection="cosine", mode="text", query="the of and") == []


@pytest.mark.parametrize(
    "query", ["it's", "back\\slash \\' dragon", "a:b & !c | (d", "'; drop table x; --", "http://x.y/'z?q=\\1", "日本 🙂"]
)
def test_any_text_is_a_question(corpus: Corpus, query: str) -> None:
    """Quotes, backslashes and operators of the query language are text like any other."""
    corpus.search(QUERY, collection="cosine", query=query)
    corpus.search(None, collection="cosine", mode="text", query=query)


def test_a_shared_chunk_stands_for_each_of_its_documents(corpus: Corpus) -> None:
    """A chunk that several documents have finds all of them that are visible, with one score, in the order of their ids."""
    text = next(piece.text for document in corpus.documents for piece in document.pieces if "shared" in piece.text)
    owners = [d.name for d in corpus.eligible(bool) if any(piece.text == text for piece in d.pieces)]
    vector = next(piece.vector for d in corpus.documents for piece in d.pieces if piece.text == text)
    rows = corpus.search(vector, collection="cosine", mode="vector", k=len(owners))
    assert len(owners) > 1
    assert [row["document_id"] for row in rows] == sorted(owners)
    assert {row["chunk"] for row in rows} == {text}
    assert len({row["score"] for row in rows}) == 1


def test_deleted_documents_are_absent(corpus: Corpus) -> None:
    """No mode finds a deleted document, however large k is."""
    deleted = {document.name for document in corpus.documents if document.deleted}
    for mode in ("vector", "text", "hybrid"):
        rows = corpus.search(QUERY, collection="cosine", mode=mode, query="dragon canyon ember", k=1000, per_document=10)
        assert rows
        assert not deleted & {row["document_id"] for row in rows}


def test_k_and_per_document_are_limits(corpus: Corpus) -> None:
    """With k = 1 comes one row, with k = 1000 every visible document once, and with per_document = 1000 every chunk of each."""
    visible = corpus.eligible(bool)
    assert len(corpus.search(QUERY, collection="cosine", mode="vector", k=1)) == 1
    everything = corpus.search(QUERY, collection="cosine", mode="vector", k=1000)
    assert sorted(row["document_id"] for row in everything) == sorted(document.name for document in visible)
    every_chunk = corpus.search(QUERY, collection="cosine", mode="vector", k=1000, per_document=1000)
    assert len(every_chunk) == sum(len(document.pieces) for document in visible)


def test_filters_are_containment(corpus: Corpus) -> None:
    """A filter keeps the documents whose metadata contains it, arrays included; one that nothing contains gives no row."""
    rows = corpus.search(QUERY, collection="cosine", mode="vector", k=100, filter={"tags": ["a"], "lang": "de"})
    expected = corpus.eligible(lambda d: d.metadata["lang"] == "de" and "a" in d.metadata["tags"])
    assert sorted(row["document_id"] for row in rows) == sorted(document.name for document in expected)
    assert corpus.search(QUERY, collection="cosine", query="dragon", filter={"lang": "fr"}) == []


def test_times_are_a_half_open_interval(corpus: Corpus) -> None:
    """`since` is the first event time that counts, `until` the first that does not."""
    since, until = EPOCH + timedelta(days=10), EPOCH + timedelta(days=13)
    rows = corpus.search(QUERY, collection="cosine", mode="vector", k=100, since=since, until=until)
    assert sorted(row["document_id"] for row in rows) == ["doc/10", "doc/11", "doc/12"]
    assert corpus.search(QUERY, collection="cosine", mode="vector", since=until, until=since) == []


def test_the_order_is_stable(corpus: Corpus) -> None:
    """The same search gives the same rows in the same order, ties included, also from a prepared statement."""
    first = corpus.search(QUERY, collection="dot", query="dragon", k=50, per_document=3)
    for _ in range(8):  # psycopg prepares after five
        assert corpus.search(QUERY, collection="dot", query="dragon", k=50, per_document=3) == first


REFUSED = [
    ({"k": 0}, "22023", "k is 0"),
    ({"k": 1001}, "22023", "k is 1001"),
    ({"k": None}, "22023", "k is null"),
    ({"per_document": 0}, "22023", "per_document is 0"),
    ({"per_document": None}, "22023", "per_document is null"),
    ({"mode": "fuzzy"}, "22023", "mode is 'fuzzy'"),
    ({"mode": None}, "22023", "mode is null"),
    ({"on_miss": "ignore"}, "22023", "on_miss is 'ignore', expected error or text"),
    ({"on_miss": None}, "22023", "on_miss is null"),
    ({"filter": [1]}, "22023", "filter is array"),
    ({"filter": "x"}, "22023", "filter is string"),
    ({"filter": None}, "22023", "filter is null"),
    ({"query": ""}, "22023", "the query text is empty"),
    ({"mode": "text"}, "22023", "the query text is empty"),
    ({"after": "nonsense"}, "22023", "the token 'nonsense'"),
    ({"after": "nobody:0:1"}, "22023", "names no topic that the collection cosine follows"),
    ({"timeout": None}, "22023", "the timeout is null, expected more than 0 and at most 24 hours"),
    ({"timeout": "0 s"}, "22023", "the timeout is 00:00:00"),
    ({"timeout": "-1 s"}, "22023", "the timeout is -00:00:01"),
    ({"timeout": "300000 years"}, "22023", "the timeout is 300000 years"),
    ({"timeout": "infinity"}, "22023", "the timeout is infinity"),
    ({"collection": "absent"}, "42704", "the collection absent does not exist"),
    ({"collection": None}, "42704", "does not exist"),
    ({"rerank": True}, "0A000", "livedex.search_vector cannot rerank"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "state", "message"), REFUSED)
def test_what_no_search_can_mean_is_refused(corpus: Corpus, arguments: dict[str, Any], state: str, message: str) -> None:
    """Each wrong argument is named, with the SQLSTATE of the contract."""
    with pytest.raises(psycopg.Error, match=message) as refused:
        corpus.search(QUERY, **{"collection": "cosine", **arguments})
    assert refused.value.sqlstate == state


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (None, "the embedding is null"),
        ([1, 2, 3], "the embedding has 3 dimensions, collection cosine has 8"),
        ([0] * 8, "no direction"),
        ([1, 70_000, 1, 1, 1, 1, 1, 1], "the embedding has the number 70000, collection cosine holds numbers below 65520"),
    ],
)
def test_an_embedding_that_cannot_be_compared_is_refused(corpus: Corpus, embedding: list[float] | None, message: str) -> None:
    """A missing vector, one of another length, and one without a direction are invalid arguments."""
    vector = None if embedding is None else np.array(embedding, np.float32)
    with pytest.raises(errors.InvalidParameterValue, match=message):
        corpus.search(vector, collection="cosine", mode="vector")


def test_settings_of_the_caller_stay(corpus: Corpus) -> None:
    """The function's own settings end with the call: the caller's hnsw.* and search_path are what they were."""
    names = ["hnsw.ef_search", "hnsw.iterative_scan", "search_path", "plan_cache_mode", "random_page_cost", "jit"]
    with corpus.connection.transaction():
        corpus.connection.execute("set local hnsw.ef_search = 33")
        before = [corpus.connection.execute("select current_setting(%s)", (name,)).fetchone() for name in names]
        corpus.search(QUERY, collection="cosine", query="dragon", k=100)
        assert [corpus.connection.execute("select current_setting(%s)", (name,)).fetchone() for name in names] == before
    assert before[:2] == [("33",), ("off",)]


def test_the_first_search_of_a_session_may_have_no_vector(corpus: Corpus) -> None:
    """Mode text works in a session where nothing has loaded pgvector yet."""
    with psycopg.connect(corpus.url) as fresh:
        statement = (
            "select count(*) from livedex.search_vector(null, collection => 'cosine', mode => 'text', query => 'dragon')"
        )
        assert fresh.execute(statement).fetchone() == (10,)
