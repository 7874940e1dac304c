"""Sessions of a hot standby search by text: the worker looks into its mailbox, and commits the answer on the primary."""

import time
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from psycopg import errors

from livedex.dev.stack import Addresses
from support.asking import ENCODER, TEXTS, unused, watched
from support.database import url_of
from support.faults import servers
from support.standby import DATABASE, Twins, twins
from support.waiting import until

TRANSACTIONS = ["", "begin", "begin read only"]


@pytest.fixture(scope="module")
def both(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """A primary and its standby."""
    with twins(tmp_path_factory.mktemp("standby"), stack.kafka_bootstrap_servers) as own:
        yield own


@pytest.mark.parametrize("begin", TRANSACTIONS)
def test_a_new_text_is_embedded_at_a_standby(both: Twins, begin: str) -> None:
    """The vector of the model comes back to a session that cannot write, and its locks are free."""
    text = unused()
    with psycopg.connect(both.urls["standby"], autocommit=True) as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)
        if begin:
            connection.execute(begin)
        (vector,) = connection.execute("select livedex.embed(%s)::real[]", (text,)).fetchone() or ([],)
        np.testing.assert_allclose(np.array(vector, np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)
        held = connection.execute("select count(*) from livedex.advisory_locks where pid = pg_backend_pid()")
        assert held.fetchone() == (0,)


@pytest.mark.parametrize("begin", TRANSACTIONS)
@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_standby_is_searched_by_text(both: Twins, begin: str, mode: str) -> None:
    """Every mode finds at the standby what it finds at the primary, with a new text and with the same again."""
    text = f"{unused()} apples"
    found = {}
    for server in ("standby", "primary", "standby"):
        with psycopg.connect(both.urls[server], autocommit=True) as connection:
            if begin:
                connection.execute(begin)
            found[server] = connection.execute("select * from livedex.search(%s, mode => %s)", (text, mode)).fetchall()
    assert found["standby"] == found["primary"]
    assert {row[0] for row in found["standby"]} == ({"apples"} if mode == "text" else set(TEXTS))
    assert both.encoder.times(text) == (0 if mode == "text" else 1), "the answer to the first is in both caches"


def test_what_the_primary_asked_is_cached_at_the_standby(both: Twins) -> None:
    """A text that the primary's sessions asked needs no worker at the standby, not even in REPEATABLE READ."""
    text = unused()
    with psycopg.connect(both.urls["primary"], autocommit=True) as connection:
        connection.execute("select livedex.embed(%s)", (text,))
    with psycopg.connect(both.urls["standby"], autocommit=True) as connection:
        digest = "select exists (select from livedex.query_embedding where digest = sha256(convert_to(%s, 'UTF8')))"
        until(lambda: connection.execute(digest, (text,)).fetchone() == (True,))
        connection.execute("begin isolation level repeatable read")
        assert len(connection.execute("select * from livedex.search(%s)", (text,)).fetchall()) == len(TEXTS)
        with pytest.raises(errors.ActiveSqlTransaction, match="snapshot"):
            connection.execute("select livedex.embed(%s)", (unused(),))


def test_a_standby_that_no_worker_watches_says_so_at_once(both: Twins, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A second standby, which LIVEDEX_STANDBY_URLS does not name: 57P03, and rows by words where that is asked for."""
    folder = tmp_path_factory.mktemp("second")
    with (
        servers.standby(both.primary, folder / "standby", port=both.primary.port) as second,
        psycopg.connect(url_of(second.url, DATABASE), autocommit=True) as connection,
    ):
        began = time.monotonic()
        with pytest.raises(errors.CannotConnectNow, match="no query worker"):
            connection.execute("select livedex.search(%s, timeout => '30 s')", (unused(),))
        assert time.monotonic() - began < 10
        statement = "select document_id from livedex.search(%s, on_miss => 'text')"
        assert connection.execute(statement, (f"{unused()} apples",)).fetchall() == [("apples",)]


def test_a_standby_that_is_away_holds_up_nobody(both: Twins) -> None:
    """While it is down the primary is answered; once it is back the worker looks into its mailbox again."""
    both.standby.stop()
    with psycopg.connect(both.urls["primary"], autocommit=True) as connection:
        assert connection.execute("select livedex.embed(%s) is not null", (unused(),)).fetchone() == (True,)
    both.standby.up()
    until(lambda: watched(both.urls["standby"]), what="the worker to be at the standby again")
    with psycopg.connect(both.urls["standby"], autocommit=True) as connection:
        assert connection.execute("select livedex.embed(%s) is not null", (unused(),)).fetchone() == (True,)
