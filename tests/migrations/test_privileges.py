"""Who may set livedex up, and where pgvector may be: no superuser is needed once the extension is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from psycopg import sql

from livedex import migrate
from livedex.database import connect
from livedex.dev.stack import Addresses
from livedex.errors import ConfigError
from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
from support.database import login_role
from support.kafka import Log
from support.psql import psql
from support.workers import Workers

ROLES = ("livedex_owner", "livedex_indexer", "livedex_query", "livedex_search")


@contextmanager
def owner_of(url: str, *, created_the_roles: bool) -> Iterator[str]:
    """The URL of an ordinary role with CREATEROLE that owns the database, in which the extension is installed.

    Roles belong to the whole server and are there already; who creates them gets what is granted here (Postgres 16 and newer).
    """
    name = urlsplit(url).path[1:]
    with login_role(url, options="createrole") as (role, as_role), psycopg.connect(url, autocommit=True) as superuser:
        superuser.execute("create extension if not exists vector")
        if created_the_roles:
            for granted in ROLES:
                statement = sql.SQL("grant {} to {} with admin true, inherit false, set false")
                superuser.execute(statement.format(sql.Identifier(granted), sql.Identifier(role)))
        superuser.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(name), sql.Identifier(role)))
        try:
            yield as_role
        finally:
            superuser.execute(sql.SQL("reassign owned by {} to current_user").format(sql.Identifier(role)))


def searched(workers: Workers, log: Log, indexer: str, searcher: str) -> list[str]:
    """Apply, index a document and ask for it over HTTP; with the URLs that the two workers use."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    index = IndexApp(workers.settings(config, database_url=indexer))
    serve = QueryApp(workers.settings(config, database_url=searcher))
    with workers.in_thread(index), workers.in_thread(serve) as address:
        place = log.send(topic, {"id": "a", "text": "A text about zebras."})
        body = {"query": "zebras", "after": str(place), "timeout_ms": 30_000}
        answer = httpx.post(f"{address}/v1/search", json=body, timeout=40, trust_env=False)
    assert answer.status_code == 200, answer.text
    return [row["document_id"] for row in answer.json()["results"]]


def test_an_ordinary_role_migrates_and_runs_everything(
    stack: Addresses, empty_database_url: str, tmp_path: Path, log: Log
) -> None:
    """The owner of the database, with CREATEROLE and without superuser, migrates, applies, indexes and searches."""
    with owner_of(empty_database_url, created_the_roles=True) as url:
        with connect(url) as connection:
            assert migrate.migrate(connection, migrate.load())
            assert migrate.check(connection) == []
        with Workers(stack, url, tmp_path) as workers:
            assert searched(workers, log, url, url) == ["a"]


def test_the_printed_sql_needs_no_superuser_either(empty_database_url: str) -> None:
    """An ordinary role runs what `livedex migrate --sql` prints."""
    with owner_of(empty_database_url, created_the_roles=True) as url:
        psql(url, migrate.script(migrate.load()))
        with connect(url) as connection:
            assert migrate.pending(connection, migrate.load()) == []


def test_a_role_that_may_not_grant_the_owner_role_is_told(empty_database_url: str) -> None:
    """On a server whose livedex roles somebody else made, the error names the role that has to be granted."""
    with owner_of(empty_database_url, created_the_roles=False) as url, connect(url) as connection:
        with pytest.raises(ConfigError, match="livedex_owner"):
            migrate.migrate(connection, migrate.load())
        assert connection.execute("select to_regnamespace('livedex')").fetchone() == (None,)


def test_a_member_of_the_owner_role_needs_no_more(empty_database_url: str) -> None:
    """A plain grant of livedex_owner is enough on such a server."""
    with owner_of(empty_database_url, created_the_roles=False) as url:
        with psycopg.connect(empty_database_url) as superuser:
            superuser.execute(sql.SQL("grant livedex_owner to {}").format(sql.Identifier(urlsplit(url).username or "")))
        with connect(url) as connection:
            assert migrate.migrate(connection, migrate.load())


def test_the_workers_need_only_their_own_roles(stack: Addresses, database_url: str, tmp_path: Path, log: Log) -> None:
    """The index worker runs as a member of livedex_indexer, the query worker as one of livedex_query."""
    with (
        login_role(database_url, "livedex_indexer") as (_, indexer),
        login_role(database_url, "livedex_query") as (_, searcher),
        Workers(stack, database_url, tmp_path) as workers,
    ):
        assert searched(workers, log, indexer, searcher) == ["a"]


@pytest.mark.parametrize("schema", ["extensions", 'odd "name"'])
def test_pgvector_may_be_in_a_schema_of_its_own(
    stack: Addresses, empty_database_url: str, tmp_path: Path, log: Log, schema: str
) -> None:
    """Migrations, index worker, query worker and a search role work where the extension is not in public."""
    with connect(empty_database_url) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("create extension vector schema {}").format(sql.Identifier(schema)))
        assert migrate.migrate(connection, migrate.load())
    with (
        login_role(empty_database_url, "livedex_indexer") as (_, indexer),
        login_role(empty_database_url, "livedex_query") as (_, searcher),
        Workers(stack, empty_database_url, tmp_path) as workers,
    ):
        assert searched(workers, log, indexer, searcher) == ["a"]
    with login_role(empty_database_url, "livedex_search") as (name, url):
        with connect(empty_database_url) as connection:
            connection.execute(
                "insert into livedex.collection_access select collection_id, %s from livedex.collection", (name,)
            )
        with psycopg.connect(url) as connection:
            cast = sql.SQL(
                "select document_id from livedex.search_vector(array_fill(1, array[16])::{}.vector, mode => 'vector')"
            )
            assert connection.execute(cast.format(sql.Identifier(schema))).fetchall() == [("a",)]
