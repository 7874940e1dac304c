"""The session in which one worker of all does the upkeep: it holds the election's lock, which is free when the session ends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row, dict_row

from livedex.core.upkeep import UPKEEP_LOCK, IndexState
from livedex.database import CONNECT_TIMEOUT, WRITER_SETTINGS, open_session, query
from livedex.errors import ConfigError
from livedex.lifecycle import Stop

FOREVER = 1e9  # seconds

# A build does not outlive its worker for long: the next one repeats it, and could not while it goes on. Not every system can.
_GONE_CLIENT = "set client_connection_check_interval = '2s'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A generation whose vectors are written, and what there is of its index; see the query `generations`."""

    generation_id: int
    chunking_id: int
    collection_id: int
    collection: str
    active: bool
    filling: bool  # documents are still to be built into it
    grace: float  # seconds
    wanted: bool
    indexed: str  # what the index is made over, in SQL
    ready: str | None  # the name of its valid index
    left_over: list[str]  # the names of what is not valid
    in_work: bool
    pages: int  # of the table of its vectors
    bytes: int  # the same
    index_bytes: int  # of its vector indexes, also of those that are not valid
    dimension: int
    storage: str
    dead: int  # rows of that table, which its index still has
    live: int  # about how many
    vacuum_factor: float | None  # the share of dead rows from which on autovacuum comes; None: the server's
    unmapped: float | None
    recall: float | None
    first_recall: float | None
    age: float | None  # seconds

    @property
    def embeddings(self) -> str:
        """The name of the table of its vectors."""
        return f"embedding_{self.generation_id}"

    @property
    def index(self) -> str:
        """The name of the index that livedex builds."""
        return f"{self.embeddings}_hnsw"

    @property
    def index_state(self) -> IndexState:
        """What there is of its index."""
        if self.ready is not None:
            return IndexState.READY
        if not self.left_over:
            return IndexState.NONE
        return IndexState.BUILDING if self.in_work else IndexState.INVALID


class UpkeepSession:
    """One connection; for one thread. What is short runs under the limits of every writer, `at_length` under none."""

    def __init__(self, url: str, name: str, stop: Stop) -> None:
        self._stop = stop
        self._connection = open_session(url, name=name, settings=WRITER_SETTINGS)
        self._elected = False
        self._owner = False
        with suppress(psycopg.Error):
            self._connection.execute(_GONE_CLIENT)
        self._connection.execute(query("maintain", "narrow_path"))

    def close(self) -> None:
        """End it, and with it the election."""
        with suppress(psycopg.Error):
            self._connection.close()

    @property
    def broken(self) -> bool:
        """Whether there is nobody at the other end any more."""
        return self._connection.closed or self._connection.broken

    def elected(self) -> bool:
        """Whether the upkeep is this session's; tries to make it so."""
        if not self._elected:
            self._elected = self.value("elect", {"key": UPKEEP_LOCK})
        return self._elected

    def as_owner(self) -> None:
        """Act as the owner of the tables from now on, which building an index needs; ConfigError when that is not allowed."""
        if self._owner:
            return
        try:
            self._owner = self.value("may_become_owner")
            if self._owner:
                self._connection.execute(query("maintain", "become_owner"))
        except errors.InsufficientPrivilege:  # a member that may not act as it
            self._owner = False
        if not self._owner:
            role = self._connection.info.user
            raise ConfigError(
                f"role {role} may not build or rebuild vector indexes, searches compare all vectors where there is none: "
                f"GRANT livedex_owner TO {role}"
            )

    def generations(self) -> list[Kept]:
        """The generations that are written."""
        with self._connection.cursor(row_factory=class_row(Kept)) as cursor:
            return cursor.execute(query("maintain", "generations")).fetchall()

    def rows(self, name: str, arguments: dict[str, Any] | None = None, **identifiers: str) -> list[dict[str, Any]]:
        """The rows of a named query."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query("maintain", name, **identifiers), arguments or {}).fetchall()

    def value(self, name: str, arguments: dict[str, Any] | None = None, **identifiers: str) -> Any:
        """The first value that a named query gives."""
        row = self._connection.execute(query("maintain", name, **identifiers), arguments or {}).fetchone()
        return row[0] if row else None

    def execute(self, name: str, arguments: dict[str, Any], *, planned_anew: bool = False) -> int:
        """Run a named statement; how many rows it wrote. `planned_anew`: no plan of an earlier time is used."""
        return self._connection.execute(query("maintain", name), arguments, prepare=False if planned_anew else None).rowcount

    def drop_quickly(self, embeddings: str) -> None:
        """Drop a table of vectors, if nobody is in the way at this moment."""
        with self._connection.transaction():
            self._connection.execute("set local lock_timeout = '100ms'")
            self._connection.execute(query("maintain", "drop_embeddings", embeddings=embeddings))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What runs inside is done whole or not at all."""
        with self._connection.transaction():
            yield

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """One transaction whose statements may take so long, and are canceled then."""
        with self._connection.transaction():
            self._connection.execute("select set_config('statement_timeout', %s, true)", (f"{round(seconds * 1000)}ms",))
            yield

    def set_aside(self, embeddings: str, index: str) -> str | None:
        """Give an index that is not valid a name by which nobody can find and rebuild it, so that it may be dropped; that name,
        or None when it is not there any more, or valid by now. The lock keeps everybody away who could make it valid.
        """
        with self._connection.transaction():
            self._connection.execute(query("maintain", "lock_indexes", embeddings=embeddings))
            found = self.value("invalid_index", {"index": index})
            if found is None:
                return None
            aside = f"{embeddings}_hnsw_ccold{found}"
            if aside != index:
                self._connection.execute(query("maintain", "rename_index", index=index, aside=aside))
            return aside

    def defer_vacuum(self, embeddings: str, factor: float) -> None:
        """Let autovacuum come to this table when so large a share is dead."""
        statement = sql.SQL("alter table livedex.{} set (autovacuum_vacuum_scale_factor = {})")
        self._connection.execute(statement.format(sql.Identifier(embeddings), sql.Literal(factor)))

    @contextmanager
    def building(self, memory: int, *, parallel: bool) -> Iterator[None]:
        """Indexes are built in so many bytes, as far as the server is made for it; without `parallel` by no more processes."""
        self._connection.execute(query("maintain", "building"), {"memory": memory})
        if not parallel:
            self._set({"max_parallel_maintenance_workers": "0"})
        try:
            yield
        finally:
            if not self.broken:
                self._connection.execute("reset maintenance_work_mem")
                self._connection.execute("reset max_parallel_maintenance_workers")

    def at_length(self, name: str, **parts: str | sql.Composable) -> None:
        """Run a statement that may take hours, and waits for other transactions as long as they take. A stop cancels it."""
        with self._without_limits(), self._cancelled_by_stop():
            self._connection.execute(query("maintain", name, **parts))

    @contextmanager
    def _without_limits(self) -> Iterator[None]:
        limits = dict.fromkeys(("statement_timeout", "lock_timeout"), "0")
        patience = self._connection.patience
        self._set(limits)
        self._connection.patience = FOREVER
        try:
            yield
        finally:
            self._connection.patience = patience
            if not self._connection.broken:
                self._set({name: WRITER_SETTINGS[name] for name in limits})

    def _set(self, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            self._connection.execute(sql.SQL("set {} = {}").format(sql.Identifier(name), sql.Literal(value)))

    @contextmanager
    def _cancelled_by_stop(self) -> Iterator[None]:
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.1):
                if self._stop.asked:
                    with suppress(psycopg.Error):
                        self._connection.cancel_safe(timeout=CONNECT_TIMEOUT)
                    done.wait(0.5)

        thread = threading.Thread(target=cancel, name="upkeep-stop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def memory_refused(error: Exception) -> bool:
    """Whether the server had no room: memory, shared memory or disk."""
    return isinstance(error.__cause__, errors.DiskFull | errors.OutOfMemory)
