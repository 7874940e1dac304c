"""One search, from text to rows, within a deadline. What is searched, fused and filtered is decided by one SQL function,
livedex.search_vector, which applications call too.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from livedex.catalogue import Generation
from livedex.database import Connection, first_line, query, translated
from livedex.errors import InvalidFieldError, SystemicError, TimedOutError, UnavailableError
from livedex.observe import QueryMetrics, logger
from livedex.query import explaining
from livedex.query.active import Encoders
from livedex.query.embedding import QueryEmbedder
from livedex.tracing import OFF, Attributes, Tracer, current, exemplar

_log = logger("query")
Mode = Literal["hybrid", "vector", "text"]
DROPPED = "LX001"  # SQLSTATE: the generation was dropped since the text was embedded
CANDIDATES, MOST_CANDIDATES = 20, 50  # that are reranked: at least, and at most, however many rows are asked for
TIE = 1e-6  # how much lower the next of them is scored
ANSWER_RESERVE = 0.005  # seconds before the deadline: the answer is still to be written
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
    canaries: bool = False  # whether documents of livedex canary are found too, which nobody else sees
    timeout: float = 2.0  # seconds for everything
    explain: bool = False  # say why each row was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows as livedex.search_vector gives them, best first, and the milliseconds that each part took."""

    results: list[dict[str, Any]]
    took_ms: dict[str, float]
    generation: int | None  # None in an empty answer of a collection that is not there
    degraded: bool = False  # it was to be reranked, and there was no time for it


@dataclass(slots=True)
class _Asked:
    """A search on its way: what it has, or why it ended."""

    search: Search
    deadline: float  # of time.perf_counter()
    generation: Generation | None = None
    vector: NDArray[np.float32] | None = None
    error: Exception | None = None

    @property
    def chosen(self) -> dict[str, str]:
        """Set for its statements. The generation that it was prepared for is searched, whatever is the active one by then."""
        generation = str(self.generation.generation_id) if self.generation is not None else ""
        return {"generation": generation, "canaries": "on" if self.search.canaries else ""}

    @property
    def told(self) -> Attributes:
        """Of its span: neither what was asked for nor what was found."""
        search = self.search
        return {
            "db.system.name": "postgresql", "livedex.collection": search.collection, "livedex.mode": search.mode,
            "livedex.k": search.k,
        }  # fmt: skip


class Searcher:
    """Answers searches; any number of threads may ask."""

    def __init__(
        self, pool: ConnectionPool[Connection], encoders: Encoders, embedder: QueryEmbedder, metrics: QueryMetrics,
        tracer: Tracer = OFF,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._encoders = encoders
        self._embedder = embedder
        self._metrics = metrics
        self._tracer = tracer

    def search(self, search: Search, *, deadline: float | None = None) -> Answer:
        """The answer, or TimedOutError, UnavailableError, or the psycopg error with the SQLSTATE of contracts.md section 5.

        `deadline`: of time.perf_counter(), where part of the search's timeout was spent already.
        """
        started = time.perf_counter()
        (found,) = self._all([search], [started + search.timeout if deadline is None else deadline])
        if isinstance(found, Exception):
            raise found
        return found

    def search_all(self, searches: Sequence[Search], *, started: float) -> list[Answer | Exception]:
        """What `search` returns or raises for each of them; their texts are embedded together, and their timeouts began at
        `started` of time.perf_counter().
        """
        return self._all(searches, [started + search.timeout for search in searches])

    def _all(self, searches: Sequence[Search], deadlines: Sequence[float]) -> list[Answer | Exception]:
        took = {"embed": 0.0, "search": 0.0, "rerank": 0.0}  # milliseconds
        asked = [_Asked(search, deadline) for search, deadline in zip(searches, deadlines, strict=True)]
        self._prepare(asked, took)
        return [self._answer(each, took) for each in asked]

    def _prepare(self, asked: Sequence["_Asked"], took: dict[str, float]) -> None:
        """Give each its generation and its vector, or its error."""
        for each in asked:
            try:
                each.generation = self._encoders.generation(each.search.collection, timeout=_left(each.deadline))
            except Exception as error:  # noqa: BLE001 - raised again, or told in its place
                each.error = error
        by_generation: dict[int, list[_Asked]] = {}
        for each in asked:
            if each.generation is not None and each.search.rerank and not each.generation.reranker:
                each.error = InvalidFieldError(
                    "rerank",
                    f"collection {each.generation.collection} has no reranker: set one in livedex.toml and run livedex apply, "
                    "or search without rerank",
                )
            elif each.generation is not None and each.search.mode != "text":
                by_generation.setdefault(each.generation.generation_id, []).append(each)
        if by_generation:
            with self._timed("embed", took, counted=not all(each.search.canaries for each in asked)):
                for group in by_generation.values():
                    self._embed(group)

    def _embed(self, group: Sequence["_Asked"]) -> None:
        """Give each its vector or its error; all are of one generation."""
        generation = group[0].generation
        assert generation is not None
        try:
            deadline = max(each.deadline for each in group)
            vectors = self._embedder.vectors(generation, [each.search.query for each in group], deadline=deadline)
        except Exception as error:  # noqa: BLE001 - raised again, or told in its place
            if len(group) == 1 or isinstance(error, (TimedOutError, UnavailableError, SystemicError)):
                for each in group:
                    each.error = error
                return
            for each in group:  # a text that the model refuses fails its own search only
                self._embed([each])
            return
        for each, vector in zip(group, vectors, strict=True):
            each.vector = vector

    def _answer(self, asked: "_Asked", took: Mapping[str, float]) -> Answer | Exception:
        if asked.error is not None:
            return asked.error
        own = dict(took)
        degraded = False
        try:
            with self._timed("search", own, asked.told, counted=not asked.search.canaries):
                rows = self._found(asked, own)
            if asked.search.rerank:
                with self._timed("rerank", own, counted=not asked.search.canaries):
                    rows, degraded = self._reranked(asked, rows)
                    self._metrics.degraded.inc(degraded)
            if asked.search.explain and rows:
                deadline = explaining.until(own["search"] / 1000, asked.deadline - ANSWER_RESERVE)
                rows = explaining.explained(self._pool, rows, self._arguments(asked), asked.chosen, deadline)
        except Exception as error:  # noqa: BLE001 - raised again, or told in its place
            return error
        own["total"] = sum(own.values())
        rounded = {name: round(milliseconds, 3) for name, milliseconds in own.items()}
        generation = asked.generation.generation_id if asked.generation else None
        return Answer(results=rows, took_ms=rounded, generation=generation, degraded=degraded)

    def _found(self, asked: "_Asked", took: dict[str, float]) -> list[dict[str, Any]]:
        try:
            return self._rows(asked)
        except psycopg.Error as error:
            if error.sqlstate != DROPPED:
                raise
            return self._again(asked, took)

    def _reranked(self, asked: "_Asked", rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
        """(the rows in the reranker's order, False), or as they are and True when there was no time for it, or no reranker yet.
        Those behind the candidates keep their order, with scores below.
        """
        search, generation = asked.search, asked.generation
        if generation is None or not rows:
            return rows[: search.k], False
        judged, rest = rows[: candidates(search)], rows[candidates(search) :]
        passages = [f"{row['title']}\n\n{row['chunk']}" if row["title"] else row["chunk"] for row in judged]
        try:
            scores = self._encoders.reranker(generation).scores(
                search.query, passages, deadline=asked.deadline - ANSWER_RESERVE
            )
        except (TimedOutError, UnavailableError):
            return rows[: search.k], True
        except Exception as error:  # noqa: BLE001 - whatever the model makes of a passage, the rows are there
            _log.error("query.rerank_failed", collection=generation.collection, error=type(error).__name__)
            return rows[: search.k], True
        if not np.isfinite(scores).all():  # no order comes of them
            _log.error("query.rerank_failed", collection=generation.collection, error="a score is no number")
            return rows[: search.k], True
        order = sorted(range(len(judged)), key=lambda number: -scores[number])  # stable: ties as they were
        best = [{**judged[number], "score": float(scores[number])} for number in order]
        lowest = best[-1]["score"]
        below = [{**row, "score": lowest - TIE * number} for number, row in enumerate(rest, 1)]
        return [*best, *below][: search.k], False

    def _again(self, asked: "_Asked", took: dict[str, float]) -> list[dict[str, Any]]:
        self._encoders.refresh(timeout=_left(asked.deadline))
        self._prepare([asked], took)
        if asked.error is not None:
            raise asked.error
        return self._rows(asked)

    def reached(self, search: Search, deadline: float) -> bool:
        """Whether the event that the search has to come after is searchable, or the collection is not there to wait for."""
        if self._encoders.generation(search.collection, timeout=_left(deadline)) is None:
            return True
        with translated(), self._pool.connection(_left(deadline)) as connection, connection.transaction():
            left = max(LOOK_TIMEOUT, deadline - time.perf_counter())
            connection.execute(query("query", "set_timeout"), {"milliseconds": int(left * 1000)})
            try:
                row = connection.execute("select livedex.is_searchable(%s, %s)", (search.after, search.collection)).fetchone()
            except errors.InvalidParameterValue as error:
                raise InvalidFieldError("after", first_line(error), error.diag.message_hint) from error
        return row == (True,)

    def _rows(self, asked: "_Asked") -> list[dict[str, Any]]:
        arguments, deadline = self._arguments(asked), asked.deadline
        with translated(), self._pool.connection(_left(deadline)) as connection, connection.transaction():
            left = _left(deadline)
            connection.execute(query("query", "begin_search"), {"milliseconds": max(1, int(left * 1000)), **asked.chosen})
            with connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query("query", "search"), {**arguments, "timeout": timedelta(seconds=left)}).fetchall()

    def _arguments(self, asked: "_Asked") -> dict[str, Any]:
        """For the query `search`, without its timeout."""
        search = asked.search
        return {
            "embedding": asked.vector,
            "k": max(search.k, candidates(search)) if search.rerank else search.k,
            "collection": search.collection,
            "filter": Jsonb(search.filter),
            "mode": search.mode,
            "after": search.after,
            "per_document": search.per_document,
            "rerank": False,  # done here
            "since": search.since,
            "until": search.until,
            "query": search.query,
        }

    @contextmanager
    def _timed(
        self, part: str, took: dict[str, float], told: Attributes | None = None, *, counted: bool = True
    ) -> Iterator[None]:
        """`counted`: whether users had it; a canary's search is none of theirs."""
        stage, started = "sql" if part == "search" else part, time.perf_counter()
        try:
            with self._tracer.span(stage, attributes=told):
                yield
        finally:
            seconds = time.perf_counter() - started
            took[part] = seconds * 1000
            if counted:
                self._metrics.search_stage.labels(stage).observe(seconds, exemplar(current()))


def candidates(search: Search) -> int:
    """How many rows of a search the reranker judges."""
    return min(max(search.k, CANDIDATES), MOST_CANDIDATES)


def _left(deadline: float) -> float:
    left = deadline - time.perf_counter()
    if left <= 0:
        raise TimedOutError("the search's deadline passed before the database was asked: give it a longer timeout")
    return left
