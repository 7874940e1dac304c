"""Why a search found what it found: the place that each leg alone gives a document, and the words that it shares with the
query.

It costs a search of each leg, so it is done on request only, behind the search itself. Where no time is left for it the rows
stay as they are, unexplained.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import psycopg
from psycopg.errors import QueryCanceled
from psycopg_pool import ConnectionPool

from livedex.database import Connection, query, translated
from livedex.errors import TimedOutError, UnavailableError
from livedex.observe import logger

_log = logger("query")
Leg = Literal["vector", "text"]
LEGS: Mapping[str, tuple[Leg, ...]] = {"hybrid": ("vector", "text"), "vector": ("vector",), "text": ("text",)}
SHALLOWEST, DEEPEST = 50, 1000  # places of a leg that are looked at: at least, and at most
LEAST_TIME = 0.01  # seconds that must be left
OWN_TIME = 0.25  # seconds that it may take where the search took less than half of that, else twice the search's time


def depth(k: int) -> int:
    """How many documents of each leg are looked at."""
    return min(DEEPEST, max(SHALLOWEST, 4 * k))


def until(searched: float, deadline: float) -> float:
    """When explaining has to end, by time.perf_counter(), after a search of so many seconds: who waits for rows that are there
    must not wait for the whole timeout.
    """
    return min(deadline, time.perf_counter() + max(OWN_TIME, 2 * searched))


def explained(
    pool: ConnectionPool[Connection], rows: Sequence[dict[str, Any]], arguments: Mapping[str, Any],
    chosen: Mapping[str, str], deadline: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows with `why`, or as they are when the deadline of time.perf_counter() comes first, or when Postgres refuses: the
    generation may have been dropped since, and the rows are there.

    `arguments` are those of the query `search`, `chosen` those of `begin_search` without its time.
    """
    asked = {**arguments, "per_document": 1, "k": depth(arguments["k"])}
    try:
        with translated(), pool.connection(_left(deadline)) as connection, connection.transaction():
            places = {leg: _places(connection, asked, leg, chosen, deadline) for leg in LEGS[arguments["mode"]]}
            words = _words(connection, rows, asked, chosen, deadline)
    except (QueryCanceled, TimedOutError, UnavailableError):
        return list(rows)
    except psycopg.Error as error:
        _log.warning("query.explain_failed", sqlstate=error.sqlstate, error=type(error).__name__)
        return list(rows)
    return [{**row, "why": _why(row, places, words[number], asked["k"])} for number, row in enumerate(rows)]


def _why(row: Mapping[str, Any], places: Mapping[Leg, Mapping[str, int]], words: list[str], looked_at: int) -> dict[str, Any]:
    name = row["document_id"]
    found: dict[str, int | None] = {leg: places[leg].get(name) if leg in places else None for leg in LEGS["hybrid"]}
    return {**found, "words": words, "depth": looked_at}


def _places(
    connection: Connection, asked: Mapping[str, Any], leg: Leg, chosen: Mapping[str, str], deadline: float
) -> dict[str, int]:  # fmt: skip
    """The place of each document that a search by this leg alone finds, 1 for the best."""
    left = _begin(connection, chosen, deadline)
    found = connection.execute(query("query", "places"), {**asked, "mode": leg, "timeout": timedelta(seconds=left)})
    return {name: place for place, (name,) in enumerate(found, 1)}


def _words(
    connection: Connection, rows: Sequence[Mapping[str, Any]], asked: Mapping[str, Any], chosen: Mapping[str, str],
    deadline: float,
) -> Mapping[int, list[str]]:  # fmt: skip
    """The words of each row, by its number, that are the query's too, as they stand in its title and its chunk."""
    _begin(connection, chosen, deadline)
    texts = [f"{row['title'] or ''}\n{row['chunk']}" for row in rows]
    arguments = {"query": asked["query"], "collection": asked["collection"], "texts": texts}
    found: defaultdict[int, list[str]] = defaultdict(list)
    for number, word in connection.execute(query("query", "shared_words"), arguments):
        found[number - 1].append(word)
    return found


def _begin(connection: Connection, chosen: Mapping[str, str], deadline: float) -> float:
    """Let the next statement take what is left, in seconds, and no more."""
    left = _left(deadline)
    connection.execute(query("query", "begin_search"), {"milliseconds": max(1, int(left * 1000)), **chosen})
    return left


def _left(deadline: float) -> float:
    left = deadline - time.perf_counter()
    if left < LEAST_TIME:
        raise TimedOutError("no time is left to explain the results")
    return left
