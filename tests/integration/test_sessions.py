"""What every session in Postgres is set up with, whatever the server's own defaults are."""

from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql

from livedex.config import Settings
from livedex.database import WRITER_SETTINGS, connect, open_pool, translated
from livedex.errors import UnavailableError
from livedex.query.app import QueryApp
from support.synthetic import Document, Piece, connection_to, create_collection, fill
from support.terminal import Terminal
from support.waiting import until
from support.workers import Workers

LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def far_east(database_url: str) -> str:
    """A database in whose time zone the last second that Python knows is in the year 10000."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(urlsplit(database_url).path[1:])
        connection.execute(sql.SQL("alter database {} set timezone = 'Europe/Berlin'").format(name))
    return database_url


def test_times_at_the_end_of_the_calendar_are_read(
    far_east: str, workers: Workers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event of 9999-12-31T23:59:59Z is found, and status shows it in UTC, whatever the database's time zone is."""
    with connection_to(far_east) as connection:
        generation = create_collection(connection, "default", model="hash-4")
        piece = Piece(text="The last second.", vector=np.ones(4, np.float32))
        fill(connection, generation, [Document(name="last", pieces=[piece], event_time=LAST_SECOND)])
        connection.execute("insert into livedex.source (topic, collection_id) values ('t', %s)", (generation.collection_id,))
        connection.execute(
            "insert into livedex.source_progress (topic, partition, next_offset, owner, event_time) values ('t', 0, 1, '', %s)",
            (LAST_SECOND,),
        )
    app = QueryApp(Settings(database_url=far_east, embedder="hash", http_port=0))
    with workers.in_thread(app) as address:
        answer = httpx.post(f"{address}/v1/search", json={"query": "second"}, timeout=20, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert [row["event_time"] for row in answer.json()["results"]] == ["9999-12-31T23:59:59Z"]
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    kafka = workers.stack.kafka_bootstrap_servers
    environment = {"LIVEDEX_DATABASE_URL": far_east, "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": kafka}
    livedex = Terminal(environment, monkeypatch, capsys)
    done = livedex("status", "--json")
    assert done.code == 0
    assert '"9999-12-31T23:59:59+00:00"' in done.out


def test_every_connection_runs_in_utc(far_east: str) -> None:
    """Single connections and those of a pool."""
    with connect(far_east) as single, closing(open_pool(far_east, size=1, name="test")) as pool, pool.connection() as pooled:
        for connection in (single, pooled):
            assert connection.execute("select current_setting('TimeZone')").fetchone() == ("UTC",)


def test_a_writer_has_limits_and_a_reader_has_none(database_url: str) -> None:
    """WRITER_SETTINGS are in force on the connections of a pool that was opened with them, and on no other."""
    found = []
    for settings in (WRITER_SETTINGS, {}):
        with closing(open_pool(database_url, size=1, name="test", settings=settings)) as pool, pool.connection() as connection:
            found.append(
                [connection.execute(sql.SQL("show {}").format(sql.Identifier(name))).fetchone() for name in WRITER_SETTINGS]
            )
    assert found == [[("10s",), ("5s",), ("1min",), ("1.1",)], [("0",), ("0",), ("0",), ("4",)]]


def test_a_writer_that_was_stopped_in_a_transaction_gives_its_locks_back(database_url: str) -> None:
    """Its successor is told that the row is locked, and gets it once the server has ended the idle transaction."""
    settings = {**WRITER_SETTINGS, "idle_in_transaction_session_timeout": "1s", "lock_timeout": "50ms"}
    lock = "select from livedex.source_progress for update"
    with connect(database_url) as connection:
        connection.execute("insert into livedex.collection (name, version_mode) values ('c', 'log')")
        connection.execute(
            "insert into livedex.source (topic, collection_id) select 't', collection_id from livedex.collection"
        )
        connection.execute("insert into livedex.source_progress (topic, partition, next_offset, owner) values ('t', 0, 0, '')")
    refusals = []

    def locked(successor: "psycopg.Connection[tuple[object, ...]]") -> bool:
        try:
            with translated():
                successor.execute(lock)
        except UnavailableError as error:
            refusals.append(str(error))
            return False
        return True

    with closing(open_pool(database_url, size=2, name="test", settings=settings)) as pool, pool.connection() as successor:
        stopped = pool.getconn()
        stopped.execute("begin")
        stopped.execute(lock)
        until(lambda: locked(successor), timeout=20, what="the lock of the stopped writer to be free")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            stopped.execute("select")
        pool.putconn(stopped)
    assert "lock timeout" in refusals[0]
