"""What an operator asks first: how far each source is and who reads it, what each collection holds and how its index is, how
fresh the last minutes were, which dead letters are open, which workers are there.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from psycopg.rows import dict_row

from livedex import generations
from livedex.core.mailbox import PRESENCE_CLASS
from livedex.core.upkeep import UPKEEP_LOCK
from livedex.database import Connection, query

RECENT = 300.0  # seconds that freshness is told of
WINDOW = 900.0  # seconds: an event that is older counts no more, however late it became searchable
_INDEX = ("state", "phase", "percent", "recall", "unmapped_share", "worker", "problem")
_WAITS_FOR = ("pid", "application", "since")


def read(connection: Connection) -> dict[str, Any]:
    """The status as plain values, as far as Postgres knows it."""
    return {**of_collections(connection), **of_operations(connection)}


def of_collections(connection: Connection) -> dict[str, Any]:
    """`sources` and `collections`: what a status says of each collection. It counts their documents."""
    with connection.cursor(row_factory=dict_row) as cursor:
        sources = cursor.execute(query("query", "status_sources")).fetchall()
        collections = cursor.execute(query("query", "status_collections")).fetchall()
        indexes = cursor.execute(query("query", "status_indexes"), {"lock": UPKEEP_LOCK}).fetchall()
    found = {row["collection"]: _index(row) for row in indexes}
    others = [row for row in generations.read(connection) if row["state"] != "active"]
    for row in collections:
        row["index"] = found.get(row["collection"])
        row["generations"] = [other for other in others if other["collection"] == row["collection"]]
    return {"sources": sources, "collections": collections}


def of_operations(connection: Connection) -> dict[str, Any]:
    """`dead_letters`, `workers` and `freshness`: what is of all collections together."""
    window = {"seconds": RECENT, "window": WINDOW}
    with connection.cursor(row_factory=dict_row) as cursor:
        letters = cursor.execute(query("query", "status_dead_letters")).fetchall()
        workers = cursor.execute(query("query", "status_workers"), {"presence": PRESENCE_CLASS}).fetchall()
        freshness = cursor.execute(query("query", "status_freshness"), window).fetchone()
    return {
        "dead_letters": {row["reason"]: row["letters"] for row in letters},
        "workers": workers,
        "freshness": {"seconds": RECENT, **(freshness or {})},
    }


UNTOLD: Mapping[str, None] = MappingProxyType(dict.fromkeys(("dead_letters", "workers", "freshness")))  # to who is no operator


def only(found: Mapping[str, Any], allowed: Callable[[str], bool]) -> dict[str, Any]:
    """What `of_collections` says of these."""
    return {part: [row for row in found[part] if allowed(row["collection"])] for part in ("sources", "collections")}


def describe_freshness(freshness: dict[str, Any]) -> str:
    """The freshness in one line."""
    minutes = f"the last {freshness['seconds'] / 60:.0f} min"
    if not freshness["documents"]:
        return f"no document changed in {minutes}"
    median, p95, most = (freshness[f"{name}_seconds"] for name in ("median", "p95", "max"))
    return (
        f"{freshness['documents']} documents changed in {minutes}: searchable after {median:.2f} s (median), {p95:.2f} s "
        f"(95 of 100), {most:.2f} s (all)"
    )


def _index(row: dict[str, Any]) -> dict[str, Any]:
    """`state` is none, building, ready or invalid; `waits_for` the transaction that a build waits for, if it waits."""
    waits = {name: row[f"waits_for_{name}"] for name in _WAITS_FOR}
    return {**{name: row[name] for name in _INDEX}, "waits_for": waits if waits["pid"] is not None else None}


def describe_index(index: dict[str, Any] | None) -> str | None:
    """The state of an index in a few words."""
    if index is None:
        return None
    if index["state"] == "none":
        return "none: exact search"
    doing = [index["phase"]] if index["phase"] else []
    done = [f"{index['percent']} %"] if index["percent"] is not None else []
    return ", ".join([index["state"], *doing, *done])


def remarks(collection: dict[str, Any]) -> list[str]:
    """What an operator should know of a collection's index beyond its state, and of its other generations."""
    found = [
        f"generation {row['generation']} of {collection['collection']}: {describe(row)}" for row in collection["generations"]
    ]
    return [*found, *(f"index of {collection['collection']}: {text}" for text in _of_index(collection["index"]))]


def describe(generation: dict[str, Any]) -> str:
    """What there is to say of a generation that is not the active one."""
    if generation["state"] != "building":
        return f"{generation['state']}, because of {generation['reason']}" if generation["reason"] else str(generation["state"])
    built = f"building, {generation['built']} of {generation['documents']} documents"
    left = (generation["ends_at"] - datetime.now(UTC)).total_seconds() if generation["ends_at"] else 0.0
    if generation["complete"]:
        built += ", complete"
    elif left > 0:
        built += f", about {max(1, round(left / 60))} min left"
    return f"{built}; {generation['problem']}" if generation["problem"] else built


def _of_index(index: dict[str, Any] | None) -> list[str]:
    if index is None:
        return []
    found = []
    waits = index["waits_for"]
    if waits is not None:
        since = waits["since"].isoformat(timespec="seconds") if waits["since"] else "unknown"
        found.append(
            f"its build waits for a transaction of {waits['application'] or 'a session'} (pid {waits['pid']}) since {since}"
        )
    if index["worker"] is None:
        found.append("no worker does the upkeep")
    if index["problem"] is not None:
        found.append(index["problem"])
    return found
