"""How fresh the index is: what Postgres knows of documents that changed just now, and how far the log is ahead of it.

The histograms of the index workers are the exact account, and Prometheus keeps them; this is for who looks without it.
Freshness is that of the documents that are there: a change that is not searchable yet shows as staleness.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg.rows import dict_row

from livedex.database import Connection, query
from livedex.query.access import Caller
from livedex.query.log_watch import LogWatch, Look

WINDOW_SECONDS = 900
SLICE_SECONDS = 30
MOST_DOCUMENTS = 5000  # of each collection, the newest


def places(connection: Connection) -> dict[str, Any]:
    """How far each source is, and what can be searched."""
    with connection.cursor(row_factory=dict_row) as cursor:
        sources = cursor.execute(query("query", "status_sources")).fetchall()
        return {"sources": sources, "collections": cursor.execute(query("query", "searchable")).fetchall()}


def fresh(connection: Connection) -> list[dict[str, Any]]:
    """The freshness of each collection, as the query `freshness` has it."""
    window = {"window": WINDOW_SECONDS, "slice": SLICE_SECONDS, "most": MOST_DOCUMENTS}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("query", "freshness"), window).fetchall()


def told(
    found: Mapping[str, Any], freshness: Sequence[dict[str, Any]], watch: LogWatch, caller: Caller, *,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:  # fmt: skip
    """See `Overview` of operating; only what the caller may search. `found` is of `places`, `freshness` of `fresh`."""
    sources = found["sources"]
    mine = [row for row in sources if caller.may_search(row["collection"]) or caller.operator]
    look = watch.ends(_positions(sources))
    now = clock()
    return {
        "at": now,
        "window_seconds": WINDOW_SECONDS,
        "slice_seconds": SLICE_SECONDS,
        "collections": [row for row in found["collections"] if caller.may_search(row["name"]) or caller.operator],
        "freshness": _by_collection([row for row in freshness if caller.may_search(row["collection"]) or caller.operator]),
        "partitions": [_partition(row, look, now) for row in mine if row["partition"] is not None],
        "log": _told(look, caller),
    }


def _by_collection(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The whole window of each collection, with its slices in the order of time."""
    whole = {row["collection"]: {**_figures(row), "collection": row["collection"], "slices": []}
             for row in rows if row["slice"] is None}  # fmt: skip
    for row in rows:
        if row["slice"] is not None:
            whole[row["collection"]]["slices"].append({"at": row["slice"], **_figures(row)})
    return list(whole.values())


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("documents", "p50", "p95")}


def _positions(sources: list[dict[str, Any]]) -> dict[Any, int]:
    from kafka import TopicPartition

    return {
        TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in sources if row["partition"] is not None
    }


def _partition(row: Mapping[str, Any], look: Look | None, now: float) -> dict[str, Any]:
    from kafka import TopicPartition

    place = TopicPartition(row["topic"], row["partition"])
    ends = look.ends if look is not None else None
    names = ("topic", "partition", "collection", "next_offset", "owner", "event_time", "updated_at")
    return {
        **{name: row[name] for name in names},
        "lag": ends.lag.get(place) if ends is not None else None,
        "staleness_seconds": ends.staleness(place, now) if ends is not None else None,
    }


def _told(look: Look | None, caller: Caller) -> dict[str, Any]:
    """What the figures of the log are worth. Why there are none names servers, so only operators are told."""
    if look is None:
        return {"state": "asking", "asked_at": None, "problem": None}
    known = look.ends is not None
    return {
        "state": "known" if known else "unknown",
        "asked_at": look.at,
        "problem": look.problem if caller.operator else None,
    }
