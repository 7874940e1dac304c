"""`livedex doctor`: one line for each thing that livedex needs, ok or what to do."""

from collections.abc import Callable

import typer

from livedex import catalogue, migrate
from livedex.cli.session import data, settings
from livedex.config import Settings
from livedex.core.mailbox import PRESENCE_CLASS
from livedex.database import Connection, check_pgvector, connect, first_line
from livedex.encoders.models import digest_of, find_model
from livedex.errors import ConfigError, LivedexError
from livedex.kafka import open_admin, translated

SMALLEST_BUFFERS = 512 * 2**20  # bytes; below it an insert into the vector index is several times slower
LARGEST_CLOCK_DIFFERENCE = 2.0  # seconds; more spoils freshness figures


def doctor() -> None:
    """Check Kafka, Postgres, pgvector, the migrations, the topics, the model, and who embeds texts for SQL."""
    chosen = settings()
    checks = [("kafka", lambda: _kafka(chosen)), ("postgres", lambda: _postgres(chosen))]
    sound = [_run(name, check) for name, check in checks]
    if sound[1]:
        with connect(chosen.database_url) as connection:
            more: list[tuple[str, Callable[[], str]]] = [
                ("pgvector", lambda: _pgvector(connection)),
                ("migrations", lambda: _migrations(connection)),
                ("permissions", lambda: _permissions(connection)),
                ("buffers", lambda: _buffers(connection)),
                ("clock", lambda: _clock(connection)),
                ("topics", lambda: _topics(chosen, connection)),
                ("model", lambda: _model(chosen, connection)),
                ("texts", lambda: _texts(connection)),
            ]
            sound += [_run(name, check) for name, check in more]
    if not all(sound):
        raise typer.Exit(1)


def _run(name: str, check: Callable[[], str]) -> bool:
    import psycopg

    try:
        answer, mark = check(), "[green]ok  [/green]"
    except LivedexError as error:
        answer, mark = str(error), "[red]fail[/red]"
    except psycopg.Error as error:
        answer, mark = f"{first_line(error)}: run livedex migrate, and check the role's rights", "[red]fail[/red]"
    data.print(f"{mark} {name:<11} ", end="")
    data.print(answer, markup=False, highlight=False, soft_wrap=True)
    return "ok" in mark


def _kafka(chosen: Settings) -> str:
    admin = open_admin(chosen.kafka)
    try:
        with translated():
            brokers = len(admin.describe_cluster()["brokers"])
    finally:
        admin.close()
    return f"{chosen.kafka.bootstrap_servers} answers, brokers: {brokers}"


def _postgres(chosen: Settings) -> str:
    with connect(chosen.database_url) as connection:
        row = connection.execute("select current_setting('server_version'), current_user").fetchone()
    assert row is not None
    return f"{row[0]} answers, as {row[1]}"


def _pgvector(connection: Connection) -> str:
    warning = check_pgvector(connection)
    if warning:
        raise ConfigError(warning)
    return "version is sound"


def _migrations(connection: Connection) -> str:
    warnings = migrate.check(connection)
    return "; ".join(warnings) or "the database is up to date"


def _permissions(connection: Connection) -> str:
    row = connection.execute(
        "select current_user, pg_has_role('livedex_owner', 'usage') or pg_has_role('livedex_indexer', 'usage'),"
        "       pg_has_role('livedex_owner', 'usage') or pg_has_role('livedex_query', 'usage'),"
        "       has_schema_privilege('livedex', 'usage')"
    ).fetchone()
    assert row is not None
    role, indexes, searches, sees = row
    may = [command for command, granted in (("livedex index", indexes), ("livedex serve", searches)) if granted and sees]
    if not may:
        raise ConfigError(
            f"{role} may run no worker: grant it livedex_indexer for livedex index, livedex_query for livedex serve"
        )
    return f"{role} may run {' and '.join(may)}"


def _buffers(connection: Connection) -> str:
    row = connection.execute("select pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    assert row is not None
    if row[0] < SMALLEST_BUFFERS:
        raise ConfigError(f"shared_buffers is {row[0] // 2**20} MB: set at least {SMALLEST_BUFFERS // 2**20} MB")
    return f"shared_buffers is {row[0] // 2**20} MB"


def _clock(connection: Connection) -> str:
    import time

    before = time.time()
    row = connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
    assert row is not None
    difference = abs(row[0] - (before + time.time()) / 2)
    if difference > LARGEST_CLOCK_DIFFERENCE:
        raise ConfigError(f"this clock and the database's differ by {difference:.1f} s: synchronise them")
    return f"within {difference * 1000:.0f} ms of the database's"


def _topics(chosen: Settings, connection: Connection) -> str:
    followed = catalogue.sources(connection)
    if not followed:
        raise ConfigError("no source: run livedex apply")
    admin = open_admin(chosen.kafka)
    try:
        with translated():
            missing = sorted(followed.keys() - set(admin.list_topics()))
    finally:
        admin.close()
    if missing:
        raise ConfigError(f"kafka lacks {', '.join(missing)}: run livedex apply")
    return ", ".join(sorted(followed))


def _model(chosen: Settings, connection: Connection) -> str:
    generations = catalogue.generations(connection).values()
    for generation in generations:
        pinned = generation.identity
        if pinned.encoder == "hash":
            if chosen.embedder != "hash":
                raise ConfigError(f"collection {generation.collection} is of the hash encoder: set LIVEDEX_EMBEDDER=hash")
        elif digest_of(find_model(pinned.model)) != pinned.revision:
            raise ConfigError(
                f"the model {pinned.model!r} here is not the one of collection {generation.collection}: install that one"
            )
    return ", ".join(sorted({generation.identity.model for generation in generations})) or "no collection yet"


def _texts(connection: Connection) -> str:
    """Who embeds texts for SQL, and how they get there. No worker is no fault: not everybody searches so."""
    row = connection.execute(
        "select (select count(distinct l.pid) from pg_locks l"
        "         where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid::bigint = %s"
        "           and l.database = (select oid from pg_database where datname = current_database())),"
        "       exists (select from pg_extension where extname = 'dblink')"
        "       and exists (select from pg_foreign_server where srvname = 'livedex_worker')",
        (PRESENCE_CLASS,),
    ).fetchone()
    assert row is not None
    watching, by_dblink = row
    if not watching:
        return "no query worker is connected: livedex.search embeds no new texts until livedex serve runs"
    way = "dblink" if by_dblink else "the mailbox"
    return f"livedex.search asks by {way}; query workers that are connected: {watching}"
