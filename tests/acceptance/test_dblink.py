"""livedex.search and livedex.embed by way of dblink: any isolation level, long texts, and a connection that sessions keep."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors, sql

from livedex.database import Connection
from livedex.dev.kafka import free_port
from livedex.dev.stack import Addresses
from livedex.encoders.reranker import too_late
from livedex.query.app import QueryApp
from livedex.query.wire import _shut
from support.asking import ENCODER, MODEL, TEXTS, SlowEncoder, fill_collection, serving, unused
from support.contrib import Contrib, contrib_server
from support.database import create_template, fresh_database, url_of
from support.examples import dblink_setup
from support.secure.certificates import Certificates
from support.synthetic import Document, Piece, connection_to, create_collection, fill
from support.waiting import until
from support.workers import Workers

pytestmark = pytest.mark.accept
PASSWORD = "of-the-endpoint-0123"


@dataclass(frozen=True, slots=True)
class Served:
    """A database with dblink, and the worker that it asks."""

    url: str
    connection: Connection
    encoder: SlowEncoder
    app: QueryApp

    @property
    def port(self) -> str:
        """Of the worker's endpoint."""
        assert self.app.wire is not None
        return self.app.wire.address.rpartition(":")[2]

    def lead_to(self, port: object) -> None:
        """Let the foreign server lead to another port."""
        self.connection.execute(sql.SQL("alter server livedex_worker options (set port {})").format(str(port)))

    def links(self) -> int:
        """How many connections the endpoint has."""
        assert self.app.wire is not None
        return len(self.app.wire._open)


@pytest.fixture(scope="module")
def contrib() -> Iterator[Contrib]:
    """A Postgres with contrib, and a migrated database `template` there."""
    with contrib_server() as own:
        create_template(own.url, "template")
        yield own


@pytest.fixture(scope="module")
def server(contrib: Contrib) -> str:
    """Its URL."""
    return contrib.url


@contextmanager
def served_at(server: str, folder: Path, **more: Any) -> Iterator[Served]:
    """A database of its own, and a worker with an endpoint."""
    (folder / "password").write_text(PASSWORD)
    stack = Addresses(kafka_bootstrap_servers="127.0.0.1:1", database_url=server)
    encoder = SlowEncoder()
    with fresh_database(server, "template") as url, Workers(stack, url, folder) as workers:
        fill_collection(url)
        with (
            serving(workers, url, encoder, wire_port=0, wire_password_file=folder / "password", **more) as app,
            psycopg.connect(url, autocommit=True) as connection,
        ):
            served = Served(url, connection, encoder, app)
            connection.execute(dblink_setup(served.port, PASSWORD).encode())  # as operators are told
            yield served


@pytest.fixture(scope="module")
def served(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The one that most tests share."""
    with served_at(server, tmp_path_factory.mktemp("served")) as own:
        yield own


@contextmanager
def session(url: str) -> Iterator[Connection]:
    """A session in autocommit mode."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def assert_embeds(connection: Connection, text: str) -> None:
    """The session gets the very vector of this text."""
    (vector,) = connection.execute("select livedex.embed(%s, timeout => '10 s')::real[]", (text,)).fetchone() or ([],)
    np.testing.assert_array_equal(np.array(vector, np.float32), ENCODER.encode_queries([text])[0])


def test_over_tls_too(server: str, tmp_path: Path) -> None:
    """A database that verifies the worker's certificate gets vectors; one that does not ask for TLS gets none."""
    with tempfile.TemporaryDirectory() as folder:  # the server is another user, who reads the authority there
        Path(folder).chmod(0o755)
        made = Certificates(Path(folder))
        pair = made.server()
        with served_at(server, tmp_path, wire_certificate_file=pair.certificate, wire_key_file=pair.key) as served:
            secure = "set host 'localhost', add hostaddr '127.0.0.1', add sslmode 'verify-full', add sslrootcert {}"
            change = sql.SQL("alter server livedex_worker options ({})").format(sql.SQL(secure).format(str(made.authority)))
            served.connection.execute(change)
            with session(served.url) as connection:
                assert_embeds(connection, "a text over TLS")
                assert served.app.wire is not None
                assert [type(each).__name__ for each in served.app.wire._open] == ["SSLSocket"]
            served.connection.execute("alter server livedex_worker options (set sslmode 'disable')")
            with session(served.url) as connection, pytest.raises(errors.CannotConnectNow):
                connection.execute("select livedex.embed('a text in plain', timeout => '3 s')")


LEVELS = ["read committed", "repeatable read", "serializable"]


@pytest.mark.parametrize(
    "begin", ["", *(f"begin isolation level {level}{only}" for level in LEVELS for only in ("", " read only"))]
)
def test_a_new_text_is_embedded_in_any_transaction(served: Served, begin: str) -> None:
    """Also where a snapshot hides everything that comes, and in READ ONLY."""
    text = unused()
    with session(served.url) as connection:
        if begin:
            connection.execute(begin)
            connection.execute("select count(*) from livedex.documents")
        assert_embeds(connection, text)
        rows = connection.execute("select document_id, chunk from livedex.search(%s)", (f"{text} apples",)).fetchall()
        assert rows[0] == ("apples", TEXTS["apples"])
    assert served.encoder.times(text) == 1


def test_a_text_of_8_kb_is_embedded(served: Served) -> None:
    """8192 bytes pass in any alphabet; one more is refused."""
    with session(served.url) as connection:
        for text in ("z" * 8192, "ж" * 4096, "字" * 2730):
            assert_embeds(connection, text)
        with pytest.raises(errors.ProgramLimitExceeded, match="8193 bytes, at most 8192") as refused:
            connection.execute("select livedex.embed(%s)", ("z" * 8191 + "ж",))
        assert "over HTTP" in (refused.value.diag.message_hint or "")
        assert_embeds(connection, unused())


@pytest.fixture
def reranking(served: Served) -> Iterator[Served]:
    """The collection has a reranker, which the worker has loaded: the share of the question's words counts."""
    served.connection.execute("update livedex.collection set reranker = 'words'")
    until(lambda: "words" in served.app._encoders._rerankers, what="the reranker")
    yield served
    served.connection.execute("update livedex.collection set reranker = ''")


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("begin", ["", "begin isolation level serializable read only"])
def test_a_search_is_reranked(reranking: Served, mode: str, begin: str) -> None:
    """The rows come in the reranker's order with its scores, the k best of all that it judged."""
    statement = "select document_id, score from livedex.search('clocks cross all rivers', mode => %s, k => %s, rerank => true)"
    with session(reranking.url) as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        if begin:
            connection.execute(begin)
        assert connection.execute(statement, (mode, 2)).fetchall() == [("bridges", 0.5), ("clocks", 0.25)]
        assert connection.execute(statement, (mode, 1)).fetchall() == [("bridges", 0.5)]
        assert not notices


def test_of_many_rows_the_best_are_judged(reranking: Served) -> None:
    """Fifty at most; those behind them keep their order, with scores below."""
    texts = [f"Number {number} of many {'rivers' if number % 2 else 'clocks'}." for number in range(60)]
    vectors = ENCODER.encode_documents(texts)
    documents = [
        Document(name=f"many/{n}", pieces=[Piece(text=t, vector=v)])
        for n, (t, v) in enumerate(zip(texts, vectors, strict=True))
    ]
    with connection_to(reranking.url) as connection:
        made = create_collection(connection, "many", model=MODEL, reranker="words")
        fill(connection, made, documents)
    until(lambda: made.generation_id in reranking.app._encoders.loaded(), what="the collection to be served")
    statement = "select document_id, score from livedex.search('rivers', 60, 'many', mode => 'vector', rerank => {})"
    with session(reranking.url) as connection:
        plain = [name for name, _ in connection.execute(statement.format("null").encode()).fetchall()]
        rows = connection.execute(statement.format("true").encode()).fetchall()
    is_river = {name: int(name.partition("/")[2]) % 2 for name in plain}
    judged, rest = plain[:50], plain[50:]
    assert [name for name, _ in rows] == [*sorted(judged, key=lambda name: -is_river[name]), *rest]
    assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)


@pytest.mark.parametrize("trouble", ["late", "unloaded"])
def test_where_it_has_no_time_or_no_model_the_rows_come_as_they_are(
    reranking: Served, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a warning that says which."""

    class Late:
        """A reranker that never comes to an end in time."""

        def scores(self, query: str, passages: list[str], *, deadline: float) -> object:
            """See Reranker."""
            del query, passages
            time.sleep(max(0.0, deadline - time.perf_counter()))
            raise too_late()

    monkeypatch.setattr(reranking.app._encoders, "_rerankers", {"words": Late()} if trouble == "late" else {})
    monkeypatch.setattr(reranking.app._encoders, "missing_rerankers", lambda _now: [])
    ordinary = "select document_id, score from livedex.search('clocks cross rivers', mode => 'text', timeout => '1 s')"
    with session(reranking.url) as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        found = connection.execute(ordinary.replace("'text'", "'text', rerank => true")).fetchall()
        assert found == connection.execute(ordinary).fetchall()
        (notice,) = notices
    assert notice.startswith("the rows are not reranked: ")
    assert ("in time" if trouble == "late" else "is not loaded") in notice


def test_where_the_endpoint_is_away_the_rows_come_as_they_are(reranking: Served) -> None:
    """With a warning that says why; the search itself is well."""
    ordinary = "select document_id, score from livedex.search('clocks cross rivers', mode => 'text')"
    reranking.lead_to(free_port())
    try:
        with session(reranking.url) as connection:
            notices: list[str] = []
            connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
            found = connection.execute(ordinary.replace("'text'", "'text', rerank => true")).fetchall()
            assert found == connection.execute(ordinary).fetchall()
            (notice,) = notices
            assert notice.startswith("the rows are not reranked: the query worker does not answer")
    finally:
        reranking.lead_to(reranking.port)


def test_a_session_keeps_its_connection(served: Served) -> None:
    """Texts come over one connection, which ends with the session."""
    until(lambda: served.links() == 0)
    with session(served.url) as connection:
        for _ in range(5):
            assert_embeds(connection, unused())
        assert served.links() == 1
    until(lambda: served.links() == 0)


def test_a_connection_that_broke_is_opened_again(served: Served) -> None:
    """Whether the worker closed it or somebody in the session did; no error reaches the session, and no notice."""
    with session(served.url) as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        assert_embeds(connection, unused())
        assert served.app.wire is not None
        for link in list(served.app.wire._open):
            _shut(link)
        until(lambda: served.links() == 0)
        assert_embeds(connection, unused())
        connection.execute("select dblink_disconnect('livedex_worker')")
        assert_embeds(connection, unused())
        assert not notices


def test_without_an_endpoint_a_text_is_refused_at_once(served: Served) -> None:
    """57P03 comes at once, or rows by words; what failed is in the server's log only."""
    served.lead_to(free_port())
    try:
        with session(served.url) as connection:
            began = time.monotonic()
            with pytest.raises(errors.CannotConnectNow, match="does not answer at the foreign server") as refused:
                connection.execute("select livedex.search(%s, timeout => '30 s')", (unused(),))
            assert time.monotonic() - began < 5
            assert "127.0.0.1" not in str(refused.value)
            assert "LIVEDEX_WIRE_PORT" in (refused.value.diag.message_hint or "")
            rows = connection.execute("select document_id from livedex.search('x apples', on_miss => 'text')").fetchall()
            assert rows == [("apples",)]
    finally:
        served.lead_to(served.port)
    with session(served.url) as connection:
        assert_embeds(connection, unused())


def test_another_password_is_no_worker(served: Served) -> None:
    """57P03 too: for the session it is the same."""
    change = sql.SQL("alter user mapping for livedex_owner server livedex_worker options (set password {})")
    served.connection.execute(change.format("another-password-0123"))
    try:
        with session(served.url) as connection, pytest.raises(errors.CannotConnectNow, match="does not answer"):
            connection.execute("select livedex.embed(%s)", (unused(),))
    finally:
        served.connection.execute(change.format(PASSWORD))


def test_the_deadline_ends_the_wait(served: Served) -> None:
    """57014, or rows by words; the late answer is not taken for that to the next text."""
    served.encoder.go.clear()
    try:
        with session(served.url) as connection:
            with pytest.raises(errors.QueryCanceled, match="did not embed the text in time"):
                connection.execute("select livedex.embed(%s, timeout => '0.2 s')", (unused(),))
            served.encoder.go.set()
            until(lambda: served.links() == 0, what="the connection to be given up")
            served.encoder.go.clear()
            statement = "select document_id from livedex.search('x apples', timeout => '0.3 s', on_miss => 'text')"
            assert connection.execute(statement).fetchall() == [("apples",)]
            served.encoder.go.set()
            assert_embeds(connection, unused())
    finally:
        served.encoder.go.set()


def test_a_session_that_is_cancelled_can_go_on(served: Served) -> None:
    """The cancel passes at once, and the answer to the text before is not taken for that to the next."""
    served.encoder.go.clear()
    try:
        with session(served.url) as connection:
            connection.execute("set statement_timeout = '300ms'")
            began = time.monotonic()
            with pytest.raises(errors.QueryCanceled, match="statement timeout"):
                connection.execute("select * from livedex.search(%s, timeout => '20 s', on_miss => 'text')", (unused(),))
            assert time.monotonic() - began < 10
            connection.execute("reset statement_timeout")
            served.encoder.go.set()
            assert_embeds(connection, unused())
    finally:
        served.encoder.go.set()


def test_a_searching_role_learns_nothing_of_the_connection(served: Served) -> None:
    """It searches what is granted; it can neither use the foreign server nor make the worker embed by itself."""
    name = "an_app_of_dblink"
    served.connection.execute(
        sql.SQL("create role {} login in role livedex_search password {}").format(sql.Identifier(name), PASSWORD)
    )
    served.connection.execute("insert into livedex.collection_access select collection_id, %s from livedex.collection", (name,))
    try:
        with session(psycopg.conninfo.make_conninfo(served.url, user=name, password=PASSWORD)) as connection:
            assert len(connection.execute("select * from livedex.search(%s)", (unused(),)).fetchall()) == len(TEXTS)
            assert connection.execute("select umoptions from pg_user_mappings").fetchall() == [(None,)]
            with pytest.raises((errors.InsufficientPrivilege, errors.UndefinedObject)):
                connection.execute("select dblink_connect('own', 'livedex_worker')")
            with pytest.raises(errors.CannotConnectNow, match="another database"):
                connection.execute(
                    "select * from dblink('livedex_worker', $$SELECT embed(1, '6869', '00', 'embed', 99)$$) as r(v text)"
                )
            for call in ("ask_by_dblink('public', null, '', 1, now())", "dblink_embed('public', 'a', 'b', now())",
                         "wire_statement(null, '', 0, '1 s')", "drop_link('public', 'a')", "dblink_schema()",
                         "ask_endpoint('public', null, '', 3, now())", "reranked(null, '', null, now())"):  # fmt: skip
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(sql.SQL("select livedex.{}").format(sql.SQL(call)))
    finally:
        served.connection.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))
        served.connection.execute("delete from livedex.collection_access where role = %s", (name,))


def test_a_worker_of_another_database_does_not_count(server: str, served: Served, tmp_path: Path) -> None:
    """Its generations have the same numbers, but texts are refused rather than embedded by another's model."""
    with served_at(server, tmp_path) as other:
        other.connection.execute("update livedex.mailbox_secret set secret = default")  # copies of a database have the same
        other.lead_to(served.port)
        with session(other.url) as connection, pytest.raises(errors.CannotConnectNow, match="connected to another database"):
            connection.execute("select livedex.embed(%s)", (unused(),))
        other.lead_to(other.port)
        assert_embeds(other.connection, unused())


def test_a_foreign_server_of_somebody_is_not_asked(server: str, served: Served, tmp_path: Path) -> None:
    """Only one that an operator owns takes texts; otherwise they go by the mailbox."""
    with served_at(server, tmp_path) as other:
        other.lead_to(free_port())
        other.connection.execute("create role somebody")
        try:
            other.connection.execute("grant usage on foreign data wrapper dblink_fdw to somebody")
            other.connection.execute("alter server livedex_worker owner to somebody")
            (vector,) = other.connection.execute("select livedex.embed(%s)", (unused(),)).fetchone() or (None,)
            assert vector is not None
        finally:
            other.connection.execute("drop owned by somebody cascade; drop role somebody")


@pytest.mark.parametrize("begin", ["", "begin", "begin read only", "begin isolation level repeatable read"])
def test_a_standby_asks_by_itself(contrib: Contrib, served: Served, standby: str, begin: str) -> None:
    """Its sessions ask the endpoint, and need neither a mailbox nor the primary."""
    text = unused()
    with session(standby) as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)
        if begin:
            connection.execute(begin)
        assert_embeds(connection, text)
        rows = connection.execute("select document_id from livedex.search(%s)", (f"{text} clocks",)).fetchall()
        assert rows[0] == ("clocks",)
    assert served.encoder.times(text) == 1


@pytest.fixture(scope="module")
def standby(contrib: Contrib, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the same database at a hot standby, which the worker does not watch."""
    with contrib.standby(tmp_path_factory.mktemp("standby")) as url:
        yield url_of(url, str(psycopg.conninfo.conninfo_to_dict(served.url)["dbname"]))
