"""Brings a database to this version: plain SQL files in dbmate's format, each in a transaction of its own.

    -- migrate:up [transaction:false]
    statements; one statement only when transaction:false
    -- migrate:down
    ignored: livedex goes forward

A file that was applied is never edited: its sha256 is kept in livedex.schema_migration.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, cast

from psycopg import errors, sql

from livedex import resources
from livedex.database import Connection, check_coming_pgvector, check_pgvector, connect, first_line, translated
from livedex.errors import ConfigError, TimedOutError
from livedex.observe import logger

LOCK_KEY = 0x6C697665646578  # "livedex"
LOCK_PATIENCE = 60.0  # seconds that another migration may take
LOCK_TIMEOUT = "3s"  # for a table lock: a migration must not queue in front of readers for long
_LOAD_PGVECTOR: LiteralString = """do $$
declare
  home text := (select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                 where e.extname = 'vector');
begin
  if home is not null then
    execute format('select ''[0]''::%s.vector', home);
  end if;
end $$"""  # only a superuser may attach settings to a function that the server does not know yet, whichever file comes first
_log = logger("migrate")
_NAME = re.compile(r"\d{4}_(?P<phase>pre|post)_[a-z0-9_]+\.sql")
_UP = re.compile(r"^-- migrate:up(?P<options>[^\n]*)\n(?P<body>.*?)(?=^-- migrate:down|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of migrations/."""

    version: LiteralString  # the file's name without .sql
    sha256: LiteralString  # of the whole file
    body: LiteralString
    transactional: bool


def load(directory: Path | None = None) -> list[Migration]:
    """The migrations of this version of livedex, in order."""
    directory = directory or resources.migrations_dir()
    return [parse(path) for path in sorted(directory.glob("*.sql"))]


def parse(path: Path) -> Migration:
    """One migration file; ConfigError when its name or form is not ours."""
    text = path.read_text(encoding="utf-8")
    up = _UP.search(text)
    if not _NAME.fullmatch(path.name) or up is None:
        raise ConfigError(f"{path.name} is no migration: expected NNNN_[pre|post]_name.sql with a line -- migrate:up")
    return Migration(
        version=path.stem,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        body=cast("LiteralString", up["body"].strip()),
        transactional="transaction:false" not in up["options"],
    )


def pending(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    """What is still to be applied; ConfigError when an applied file was edited, or the database is newer than the code."""
    missing, unknown = _compare(connection, migrations)
    if unknown:
        raise _unknown_to_us(unknown)
    return missing


def check(connection: Connection) -> list[str]:
    """Whether a worker may run on this database: ConfigError if not, else what is to be warned of.

    Migrations of a newer livedex may be there if they are `pre`: those are applied before its deployment, beside workers of the
    version before, which must be able to start again.
    """
    missing, unknown = _compare(connection, load())
    refused = [version for version in unknown if not _is_pre(version)]
    if refused:
        raise _unknown_to_us(refused)
    if missing:
        names = ", ".join(migration.version for migration in missing)
        raise ConfigError(f"the database lacks the migrations {names}: run livedex migrate")
    warnings = [f"the database is newer than this livedex: it has {', '.join(unknown)}: update livedex soon"] if unknown else []
    old = check_pgvector(connection)
    return [*warnings, old] if old else warnings


def _compare(connection: Connection, migrations: list[Migration]) -> tuple[list[Migration], list[str]]:
    """(what the database lacks, what it has that the code does not know); ConfigError when an applied file was edited."""
    applied = _applied(connection)
    for migration in migrations:
        if applied.get(migration.version, migration.sha256) != migration.sha256:
            raise ConfigError(f"migration {migration.version} was edited after it was applied: restore the released file")
    known = {migration.version for migration in migrations}
    return [m for m in migrations if m.version not in applied], [version for version in applied if version not in known]


def _is_pre(version: str) -> bool:
    named = _NAME.fullmatch(f"{version}.sql")
    return named is not None and named["phase"] == "pre"


def _unknown_to_us(versions: list[str]) -> ConfigError:
    return ConfigError(f"the database has migration {', '.join(versions)}, which this livedex does not know: update livedex")


def check_for_worker(url: str) -> None:
    """The same at a worker's start: what `check` only warns of goes to the log."""
    with translated(), connect(url) as connection:
        warnings = check(connection)
    for warning in warnings:
        _log.warning("database.old_or_new", warning=warning)


def migrate(
    connection: Connection,
    migrations: list[Migration],
    *,
    patience: float = LOCK_PATIENCE,
    warn: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Apply what is pending, in order; the versions that were applied. Two runs at once do it once."""
    with translated(), _alone(connection, patience):
        todo = pending(connection, migrations)
        warning = check_coming_pgvector(connection)  # before the first file: a half migrated database helps nobody
        if warning:
            warn(warning)
        connection.execute(_LOAD_PGVECTOR)
        try:
            for migration in todo:
                _apply(connection, migration, patience)
        except errors.InsufficientPrivilege as error:
            raise ConfigError(
                f"this role may not migrate the database: {first_line(error)}. It must own the database and have CREATEROLE; "
                "where CREATE EXTENSION vector needs a superuser, have one run it first"
            ) from error
        return [migration.version for migration in todo]


def script(migrations: list[Migration]) -> str:
    """The migrations as one file for psql, for those who apply SQL by hand."""
    return "\n".join([f"{_LOAD_PGVECTOR};", *map(_script_of, migrations)])


def _script_of(migration: Migration) -> str:
    body = f"{migration.body}\n{_record(migration)};"
    return f"-- {migration.version}\n{f'begin;{chr(10)}{body}{chr(10)}commit;' if migration.transactional else body}\n"


def _record(migration: Migration) -> LiteralString:
    return f"insert into livedex.schema_migration (version, sha256) values ('{migration.version}', '{migration.sha256}')"  # noqa: S608


def _applied(connection: Connection) -> dict[str, str]:
    if connection.execute("select to_regclass('livedex.schema_migration')").fetchone() == (None,):
        return {}
    return dict(connection.execute("select version, sha256 from livedex.schema_migration order by version").fetchall())


def _apply(connection: Connection, migration: Migration, patience: float) -> None:
    statements, record = sql.SQL(migration.body), sql.SQL(_record(migration))
    if not migration.transactional:
        connection.execute(statements)
        connection.execute(record)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_TIMEOUT))
                connection.execute(statements)
                connection.execute(record)
        except (errors.LockNotAvailable, errors.DeadlockDetected):  # workers go on meanwhile, and lock tables in another order
            if time.monotonic() > deadline:
                raise
        else:
            return


@contextmanager
def _alone(connection: Connection, patience: float) -> Iterator[None]:
    """Hold the migration lock. Polled, never waited for: a blocked session holds a snapshot, for which
    CREATE INDEX CONCURRENTLY in the session that has the lock would wait forever.
    """
    deadline = time.monotonic() + patience
    while connection.execute("select pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise TimedOutError(f"another migration has held the lock for {patience:.0f} s: wait for it, or end its session")
        time.sleep(0.1)
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(%s)", (LOCK_KEY,))
