"""The upkeep at a test's own pace, and what it left in the database."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from livedex.catalogue import Catalogue, Generation
from livedex.config import KafkaSettings
from livedex.core.upkeep import Pace
from livedex.database import Connection, open_pool
from livedex.index.building import BuildStore
from livedex.index.maintain import Maintainer
from livedex.lifecycle import Stop
from livedex.observe import IndexMetrics
from support.synthetic import Document, Piece, fill, gaussian, sentence
from support.waiting import until

FAST = Pace(
    look=0.05, measure=0.0, shortest_sweep=0.05, early_sweep=0.05, longest_sweep=0.05, least_grace=0.0, probe=0.0, rebuild=0.0,
    build_pause=0.05, longest_pause=0.05, retire=3.0,
)  # fmt: skip
INDEXES = "select name, valid from livedex.vector_indexes order by name"


@contextmanager
def upkeep(
    url: str, kafka: KafkaSettings, pace: Pace = FAST, *, name: str = "me", stop: Stop | None = None
) -> Iterator[Maintainer]:
    """The thread of an index worker that does the upkeep, and no other."""
    stop = stop or Stop()
    store = BuildStore(open_pool(url, size=2, name=name))
    maintainer = Maintainer(
        url=url, kafka=kafka, name=name, metrics=IndexMetrics(), stop=stop, pace=pace, store=store,
        catalogue=lambda: Catalogue(sources={}, targets={}), busy=lambda: False,
    )  # fmt: skip
    maintainer.start()
    try:
        yield maintainer
    finally:
        stop.ask("the test is over")
        maintainer.join(10)
        assert not maintainer.running
        store.close()


def looked(maintainer: Maintainer, times: int = 5) -> None:
    """Wait until it looked around so often again."""
    before = maintainer.looks
    until(lambda: maintainer.looks >= before + times, what=f"{times} looks of the upkeep")


def documents(count: int, dimension: int, seed: int = 1, *, prefix: str = "doc") -> list[Document]:
    """Documents of one chunk each."""
    generator, vectors = random.Random(seed), gaussian(seed, count, dimension)
    return [
        Document(
            name=f"{prefix}/{number}", pieces=[Piece(text=sentence(generator, f"{prefix}{number}"), vector=vectors[number])]
        )
        for number in range(count)
    ]


def filled(connection: Connection, generation: Generation, made: Sequence[Document]) -> None:
    """The documents, and no vector index."""
    fill(connection, generation, made)
    connection.execute(f"drop index livedex.{generation.embeddings}_hnsw")


@contextmanager
def old_reader(url: str) -> Iterator["psycopg.Connection[Any]"]:
    """A transaction of the application `the-old-one` that keeps a snapshot: no concurrent build ends before it does."""
    with psycopg.connect(url, application_name="the-old-one") as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from livedex.embedding_1")
        yield old
        old.rollback()


@contextmanager
def blocked_build(url: str, statement: str) -> Iterator[list[Exception]]:
    """CREATE or REINDEX INDEX CONCURRENTLY in a session of its own, `by-hand`, that waits for a transaction: how it failed,
    which is known behind this.
    """
    failures: list[Exception] = []

    def build() -> None:
        with psycopg.connect(url, autocommit=True, application_name="by-hand") as own:
            try:
                own.execute(statement)
            except psycopg.Error as error:
                failures.append(error)

    with old_reader(url) as old:
        thread = threading.Thread(target=build, daemon=True)
        thread.start()
        with psycopg.connect(url, autocommit=True) as other:
            waiting = "select 1 from livedex.vector_indexes where not valid"
            until(lambda: other.execute(waiting).fetchone(), what="a build to be under way")
        yield failures
        old.rollback()
        thread.join(timeout=20)
        assert not thread.is_alive()


def cancel(url: str, name: str) -> None:
    """Cancel what the sessions of this name run."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("select pg_cancel_backend(pid) from pg_stat_activity where application_name = %s", (name,))
