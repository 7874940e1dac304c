"""The text leg of a search at 12,000 chunks: frequent words cost it nothing, and cost no search its rows."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from livedex.catalogue import Generation
from livedex.database import Connection
from livedex.dev.stack import Addresses
from support.database import fresh_database
from support.synthetic import Document, Piece, connection_to, create_collection, fill, gaussian

SEED = 11
CHUNKS = 12_000
FREQUENT = {"river": 0.9, "stone": 0.6, "cloud": 0.5}  # shares of the chunks that have the word
SELDOM = ("quartz", "falcon", "kernel")  # three chunks each


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents of one chunk each; `texts[n]` is that of doc/n."""

    connection: Connection
    url: str
    generation: Generation
    texts: list[str]

    def search(self, query: str, **arguments: Any) -> list[tuple[str, float]]:
        """Document ids with scores, in mode text."""
        named = "".join(f", {name} => %({name})s" for name in arguments)
        statement = (
            "select document_id, score from livedex.search_vector(null, mode => 'text', collection => 'words', "
            f"timeout => '60 s', query => %(query)s{named})"
        )
        return self.connection.execute(statement, {**arguments, "query": query}).fetchall()

    def having(self, *words: str) -> set[str]:
        """The documents that have all these words."""
        return {f"doc/{number}" for number, text in enumerate(self.texts) if all(word in text for word in words)}

    def within(self, words: list[str], budget: float) -> tuple[str, bool]:
        """What would be looked up in the text index, and whether that is all."""
        shares = {word: share for word, share in FREQUENT.items() if word in words}
        ordered = sorted(words, key=lambda word: shares.get(word, 0.0))
        statement = "select wanted::text, complete from livedex.words_within(%s, %s, %s, %s)"
        found = [shares.get(word, 3 / CHUNKS) for word in ordered]
        row = self.connection.execute(statement, (ordered, found, float(CHUNKS), budget)).fetchone()
        assert row is not None
        return row[0].replace("'", ""), row[1]


@pytest.fixture(scope="module")
def corpus(stack: Addresses, template: str) -> Iterator[Corpus]:
    """The collection, with the statistics of its words."""
    choose = random.Random(SEED)
    vectors = gaussian(SEED, CHUNKS, 4)
    texts = []
    for number in range(CHUNKS):
        words = [word for word, share in FREQUENT.items() if choose.random() < share]
        texts.append(" ".join([f"number{number}", *words, *(word for n, word in enumerate(SELDOM) if number % 4000 == n)]))
    documents = [
        Document(
            name=f"doc/{n}", pieces=[Piece(text=text, vector=vectors[n])], metadata={"half": n % 2 == 0, "tenth": n % 10 == 3}
        )
        for n, text in enumerate(texts)
    ]
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        generation = create_collection(connection, "words", model="hash-4")
        fill(connection, generation, documents)
        connection.execute("select livedex.note_frequent_words()")
        yield Corpus(connection, url, generation, texts)


def test_the_statistics_say_how_frequent_words_are(corpus: Corpus) -> None:
    """What ANALYZE found is taken over once: frequent words with their shares; asking again changes nothing."""
    rows: dict[str, float] = dict(
        corpus.connection.execute("select word, share from livedex.frequent_word where share > 0.1").fetchall()
    )
    assert rows == {word: pytest.approx(share, abs=0.03) for word, share in FREQUENT.items()}
    assert corpus.connection.execute("select livedex.note_frequent_words()").fetchone() == (0,)


def test_rare_words_are_looked_up_and_frequent_ones_only_ranked(corpus: Corpus) -> None:
    """Of a question with both, only the rare words are asked for, until more are allowed; then all of them."""
    words = ["river", "quartz", "stone", "falcon"]
    assert corpus.within(words, 3000) == ("quartz | falcon", False)
    assert corpus.within(words, 8000) == ("quartz | falcon | stone", False)
    assert corpus.within(words, float("inf")) == ("quartz | falcon | stone | river", True)


def test_a_question_of_frequent_words_asks_for_those_together_first(corpus: Corpus) -> None:
    """Where even the rarest word is too frequent, chunks that have several come first; a larger budget takes any of them."""
    assert corpus.within(["river", "stone", "cloud"], 3000) == ("cloud & stone & river", False)
    assert corpus.within(["river", "stone", "cloud"], 4000) == ("cloud & stone", False)
    assert corpus.within(["river", "stone", "cloud"], 12_000) == ("cloud | stone | river", True)
    assert corpus.within(["river"], 3000) == ("river", True)


def test_what_has_the_rare_words_comes_first(corpus: Corpus) -> None:
    """A rare word weighs more than two frequent ones, and the rows beyond those that have it are found all the same."""
    rows = [name for name, _ in corpus.search("a river of stone and quartz", k=50)]
    assert len(rows) == 50
    assert set(rows[:3]) == corpus.having("quartz")
    assert set(rows[3:]) <= corpus.having("river", "stone")


@pytest.mark.parametrize("query", ["river", "river stone", "cloud river stone", "quartz", "falcon river", "absent quartz"])
def test_k_rows_come_whenever_k_have_a_word(corpus: Corpus, query: str) -> None:
    """However frequent the words are, a text search gives k rows, or all that have one of them; each row has one."""
    having = set.union(*(corpus.having(word) for word in query.split()))
    for k in (1, 10, 1000):
        for filter_, every, first in ({}, 1, 0), ({"half": True}, 2, 0), ({"tenth": True}, 10, 3):
            rows = {name for name, _ in corpus.search(query, k=k, filter=Jsonb(filter_))}
            matching = having & {f"doc/{number}" for number in range(first, CHUNKS, every)}
            assert len(rows) == min(k, len(matching))
            assert rows <= matching


def test_ties_are_stable(corpus: Corpus) -> None:
    """Chunks that have the same words come in the same order every time."""
    first = corpus.search("river stone", k=100)
    assert len({score for _, score in first}) < 10
    for _ in range(7):
        assert corpus.search("river stone", k=100) == first


def test_the_map_is_asked_for_the_best_only(corpus: Corpus) -> None:
    """Of thousands of chunks that have a word, those are looked for in the map that can be in the answer."""
    statement = """
        select s.idx_scan from pg_stat_user_indexes s where s.indexrelname = 'document_chunk_chunk_idx'"""

    def scans() -> int:
        corpus.connection.execute("select pg_stat_force_next_flush()")
        with psycopg.connect(corpus.url) as other:
            row = other.execute(statement).fetchone()
        assert row is not None
        return int(row[0])

    corpus.search("cloud")
    before = scans()
    corpus.search("cloud")
    assert scans() - before < 500


def test_a_small_collection_is_searched_by_its_own_words(stack: Addresses, template: str) -> None:
    """Words that are frequent in a large collection beside it are found where few chunks have them, each alone; which a search
    by meaning and words would else look up together only.
    """
    choose = random.Random(SEED)

    def filled(connection: Connection, name: str, words: list[str]) -> None:
        vectors = gaussian(SEED, len(words), 4)
        documents = [
            Document(name=f"{name}/{n}", pieces=[Piece(text=f"{name} number{n} {word}", vector=vectors[n])])
            for n, word in enumerate(words)
        ]
        fill(connection, create_collection(connection, name, model="hash-4"), documents)

    drawn = (" ".join(word for word in ("apple", "pear") if choose.random() < 0.6) for _ in range(9_000))
    few = [{0: "apple", 1: "pear"}.get(n % 500, "") for n in range(2_600)]
    having = {f"small/{n}" for n, word in enumerate(few) if word}
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        filled(connection, "large", list(drawn))
        filled(connection, "small", few)
        connection.execute("select livedex.note_frequent_words()")
        found = connection.execute(
            "select document_id from livedex.search_vector('[1, 1, 1, 1]', collection => 'small', query => 'apple or pear')"
        ).fetchall()
    assert len(found) == 10
    assert len(having & {name for (name,) in found}) >= 4


def test_each_collection_has_the_word_forms_of_its_language(stack: Addresses, template: str) -> None:
    """The same texts are found by other forms of their words: those of the collection's text_config, and of no other."""
    texts = {"english": "She was running.", "german": "Die Häuser am See."}
    with fresh_database(stack.database_url, template) as url, connection_to(url) as connection:
        for name in (*texts, "simple"):
            pieces = [Piece(text=text, vector=gaussian(SEED, 1, 4)[0]) for text in texts.values()]
            documents = [Document(name=of, pieces=[piece]) for of, piece in zip(texts, pieces, strict=True)]
            fill(connection, create_collection(connection, name, model="hash-4", text_config=name), documents)

        def found(collection: str, question: str) -> list[str]:
            statement = "select document_id from livedex.search_vector(null, mode => 'text', collection => %s, query => %s)"
            return [name for (name,) in connection.execute(statement, (collection, question)).fetchall()]

        for question, language in (("run", "english"), ("Haus", "german")):
            assert {name: found(name, question) for name in (*texts, "simple")} == {
                name: [language] if name == language else [] for name in (*texts, "simple")
            }
