"""One search, from text to rows, within a deadline. What is searched, fused and filtered is decided by one SQL function,
livedex.search_vector, which applications call too.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from livedex.database import Connection, query, translated
from livedex.errors import TimedOutError
from livedex.observe import QueryMetrics
from livedex.query.active import Encoders
from livedex.query.embedding import QueryEmbedder

Mode = Literal["hybrid", "vector", "text"]
LOOK_TIMEOUT = 1.0  # seconds that a look at the progress may take, however little of the deadline is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for; the defaults are those of the SQL function."""

    query: str
    k: int = 10
    collection: str = "default"
    filter: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "hybrid"
    rerank: bool = False
    per_document: int = 1
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None
    timeout: float = 2.0  # seconds for everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows as livedex.search_vector gives them, best first, and the milliseconds that each part took."""

    results: list[dict[str, Any]]
    took_ms: dict[str, float]
    generation: int | None  # None in an empty answer of a collection that is not there


class Searcher:
    """Answers searches; any number of threads may ask."""

    def __init__(
        self, pool: ConnectionPool[Connection], encoders: Encoders, embedder: QueryEmbedder, metrics: QueryMetrics
    ) -> None:
        self._pool = pool
        self._encoders = encoders
        self._embedder = embedder
        self._metrics = metrics

    def search(self, search: Search) -> Answer:
        """The answer, or TimedOutError, UnavailableError, or the psycopg error with the SQLSTATE of contracts.md section 5."""
        started = time.perf_counter()
        deadline = started + search.timeout
        took: dict[str, float] = {"embed": 0.0, "search": 0.0, "rerank": 0.0}
        generation = self._encoders.generation(search.collection, timeout=search.timeout)
        embedding = None
        if search.mode != "text" and generation is not None:
            with self._timed("embed", took):
                embedding = self._embedder.vectors(generation, [search.query], deadline=deadline)[0]
        with self._timed("search", took):
            rows = self._rows(search, embedding, deadline)
        took["total"] = (time.perf_counter() - started) * 1000
        rounded = {name: round(milliseconds, 3) for name, milliseconds in took.items()}
        return Answer(results=rows, took_ms=rounded, generation=generation.generation_id if generation else None)

    def reached(self, search: Search, deadline: float) -> bool:
        """Whether the event that the search has to come after is searchable, or the collection is not there to wait for."""
        if self._encoders.generation(search.collection, timeout=_left(deadline)) is None:
            return True
        with translated(), self._pool.connection(_left(deadline)) as connection, connection.transaction():
            left = max(LOOK_TIMEOUT, deadline - time.perf_counter())
            connection.execute(query("query", "set_timeout"), {"milliseconds": int(left * 1000)})
            row = connection.execute("select livedex.wait_for(%s, timeout => '0 s')", (search.after,)).fetchone()
        return row == (True,)

    def _rows(self, search: Search, embedding: NDArray[np.float32] | None, deadline: float) -> list[dict[str, Any]]:
        arguments = {
            "embedding": embedding,
            "k": search.k,
            "collection": search.collection,
            "filter": Jsonb(search.filter),
            "mode": search.mode,
            "after": search.after,
            "per_document": search.per_document,
            "rerank": search.rerank,
            "since": search.since,
            "until": search.until,
            "query": search.query,
        }
        with translated(), self._pool.connection(_left(deadline)) as connection, connection.transaction():
            left = _left(deadline)
            connection.execute(query("query", "set_timeout"), {"milliseconds": max(1, int(left * 1000))})
            with connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query("query", "search"), {**arguments, "timeout": timedelta(seconds=left)}).fetchall()

    @contextmanager
    def _timed(self, stage: str, took: dict[str, float]) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            took[stage] = seconds * 1000
            self._metrics.search_stage.labels("sql" if stage == "search" else stage).observe(seconds)


def _left(deadline: float) -> float:
    left = deadline - time.perf_counter()
    if left <= 0:
        raise TimedOutError("the search's deadline passed before the database was asked: give it a longer timeout")
    return left
