"""The way to Postgres: connections, pools, named queries, and the translation of its errors.

Connections run in UTC; those of a pool know pgvector's types and find them wherever the extension is installed. Everything
that means "Postgres does not answer, for now" becomes `UnavailableError("postgres", ...)`; what a caller did wrong stays a
psycopg error.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from types import MappingProxyType
from typing import Any, LiteralString, cast

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors, sql
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from livedex import resources
from livedex.database_security import refusal
from livedex.errors import ConfigError, UnavailableError

Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT = 5  # seconds
OLDEST_PGVECTOR = (0, 8, 0)  # iterative scans
SOUND_PGVECTOR = (0, 8, 4)  # no index damage under insert and vacuum

# Of a session that holds locks which its successor needs, the progress row's above all: a process that was stopped in the
# middle must not block another one for ever. What a batch looks up is in memory, or soon will be: at Postgres's price of a disk
# that has to turn, whole tables would be read for a few rows of each of a hundred documents.
WRITER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "5s",
        "statement_timeout": "60s",
        "random_page_cost": "1.1",
    }
)

# Longer than any statement of ours may take: then not the server is slow, but the network swallows what it is asked, or says.
ANSWER_TIMEOUT = 75.0  # seconds

# Not the statement's fault: the same transaction, begun again, may pass.
_PASSING = (
    psycopg.InterfaceError,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.TooManyConnections,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,
    errors.DiskFull,
    errors.OutOfMemory,
)


@cache
def named_queries(file: str) -> dict[str, LiteralString]:
    """The statements of schema/queries/FILE.sql by the name that precedes each."""
    text = (resources.schema_dir() / "queries" / f"{file}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def query(file: str, name: str, **parts: str | sql.Composable) -> sql.Composed:
    """A named query, with its {placeholders} replaced: by quoted identifiers, or by SQL that is given as such."""
    filled = {key: sql.Identifier(value) if isinstance(value, str) else value for key, value in parts.items()}
    return sql.SQL(named_queries(file)[name]).format(**filled)


@contextmanager
def translated() -> Iterator[None]:
    """Postgres does not answer, for now -> UnavailableError; other errors pass."""
    try:
        yield
    except _PASSING as error:
        raise UnavailableError("postgres", f"postgres does not take the work: {first_line(error)}") from error
    except PoolTimeout as error:
        raise UnavailableError("postgres", f"postgres gave no connection: {first_line(error)}") from error
    except psycopg.OperationalError as error:
        if isinstance(error, errors.QueryCanceled):
            raise
        raise UnavailableError("postgres", f"postgres does not answer: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message: the rest may quote document text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def connect(url: str, *, timeout: int = CONNECT_TIMEOUT) -> Connection:
    """A connection in autocommit mode, without pgvector's types (the extension may not be there yet).

    ConfigError when Postgres, or its client library, says that the connection's settings are wrong.
    """
    with translated(), _settings_blamed():
        connection: Connection = psycopg.connect(url, autocommit=True, connect_timeout=timeout)
        try:
            _set(connection, _EVERYWHERE)
        except BaseException:
            connection.close()
            raise
    return connection


class PatientConnection(Connection):
    """A connection that is closed when an answer takes longer than `patience` seconds. Without it, whoever asks a server that
    takes everything and says nothing would wait for ever, and keepalives that a proxy answers do not help.
    """

    patience = ANSWER_TIMEOUT

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See psycopg."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # no answer came: not even an error
                self.pgconn.finish()
            raise


def _check(connection: PatientConnection) -> None:
    """Whether a pooled connection still works; soon, because somebody waits for it."""
    connection.patience = CONNECT_TIMEOUT
    ConnectionPool.check_connection(connection)
    connection.patience = ANSWER_TIMEOUT


@contextmanager
def _settings_blamed() -> Iterator[None]:
    """A connect that fails because of a wrong password, role, database or option -> ConfigError; other errors pass."""
    try:
        yield
    except psycopg.OperationalError as error:
        remedy = refusal(str(error))
        if remedy is None:
            raise
        raise ConfigError(f"postgres refuses the connection: {remedy}") from error


def open_pool(
    url: str, *, size: int, name: str, settings: Mapping[str, str] = MappingProxyType({})
) -> ConnectionPool[Connection]:
    """A pool of `size` connections in autocommit mode that know pgvector's types. It opens even while Postgres is down.

    `settings` are Postgres's, for each session.
    """
    pool = ConnectionPool(
        url,
        connection_class=PatientConnection,
        kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT, "application_name": name, **_KEEPALIVES},
        min_size=1,
        max_size=size,
        timeout=CONNECT_TIMEOUT,
        reconnect_timeout=CONNECT_TIMEOUT,
        configure=partial(prepare, settings=settings),
        check=_check,
        name=name,
        open=False,
    )
    pool.open(wait=False)
    return cast("ConnectionPool[Connection]", pool)


def open_session(url: str, *, name: str, settings: Mapping[str, str] = MappingProxyType({})) -> PatientConnection:
    """A connection in autocommit mode outside of any pool, for work that needs one session; otherwise as those of a pool."""
    with translated(), _settings_blamed():
        connection = PatientConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name=name, **_KEEPALIVES
        )
        try:
            prepare(connection, settings)
        except BaseException:
            connection.close()
            raise
    return connection


# A server that vanished without a word is noticed after about 10 seconds, not after hours.
_KEEPALIVES: Mapping[str, Any] = MappingProxyType(
    {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
)

# In UTC every event time is a year that Python knows; in the server's zone 9999-12-31 may be the year 10000. And whoever waits
# for what others commit has to see it, whatever the database or the role has for a default.
_EVERYWHERE = {"TimeZone": "UTC", "default_transaction_isolation": "read committed"}


def prepare(connection: Connection, settings: Mapping[str, str] = MappingProxyType({})) -> None:
    """Set the session up: its settings, the schema of pgvector in the search path, and pgvector's types."""
    _set(connection, {**_EVERYWHERE, **settings})
    connection.execute(
        "select set_config('search_path', current_setting('search_path') || ', ' || quote_ident(n.nspname), false)"
        "  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'"
    )
    try:
        register_vector(connection)
    except psycopg.ProgrammingError as error:
        raise ConfigError("the database has no extension vector: run livedex migrate") from error


def _set(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set these for the session. By a statement, because poolers refuse settings that come with the start of a connection."""
    connection.execute(
        "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as setting(name, value)",
        (list(settings), list(settings.values())),
    )


def check_pgvector(connection: Connection) -> str | None:
    """None when pgvector is sound, a warning when it is old; ConfigError when it is absent or too old."""
    row = connection.execute("select extversion from pg_extension where extname = 'vector'").fetchone()
    if row is None:
        raise ConfigError("the database has no extension vector: run livedex migrate")
    return judge_pgvector(row[0])


def check_coming_pgvector(connection: Connection) -> str | None:
    """The same of the pgvector that a migration would install where the database has none."""
    row = connection.execute(
        "select coalesce((select extversion from pg_extension where extname = 'vector'),"
        "                (select default_version from pg_available_extensions where name = 'vector' limit 1))"
    ).fetchone()
    if row is None or row[0] is None:
        raise ConfigError(
            f"the database server has no pgvector, livedex needs {_dotted(OLDEST_PGVECTOR)} or newer: install it there"
        )
    return judge_pgvector(row[0])


def judge_pgvector(version: str) -> str | None:
    """What to say of this version of pgvector: None, a warning, or a ConfigError."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < OLDEST_PGVECTOR:
        raise ConfigError(
            f"pgvector is {version}, livedex needs {_dotted(OLDEST_PGVECTOR)} or newer: update the extension, "
            "then ALTER EXTENSION vector UPDATE"
        )
    if numbers < SOUND_PGVECTOR:
        return (
            f"pgvector is {version}: before {_dotted(SOUND_PGVECTOR)} an index could be damaged by inserts during a "
            "vacuum: update the extension, then ALTER EXTENSION vector UPDATE and REINDEX"
        )
    return None


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
