"""Databases of a test's own, copied from a migrated template."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from livedex import migrate
from livedex.database import connect


def url_of(server: str, database: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


def create_template(server: str, name: str) -> None:
    """A migrated database."""
    _execute(server, "create database {}", name)
    with connect(url_of(server, name)) as connection:
        migrate.migrate(connection, migrate.load())


@contextmanager
def fresh_database(server: str, template: str) -> Iterator[str]:
    """The URL of a copy of `template`, which is dropped in the end, with everybody who is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(server, "create database {} template {}", name, template)
    try:
        yield url_of(server, name)
    finally:
        drop_database(server, name)


@contextmanager
def login_role(url: str, *groups: str, options: str = "") -> Iterator[tuple[str, str]]:
    """A role that may log in and is a member of `groups`: its name, and the URL under which it reaches the same database."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    _execute(url, f"create role {{}} login {options}", name)
    try:
        for group in groups:
            _execute(url, "grant {} to {}", group, name)
        parts = urlsplit(url)
        yield name, urlunsplit(parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}"))
    finally:
        _execute(url, "drop owned by {}", name)
        _execute(url, "drop role {}", name)


def drop_database(server: str, name: str) -> None:
    """Drop it, whoever is connected."""
    _execute(server, "drop database {} with (force)", name)


def _execute(server: str, statement: str, *names: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
