"""The privileges that the README names are enough: each worker runs as a member of its own role."""

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import pytest
from psycopg import sql

from livedex.dev.stack import Addresses
from support.kafka import Log
from support.workers import Workers


@pytest.fixture
def login(stack: Addresses, database_url: str) -> Iterator[dict[str, str]]:
    """Database URLs of members of livedex_indexer and livedex_query; the users are dropped in the end."""
    names = {role: f"test_{uuid.uuid4().hex[:8]}" for role in ("livedex_indexer", "livedex_query")}
    parts = urlsplit(database_url)
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        for role, name in names.items():
            statement = sql.SQL("create role {} login in role {}").format(sql.Identifier(name), sql.Identifier(role))
            connection.execute(statement)
        yield {role: urlunsplit(parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}")) for role, name in names.items()}
        for name in names.values():
            connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s", (name,))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_workers_need_no_more_than_their_roles(workers: Workers, log: Log, login: dict[str, str]) -> None:
    """An index worker in livedex_indexer indexes, and a query worker in livedex_query answers every route and SQL."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    index = workers.start("index", config, LIVEDEX_DATABASE_URL=login["livedex_indexer"])
    serve = workers.start("serve", config, LIVEDEX_DATABASE_URL=login["livedex_query"])
    log.send(topic, b"no event", key="broken")
    place = log.send(topic, {"id": "a", "text": "a lock and a key"})
    with httpx.Client(base_url=serve.address, trust_env=False, timeout=20) as client:
        answer = client.post("/v1/search", json={"query": "key", "mode": "hybrid", "after": str(place), "timeout_ms": 15_000})
        assert [row["document_id"] for row in answer.json()["results"]] == ["a"], answer.text
        status = client.get("/v1/status")
        overview, letters = client.get("/v1/overview"), client.get("/v1/dead-letters")
        explained = client.post("/v1/search", json={"query": "key", "explain": True}).json()
    assert status.is_success, status.text
    assert status.json()["collections"][0]["documents"] == 1
    assert status.json()["dead_letters"] == {"invalid-json": 1}
    assert [row["documents"] for row in overview.json()["freshness"]] == [1], overview.text
    assert [row["reason"] for row in letters.json()["letters"]] == ["invalid-json"], letters.text
    assert explained["results"][0]["why"]["words"] == ["key"]
    with psycopg.connect(login["livedex_query"]) as connection:
        statement = "select document_id from livedex.search_vector(null, mode => 'text', query => 'key')"
        assert connection.execute(statement).fetchall() == [("a",)]
    assert index.stop() == serve.stop() == 0
