"""psql and the drivers of Python."""

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg

from livedex.dev.postgres import binary
from support.clients import Client, Rows, Transaction, parsed

SEARCH = "SELECT document_id, chunk FROM livedex.search(%s, k => %s)"
K = 2
BEGIN = {"autocommit": "", "begin": "BEGIN;", "read only": "BEGIN READ ONLY;"}


def _psql(url: str, transaction: Transaction, statements: Sequence[str], texts: Sequence[str]) -> list[Rows]:
    script = "\n".join([BEGIN[transaction], *statements])
    variables = [option for number, text in enumerate(texts) for option in ("-v", f"text{number}={text}")]
    done = subprocess.run(
        [str(binary("psql")), "--no-psqlrc", "-qAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", *variables, url],
        input=script, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout, texts)


def psql_simple(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """The simple protocol."""
    select = "SELECT {0}, document_id, chunk FROM livedex.search(:'text{0}', k => {1});"
    return _psql(url, transaction, [select.format(number, K) for number in range(len(texts))], texts)


def psql_extended(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    r"""The extended protocol, by \bind."""
    select = "SELECT {0}, document_id, chunk FROM livedex.search($1, k => $2) \\bind :text{0} {1} \\g"
    return _psql(url, transaction, [select.format(number, K) for number in range(len(texts))], texts)


def _connect(url: str, transaction: Transaction, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
    connection = psycopg.connect(url, autocommit=transaction == "autocommit", **options)
    connection.read_only = True if transaction == "read only" else None
    return connection


def psycopg_server_side(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """As psycopg does by itself: parameters go beside the statement, which is prepared at its fifth time."""
    with _connect(url, transaction) as connection:
        return [connection.execute(SEARCH, (text, K)).fetchall() for text in texts]


def psycopg_prepared(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """Prepared at once."""
    with _connect(url, transaction) as connection:
        return [connection.execute(SEARCH, (text, K), prepare=True).fetchall() for text in texts]


def psycopg_client_side(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """Parameters are written into the statement, as psycopg2 does."""
    with _connect(url, transaction, cursor_factory=psycopg.ClientCursor) as connection:
        return [connection.execute(SEARCH, (text, K)).fetchall() for text in texts]


def psycopg_pipeline(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """All are sent before the first is answered."""
    with _connect(url, transaction) as connection, connection.pipeline():
        cursors = [connection.execute(SEARCH, (text, K)) for text in texts]
        return [cursor.fetchall() for cursor in cursors]


def asyncpg(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """Asyncpg, which prepares everything and reads in binary."""
    return asyncio.run(_asyncpg(url, transaction, texts))


async def _asyncpg(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    import asyncpg

    connection = await asyncpg.connect(url)

    async def rows() -> list[Rows]:
        statement = "SELECT document_id, chunk FROM livedex.search($1, k => $2)"
        return [[(row["document_id"], row["chunk"]) for row in await connection.fetch(statement, text, K)] for text in texts]

    try:
        if transaction == "autocommit":
            return await rows()
        async with connection.transaction(readonly=transaction == "read only"):
            return await rows()
    finally:
        await connection.close()


def sqlalchemy(url: str, transaction: Transaction, texts: Sequence[str]) -> list[Rows]:
    """An engine of SQLAlchemy over psycopg."""
    from sqlalchemy import create_engine, text

    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if transaction == "autocommit" else {}
    options |= {"postgresql_readonly": True} if transaction == "read only" else {}
    engine = create_engine(urlsplit(url)._replace(scheme="postgresql+psycopg").geturl(), execution_options=options)
    search = text("SELECT document_id, chunk FROM livedex.search(:query, k => :k)")
    try:
        with engine.connect() as connection:
            found = [connection.execute(search, {"query": each, "k": K}).all() for each in texts]
    finally:
        engine.dispose()
    return [[(row.document_id, row.chunk) for row in rows] for rows in found]


def _by_name(*clients: Callable[..., list[Rows]]) -> dict[str, Client]:
    return {client.__name__: client for client in clients}


QUICK = _by_name(psql_simple, psql_extended, psycopg_server_side, sqlalchemy)
CLIENTS = QUICK | _by_name(psycopg_prepared, psycopg_client_side, psycopg_pipeline, asyncpg)
