"""Changes of a collection's model: which generations there are, which one is searched, and which ones go.

`livedex apply` begins a generation beside the active one, the index workers build it, and every batch is written to both. Here
one is made the active one, in one transaction, once it is complete; the one before is kept, so that it can come back at once.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import errors
from psycopg.rows import class_row, dict_row

from livedex import catalogue
from livedex.core.mailbox import PRESENCE_CLASS
from livedex.core.upkeep import Pace
from livedex.database import Connection, query, translated
from livedex.errors import ConfigError, ConflictError

LEAST_RECALL = 0.9  # of its vector index, as the upkeep probes it
PROBE = {"queries": 30, "seconds": 5.0}
LOADING = 60.0  # seconds that query workers may take to load a model; a large one comes off a cold disk
LOOK_EVERY = 0.1  # seconds
LOCK_TIMEOUT_MS = 10_000  # for the batches in flight to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A generation that somebody wants to do something with; see the query `find`."""

    generation_id: int
    collection_id: int
    chunking_id: int
    state: str
    reason: str | None
    index_method: str
    collection: str
    active_generation: int
    active_chunking: int
    complete: bool  # nothing is left to the builder

    @property
    def embeddings(self) -> str:
        """The name of the table of its vectors."""
        return f"embedding_{self.generation_id}"

    @property
    def arguments(self) -> dict[str, Any]:
        """For queries."""
        names = ("generation_id", "collection_id", "chunking_id", "active_chunking")
        return {name: getattr(self, name) for name in names}


def read(connection: Connection) -> list[dict[str, Any]]:
    """Every generation, as plain values."""
    with translated(), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("generations", "list")).fetchall()


def check_ready(
    connection: Connection, collection: str, generation_id: int, *, pace: Pace | None = None, patience: float = LOADING
) -> Found:
    """ConfigError when the generation could not be switched to, with what is missing. Query workers that load its model are
    waited for, up to `patience` seconds.
    """
    found = _find(connection, generation_id)
    if found.collection != collection:
        raise ConfigError(f"generation {generation_id} is one of collection {found.collection}, not of {collection}")
    _refuse_unready(found)
    if found.state == "building":
        _gate(connection, found, pace or Pace())
    _wait_for_query_workers(connection, found, patience)
    return found


def switch(
    connection: Connection, collection: str, generation_id: int, *, pace: Pace | None = None, patience: float = LOADING
) -> None:
    """Search this generation from now on. ConfigError when it is not ready, with what is missing; ConflictError when batches in
    flight, or another operator, hold the collection for long.
    """
    # before any batch has to wait; what of it may change until then is asked again
    found = check_ready(connection, collection, generation_id, pace=pace, patience=patience)
    with _held(connection, found):
        found = _find(connection, generation_id)  # another operator may have been faster
        _refuse_unready(found)
        if found.state == "building" and not found.complete:
            raise _not_ready(found, "a document is not in it yet")
        connection.execute(query("generations", "switch"), found.arguments)


def rollback(connection: Connection, collection: str) -> int:
    """Search the generation again that was active before; its number."""
    with translated():
        row = connection.execute(query("generations", "last_kept"), {"collection": collection}).fetchone()
    if row is None:
        raise ConfigError(
            f"collection {collection} keeps no earlier generation: there was no switch, or it was dropped. "
            "livedex generation list shows what there is"
        )
    switch(connection, collection, row[0])
    return int(row[0])


def drop(connection: Connection, generation_id: int) -> None:
    """Give up a generation that is not the active one; the upkeep takes its vectors away, and its chunks after the grace."""
    found = _find(connection, generation_id)
    with _held(connection, found):
        found = _find(connection, generation_id)
        if found.generation_id == found.active_generation:
            raise ConfigError(
                f"generation {generation_id} is the active one of collection {found.collection}: switch to another one first"
            )
        connection.execute(query("generations", "retire"), found.arguments)


def _find(connection: Connection, generation_id: int) -> Found:
    with translated(), connection.cursor(row_factory=class_row(Found)) as cursor:
        found = cursor.execute(query("generations", "find"), {"generation_id": generation_id}).fetchone()
    if found is None:
        raise ConfigError(f"there is no generation {generation_id}: livedex generation list shows those that there are")
    return found


@contextmanager
def _held(connection: Connection, found: Found) -> Iterator[None]:
    """In a transaction in which no worker applies a batch to the collection, and no other operator changes its generations."""
    with translated(), connection.transaction():
        take_alone(connection, found.collection_id, found.collection)
        yield


def take_alone(connection: Connection, collection_id: int, name: str) -> None:
    """Until this transaction ends, no batch is applied to the collection, and nobody else changes its generations.
    ConflictError when it is in use for long.
    """
    try:
        connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.execute(
            query("apply", "keep_collection"), {"key": catalogue.COLLECTION_LOCK, "collection_id": collection_id}
        )
    except errors.LockNotAvailable as error:
        raise ConflictError(
            f"collection {name} was in use for {LOCK_TIMEOUT_MS // 1000} s, by a batch or by another operator: nothing was "
            "changed, try again"
        ) from error


def _refuse_unready(found: Found) -> None:
    if found.state == "active":
        raise ConfigError(f"generation {found.generation_id} is the active one of collection {found.collection} already")
    if found.state == "failed":
        raise ConfigError(
            f"generation {found.generation_id} failed, because of {found.reason}: once that is mended, "
            f"livedex generation drop {found.generation_id}, and begin another one with livedex apply"
        )


def _gate(connection: Connection, found: Found, pace: Pace) -> None:
    """ConfigError unless the generation has all that the active one has, and a vector index that finds it."""
    with translated():
        torn = connection.execute(query("generations", "torn"), found.arguments).fetchone()
    if torn is not None:
        raise _not_ready(found, f"the document {torn[0]!r} is not in it yet")
    missing = _count(connection, "unembedded", found)
    if missing:
        raise _not_ready(found, f"{missing} chunks have no vector yet")
    indexed = connection.execute(query("generations", "index_ready"), {"embeddings": found.embeddings}).fetchone() == (True,)
    if (
        found.index_method != "none"
        and not indexed
        and _count(connection, "vectors", found, most=pace.build_rows) >= pace.build_rows
    ):
        raise _not_ready(found, "its vector index is not built yet, and searches would compare all vectors")
    recall = _recall(connection, found) if indexed else None
    if recall is not None and recall < LEAST_RECALL:
        raise _not_ready(found, f"its vector index finds {recall:.0%} of the nearest, at least {LEAST_RECALL:.0%} is expected")


def _wait_for_query_workers(connection: Connection, found: Found, patience: float) -> None:
    """Until every query worker that answers texts in SQL has the model: a text that none can embed would be refused."""
    arguments = {"presence": PRESENCE_CLASS, "active_generation": found.active_generation, **found.arguments}
    deadline = time.monotonic() + patience
    while True:
        with translated():
            waiting = [name for (name,) in connection.execute(query("generations", "without_model"), arguments).fetchall()]
        if not waiting:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_EVERY)
    raise ConfigError(
        f"generation {found.generation_id} of collection {found.collection} is not ready: {', '.join(waiting)} cannot embed "
        "texts for it: its log says why it does not load the model; mend that, or end that worker"
    )


def _recall(connection: Connection, found: Found) -> float | None:
    """The share of the nearest that the index finds, of some vectors; None where there is nothing to find."""
    with translated():
        row = connection.execute(query("generations", "recall"), {"generation_id": found.generation_id, **PROBE}).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def _count(connection: Connection, name: str, found: Found, **more: int) -> int:
    row = connection.execute(query("generations", name, embeddings=found.embeddings), {**found.arguments, **more}).fetchone()
    assert row is not None
    return int(row[0])


def _not_ready(found: Found, why: str) -> ConfigError:
    return ConfigError(
        f"generation {found.generation_id} of collection {found.collection} is not ready: {why}. livedex generation list shows "
        "how far it is, and livedex index builds it"
    )
