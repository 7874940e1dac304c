"""The 100,000 chunks behind a query worker with the real model, and the ways to ask it."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from bench.corpus import Corpus, load
from bench.filling import fill
from bench.scene import Scene
from livedex import catalogue
from livedex.catalogue import Generation
from livedex.database import Connection, connect, prepare
from support.workers import Process, Workers

K = 10
SQL = "select document_id from livedex.search(%s, k => 10, mode => %s, timeout => '10 s')"
FILTERED = "select document_id from livedex.search(%s, k => 10, mode => 'vector', filter => %s, timeout => '10 s')"


@dataclass(slots=True)
class Asked:
    """Seconds of searches, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0


@dataclass
class Desk:
    """Where to ask."""

    workers: Workers
    config: Path
    topic: str
    corpus: Corpus
    vectors: NDArray[np.float32]
    marks: list[set[str]]
    generation: Generation
    serve: Process
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def new(self, number: int) -> list[str]:
        """So many questions that nobody asked before."""
        known = list(self.corpus.questions)
        return [f"{known[n % len(known)].rstrip('.')}, case {next(self._numbers)}?" for n in range(number)]

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection of an application."""
        with connect(self.workers.database_url) as connection:
            prepare(connection)
            yield connection

    def over_http(self, questions: Sequence[str], mode: str, **body: Any) -> list[float]:
        """Seconds of each, one after another."""
        with self.client() as client:
            return [self._timed(lambda: self.ask(client, each, mode, **body)) for each in questions]  # noqa: B023

    def client(self) -> httpx.Client:
        """Of the query worker."""
        return httpx.Client(base_url=self.serve.address, trust_env=False, timeout=30)

    def ask(self, client: httpx.Client, question: str, mode: str, **body: Any) -> list[dict[str, Any]]:
        """The rows found."""
        answer = client.post("/v1/search", json={"query": question, "mode": mode, "k": K, "timeout_ms": 10_000, **body})
        rows: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
        return rows

    def in_sql(self, questions: Sequence[str], mode: str = "vector") -> list[float]:
        """Seconds of each by livedex.search, one after another."""
        with self.session() as connection:
            connection.execute(SQL, (questions[0], mode)).fetchall()
            return [self._timed(lambda: connection.execute(SQL, (each, mode)).fetchall()) for each in questions]  # noqa: B023

    def first_of_session(self, question: str, number: int) -> list[float]:
        """Seconds of the first search of so many new sessions, one after another."""
        found = []
        for _ in range(number):
            with self.session() as connection:
                found.append(self._timed(lambda: connection.execute(SQL, (question, "vector")).fetchall()))
        return found

    def at_once(self, sessions: int, questions: Sequence[Sequence[str]], warm: str) -> Asked:
        """What so many sessions get that ask by livedex.search, each its own questions, without a pause; each has searched for
        `warm` before.
        """
        asked, start, lock = Asked(), threading.Barrier(sessions), threading.Lock()

        def ask(own: Sequence[str]) -> None:
            with self.session() as connection:
                connection.execute(SQL, (warm, "vector")).fetchall()
                start.wait()
                for question in own:
                    begun = time.perf_counter()
                    try:
                        connection.execute(SQL, (question, "vector")).fetchall()
                    except psycopg.Error:
                        with lock:
                            asked.errors += 1
                    with lock:
                        asked.seconds.append(time.perf_counter() - begun)

        threads = [threading.Thread(target=ask, args=(own,), daemon=True) for own in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return asked

    @cached_property
    def judged(self) -> tuple[dict[str, str], NDArray[np.float32]]:
        """The corpus's questions, with their vectors as the query worker makes them."""
        with self.session() as connection:
            rows = [connection.execute("select livedex.embed(%s)", (each,)).fetchone() for each in self.corpus.questions]
        return self.corpus.questions, np.stack([row[0].to_numpy() for row in rows if row is not None])

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The number of each chunk's document."""
        return np.repeat(np.arange(len(self.corpus.texts)), [len(text.chunks) for text in self.corpus.texts])

    def nearest(self, vector: NDArray[np.float32], mark: str | None = None) -> set[str]:
        """The documents of the K nearest by comparing all, one chunk of each."""
        found: dict[int, None] = {}
        for row in np.argsort(-(self.vectors @ vector), kind="stable"):
            number = int(self.owner[row])
            if mark is None or mark in self.marks[number]:
                found.setdefault(number)
                if len(found) == K:
                    break
        return {self.corpus.texts[number].name for number in found}

    @staticmethod
    def _timed(work: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        assert work(), "a search found nothing"
        return time.perf_counter() - begun


def condition(mark: str | None) -> Jsonb:
    """The filter for documents with a mark."""
    return Jsonb({mark: True} if mark else {})


@contextmanager
def desk(scene: Scene, say: Callable[[str], None], *, reranker: str = "") -> Iterator[Desk]:
    """A database with the corpus, and a query worker on it."""
    corpus = load(scene.share)
    vectors = corpus.vectors(say)
    with scene.database() as workers:
        topic = scene.log.topic(3)
        config = workers.config(topic, reranker=reranker)
        workers.apply(config, LIVEDEX_EMBEDDER="auto")
        with connect(workers.database_url) as connection:
            prepare(connection)
            connection.execute("set maintenance_work_mem = '1GB'")
            (generation,) = catalogue.generations(connection).values()
            marks = fill(connection, generation, corpus.texts, vectors)
        serve = workers.start("serve", config, LIVEDEX_EMBEDDER="auto")
        yield Desk(workers, config, topic, corpus, vectors, marks, generation, serve)
        scene.note(serve, "serve")


def shuffled(questions: Sequence[str], seed: int) -> list[str]:
    """In another order for each seed."""
    return random.Random(seed).sample(list(questions), len(questions))
