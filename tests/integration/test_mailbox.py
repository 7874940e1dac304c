"""livedex.search and livedex.embed: a text becomes a vector inside the database, and nobody else learns or forges it."""

import hashlib
import secrets
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import psycopg
import pytest
from psycopg import errors, sql
from structlog.testing import capture_logs

from livedex.catalogue import Generation
from livedex.core.mailbox import PIECE, SEAL, ForgedError, collect, read
from livedex.database import Connection, query
from livedex.dev.stack import Addresses
from livedex.errors import SystemicError
from livedex.query import mailbox
from livedex.query.app import QueryApp
from support.asking import ENCODER, TEXTS, SlowEncoder, fill_collection, serving, unused
from support.database import fresh_database, login_role
from support.waiting import until
from support.workers import Metrics, Workers

SEARCH = "select document_id from livedex.search(%s, mode => 'vector', k => 1)"


@dataclass(frozen=True, slots=True)
class Served:
    """A query worker in a thread of this process, and a superuser's connection to its database."""

    url: str
    connection: Connection
    encoder: SlowEncoder
    app: QueryApp
    generation: Generation

    def metrics(self) -> Metrics:
        """The worker's metrics now."""
        from prometheus_client import generate_latest

        return Metrics(generate_latest(self.app.metrics.registry).decode())

    def waiting(self) -> int:
        """How many texts wait for their vectors."""
        row = self.connection.execute(
            f"select count(*) from livedex.advisory_locks where form = 1 and class >> 24 = {SEAL}"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def forget(self) -> None:
        """Empty the cache of the database."""
        self.connection.execute("delete from livedex.query_embedding")


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three documents, and a worker that embeds."""
    with (
        fresh_database(stack.database_url, template) as url,
        Workers(stack, url, tmp_path_factory.mktemp("mailbox")) as workers,
    ):
        generation = fill_collection(url)
        encoder = SlowEncoder()
        with serving(workers, url, encoder) as app, psycopg.connect(url, autocommit=True) as connection:
            yield Served(url, connection, encoder, app, generation)


# --- what it answers


@pytest.mark.parametrize("begin", ["", "begin", "begin read only", "begin isolation level read uncommitted"])
def test_a_text_is_embedded_in_any_read_committed_transaction(served: Served, begin: str) -> None:
    """livedex.embed gives the vector of the model, in autocommit, inside a transaction, and in a READ ONLY one."""
    text = unused()
    with psycopg.connect(served.url, autocommit=True) as connection:
        if begin:
            connection.execute(begin)
        row = connection.execute("select livedex.embed(%s)::real[]", (text,)).fetchone()
        assert row is not None
        np.testing.assert_allclose(np.array(row[0], np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)
        locks = connection.execute("select count(*) from livedex.advisory_locks where pid = pg_backend_pid()").fetchone()
        assert locks == (0,), "the text's locks must be free as soon as it is answered"


@pytest.mark.parametrize(("name", "text"), TEXTS.items())
def test_a_search_by_text_finds_what_means_the_same(served: Served, name: str, text: str) -> None:
    """The document whose chunk has the very text comes first, in every mode."""
    for mode in ("vector", "hybrid", "text"):
        statement = "select document_id from livedex.search(%s, mode => %s, k => 1)"
        assert served.connection.execute(statement, (text, mode)).fetchall() == [(name,)]


def test_a_repeated_text_costs_no_call_of_the_model(served: Served) -> None:
    """The second search takes the vector from the cache, also in a transaction that could not ask the worker."""
    text = unused()
    served.connection.execute(SEARCH, (text,))
    calls = len(served.encoder.calls)
    for level in ("read committed", "repeatable read", "serializable"):
        with psycopg.connect(served.url, autocommit=True) as connection:
            connection.execute(f"begin isolation level {level}")
            assert len(connection.execute(SEARCH, (text,)).fetchall()) == 1
    assert len(served.encoder.calls) == calls


def test_texts_that_come_at_once_share_a_call(served: Served) -> None:
    """Sessions that wait while the model is busy are answered by one call, each with its own vector."""
    texts = [unused() for _ in range(12)]
    found: dict[str, Any] = {}

    def ask(text: str) -> None:
        with psycopg.connect(served.url, autocommit=True) as connection:
            row = connection.execute("select livedex.embed(%s, timeout => '20 s')::real[]", (text,)).fetchone()
            assert row is not None
            found[text] = row[0]

    served.encoder.go.clear()
    calls = len(served.encoder.calls)
    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    try:
        for thread in threads:
            thread.start()
        until(lambda: served.waiting() == len(texts))
    finally:
        served.encoder.go.set()
    for thread in threads:
        thread.join()
    assert found.keys() == set(texts)
    for text, vector in found.items():
        np.testing.assert_allclose(np.array(vector, np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)
    assert len(served.encoder.calls) - calls <= 3, "one call may have begun with the first text"


def test_a_text_of_384_bytes_in_any_alphabet_is_embedded(served: Served) -> None:
    """384 bytes pass, whatever their letters take; one more is refused with the ways that have no such limit."""
    for text in ("z" * 384, "ж" * 192, "字" * 128, "😀" * 96):
        row = served.connection.execute("select livedex.embed(%s)::real[]", (text,)).fetchone()
        assert row is not None
        np.testing.assert_allclose(np.array(row[0], np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)
    with pytest.raises(errors.ProgramLimitExceeded, match="385 bytes, at most 384") as refused:
        served.connection.execute("select livedex.embed(%s)", ("z" * 385,))
    assert "HTTP" in (refused.value.diag.message_hint or "")
    assert "search_vector" in (refused.value.diag.message_hint or "")


def test_the_worker_counts_what_it_answers(served: Served) -> None:
    """The worker's metrics tell of texts from SQL by what they were for."""
    before = served.metrics()
    served.connection.execute(SEARCH, (unused(),))
    served.connection.execute("select livedex.search(%s)", (unused(),))
    served.connection.execute("select livedex.embed(%s)", (unused(),))
    until(
        lambda: (
            served.metrics().value("livedex_search_requests_total", route="sql", code="00000")
            == before.value("livedex_search_requests_total", route="sql", code="00000") + 3
        )
    )
    for mode in ("vector", "hybrid", "embed"):
        name = "livedex_search_seconds_count"
        assert served.metrics().value(name, route="sql", mode=mode) == before.value(name, route="sql", mode=mode) + 1


# --- what it refuses


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_new_text_in_a_snapshot_is_refused_at_once(served: Served, level: str) -> None:
    """A transaction that cannot see the answer gets 25001 with a hint, and does not wait."""
    with psycopg.connect(served.url, autocommit=True) as connection:
        connection.execute(f"begin isolation level {level}")
        with pytest.raises(errors.ActiveSqlTransaction, match=f"snapshot of this {level} transaction") as refused:
            connection.execute(SEARCH, (unused(),))
        assert "READ COMMITTED" in (refused.value.diag.message_hint or "")


def test_without_a_worker_a_new_text_is_refused_at_once(database_url: str) -> None:
    """57P03 comes at once, or rows by words where that is asked for."""
    fill_collection(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        began = time.monotonic()
        with pytest.raises(errors.CannotConnectNow, match="no query worker"):
            connection.execute("select livedex.search('apples', timeout => '30 s')")
        assert time.monotonic() - began < 10
        rows = connection.execute("select document_id from livedex.search('apples', on_miss => 'text')").fetchall()
        assert rows == [("apples",)]


def test_doctor_tells_whether_a_worker_is_there(served: Served, database_url: str, workers: Workers) -> None:
    """It counts the workers of this database, and knows the way that texts take."""
    said = workers.run("doctor", LIVEDEX_DATABASE_URL=served.url).stdout
    assert "livedex.search asks by the mailbox; query workers that are connected: 1" in said
    assert "no query worker is connected" in workers.run("doctor", LIVEDEX_DATABASE_URL=database_url).stdout


def test_a_worker_of_another_database_does_not_count(served: Served, database_url: str) -> None:
    """A query worker that is connected to another database of the server cannot answer, and 57P03 says so."""
    assert served.url != database_url
    generation = fill_collection(database_url)
    assert generation.generation_id == served.generation.generation_id
    with psycopg.connect(database_url, autocommit=True) as connection, pytest.raises(errors.CannotConnectNow):
        connection.execute("select livedex.search('apples')")


def test_a_lock_of_anybody_is_no_worker(database_url: str) -> None:
    """A role that takes the lock of a query worker does not pass for one."""
    generation = fill_collection(database_url)
    with (
        login_role(database_url, "livedex_search") as (_, as_role),
        psycopg.connect(as_role, autocommit=True) as forger,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        forger.execute("select pg_advisory_lock_shared(1818518897, %s)", (generation.generation_id,))
        with pytest.raises(errors.CannotConnectNow):
            connection.execute("select livedex.search('apples', timeout => '30 s')")


def test_a_worker_that_is_busy_too_long_is_told_apart(served: Served) -> None:
    """The deadline ends the wait with 57014, or with rows by words; the session goes on."""
    served.encoder.go.clear()
    try:
        with psycopg.connect(served.url) as connection:
            with pytest.raises(errors.QueryCanceled, match="did not embed the text in time"):
                connection.execute("select livedex.search('ripe apples', timeout => '0.1 s')")
            connection.rollback()
            statement = "select document_id from livedex.search('apples', timeout => '0.2 s', on_miss => 'text')"
            assert connection.execute(statement).fetchall() == [("apples",)]
    finally:
        served.encoder.go.set()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("''", errors.InvalidParameterValue, "the query text is empty"),
        ("null", errors.InvalidParameterValue, "the query text is null"),
        ("repeat('x ', 524288)", errors.ProgramLimitExceeded, "1048576 characters, at most 8192"),
        ("'a', k => 0", errors.InvalidParameterValue, "k is 0, expected 1 to 1000"),
        ("'a', k => -1", errors.InvalidParameterValue, "k is -1"),
        ("'a', k => 1000000", errors.InvalidParameterValue, "k is 1000000"),
        ("'a', mode => 'fuzzy'", errors.InvalidParameterValue, "mode is 'fuzzy'"),
        ("'a', filter => '[1]'", errors.InvalidParameterValue, "filter is array"),
        ("'a', collection => 'other'", errors.UndefinedObject, "the collection other does not exist"),
        ("'a', on_miss => 'ignore'", errors.InvalidParameterValue, "on_miss is 'ignore', expected error or text"),
        ("'a', timeout => null", errors.InvalidParameterValue, "the timeout is null"),
        ("'a', timeout => '0 s'", errors.InvalidParameterValue, "the timeout is 00:00:00"),
        ("'a', per_document => 0", errors.InvalidParameterValue, "per_document is 0"),
        ("'a', rerank => true", errors.InvalidParameterValue, 'the collection "default" has no reranker'),
    ],
)
def test_what_no_search_can_mean_is_refused(served: Served, arguments: str, error: type[Exception], message: str) -> None:
    """Each mistake has its SQLSTATE, and a message that names what was given and what was expected."""
    with pytest.raises(error, match=message):
        served.connection.execute(sql.SQL("select livedex.search({})").format(sql.SQL(arguments)))


def test_a_rerank_that_is_null_is_none(served: Served) -> None:
    """As if it had not been said."""
    rows = served.connection.execute(
        "select document_id from livedex.search('apples', mode => 'text', rerank => null)"
    ).fetchall()
    assert rows == [("apples",)]


def test_passages_do_not_fit_into_the_mailbox(served: Served) -> None:
    """0A000, and the hint names what can rerank."""
    with served.connection.transaction(force_rollback=True):
        served.connection.execute("update livedex.collection set reranker = 'words'")
        with pytest.raises(errors.FeatureNotSupported, match="passages do not fit into the mailbox") as refused:
            served.connection.execute("select livedex.search('a', rerank => true)")
    assert "over HTTP" in (refused.value.diag.message_hint or "")


@pytest.mark.parametrize(
    "text", ["'; drop table livedex.document; --", "\\x00", "$$", "%s", 'a"b', "the of and", "   ", "\t\n"]
)
def test_quotes_and_the_like_are_only_text(served: Served, text: str) -> None:
    """Whatever a text looks like, it is embedded as it is, and as a filter's value it matches nothing."""
    row = served.connection.execute("select livedex.embed(%s)::real[]", (text,)).fetchone()
    assert row is not None
    np.testing.assert_allclose(np.array(row[0], np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)
    statement = "select * from livedex.search(%s, filter => jsonb_build_object('a', %s::text))"
    assert served.connection.execute(statement, (text, text)).fetchall() == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (r"E'a\x00'", "22021"),
        (r"""'a', filter => '{"a": "\u0000"}'""", "22P05"),
        ("'a', filter => '{'", "22P02"),
        ("""'a', filter => (repeat('{"a":', 100000) || '1' || repeat('}', 100000))::jsonb""", "54001"),
        ("'a') union select livedex.search_vector('[1,'", "22P02"),
        ("'a') union select livedex.search_vector('[]'", "22000"),
    ],
    ids=["NUL", "NUL in the filter", "half a filter", "a deep filter", "half a vector", "an empty vector"],
)
def test_what_postgres_refuses_is_named_by_it(served: Served, arguments: str, code: str) -> None:
    """Before livedex sees it, with the codes that the reference names."""
    with pytest.raises(psycopg.Error) as refused:
        served.connection.execute(f"select livedex.search({arguments})")
    assert refused.value.sqlstate == code


# --- what others may learn and do


@contextmanager
def held_request(served: Served, text: str) -> Iterator[tuple[int, list[int]]]:
    """A session that waits for a text: its pid, and the keys that everybody can see."""
    served.encoder.go.clear()
    connection = psycopg.connect(served.url, autocommit=True)
    waiting = threading.Thread(target=connection.execute, args=("select livedex.embed(%s, timeout => '20 s')", (text,)))
    waiting.start()
    try:
        pid = connection.info.backend_pid

        def keys() -> list[int]:
            return list(collect(served.connection.execute(query("mailbox", "look")).fetchall()).get(pid, []))

        until(lambda: any(key >> 56 == SEAL for key in keys()))
        yield pid, keys()
    finally:
        served.encoder.go.set()
        waiting.join()
        connection.close()


def test_other_roles_cannot_read_a_text(served: Served) -> None:
    """No piece of a text is in the lock table, and the same text looks different in every session."""
    text = "who was dismissed in March, and why?"
    with held_request(served, text) as (_, first), held_request(served, text) as (_, second):
        assert not set(first) & set(second)
    carried = b"".join((key & (1 << 48) - 1).to_bytes(6) for key in sorted(first) if key >> 56 == PIECE)
    for start in range(len(text) - 2):
        assert text[start : start + 3].encode() not in carried


def test_what_the_worker_reads_is_what_the_session_wrote(served: Served) -> None:
    """The two sides agree, and a changed bit, another session's number or another secret is a forgery."""
    (secret,) = served.connection.execute("select secret from livedex.mailbox_secret").fetchone() or (b"",)
    statement = "select livedex.mailbox_keys(%s, int4send(7) || '\\x01' || convert_to(%s, 'UTF8'), %s, %s)"
    for length in [*range(1, 40), 383, 384]:
        text = "".join(chr(97 + (n * 7) % 26) for n in range(length))
        (keys,) = served.connection.execute(statement, (secret, text, secrets.token_bytes(12), 4711)).fetchone() or ([],)
        question = read(4711, keys, secret)
        assert question is not None
        assert (question.pid, question.generation_id, question.purpose, question.text) == (4711, 7, "hybrid", text)
        assert read(4711, keys[:-1], secret) is None
        assert read(4711, keys[1:], secret) is None
        for pid, shown, key in (
            (4712, keys, secret),
            (4711, keys, hashlib.sha256(secret).digest()),
            (4711, [*keys[:2], keys[2] ^ 1, *keys[3:]], secret),
            (4711, [*keys[:-1], keys[-1] ^ 1], secret),
        ):
            with pytest.raises(ForgedError):
                read(pid, shown, key)


def test_locks_of_the_application_do_not_hide_a_text(served: Served) -> None:
    """A session that holds advisory locks of its own, whose keys look like pieces and seals, is answered all the same."""
    text = unused()
    with psycopg.connect(served.url, autocommit=True) as connection:
        for key in (
            PIECE << 56 | 1 << 48 | 12345,
            PIECE << 56 | 7,
            PIECE << 56 | 200 << 48,
            SEAL << 56 | 30 << 40 | 5,
            SEAL << 56,
        ):
            connection.execute("select pg_advisory_lock(%s)", (key,))
        row = connection.execute("select livedex.embed(%s)::real[]", (text,)).fetchone()
        assert row is not None
        np.testing.assert_allclose(np.array(row[0], np.float32), ENCODER.encode_queries([text])[0], atol=1e-6)


def test_a_text_that_the_model_refuses_fails_nobody_elses(served: Served) -> None:
    """Of texts that wait together, the one that makes the model fail is told so at its deadline, and the others get vectors."""
    texts = [unused() for _ in range(3)]
    bad = f"poison {unused()}"
    served.encoder.refuses = "poison"
    outcomes: dict[str, str] = {}

    def ask(text: str, timeout: str) -> None:
        with psycopg.connect(served.url, autocommit=True) as connection:
            try:
                connection.execute("select livedex.embed(%s, timeout => %s)", (text, timeout))
                outcomes[text] = "answered"
            except psycopg.Error as error:
                outcomes[text] = error.sqlstate or ""

    served.encoder.go.clear()
    threads = [threading.Thread(target=ask, args=(text, "20 s")) for text in texts]
    threads.append(threading.Thread(target=ask, args=(bad, "3 s")))
    try:
        for thread in threads:
            thread.start()
        until(lambda: served.waiting() == 4)
    finally:
        served.encoder.go.set()
    for thread in threads:
        thread.join()
    served.encoder.refuses = ""
    assert outcomes == {**dict.fromkeys(texts, "answered"), bad: "57014"}


def test_a_model_that_is_away_for_a_moment_costs_no_text(served: Served) -> None:
    """What fails only for now is asked again, as long as the session waits."""
    served.encoder.away = 2
    served.connection.execute("select livedex.embed(%s, timeout => '20 s')", (unused(),))
    assert served.encoder.away == 0


def test_another_model_is_told_once_for_all_that_wait(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but an operator mends it, so it is not asked again for each text, and not as long as sessions wait; the worker
    stays ready, for it may serve other collections.
    """
    calls: list[list[str]] = []

    def other(texts: list[str]) -> NoReturn:
        calls.append(texts)
        assert served.encoder.go.wait(30)
        raise SystemicError("embedder", "the embedding server gives other vectors")

    def ask() -> None:
        with psycopg.connect(served.url, autocommit=True) as connection, pytest.raises(errors.QueryCanceled):
            connection.execute("select livedex.embed(%s, timeout => '4 s')", (unused(),))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    served.encoder.go.clear()
    with capture_logs() as lines, monkeypatch.context() as patched:
        patched.setattr(served.encoder, "encode_queries", other, raising=False)
        threads[0].start()
        until(lambda: calls, what="the model to be asked")
        for thread in threads[1:]:
            thread.start()
        until(lambda: served.waiting() == 3, what="all to wait")
        served.encoder.go.set()
        for thread in threads:
            thread.join()
    assert [len(texts) for texts in calls] == [1, 2]
    assert [(line["event"], line["why"]) for line in lines if line["event"].startswith("mailbox.")] == [
        ("mailbox.failed", "the embedding server gives other vectors")
    ] * 2
    assert served.app.health.waiting_for == []
    served.connection.execute("select livedex.embed(%s)", (unused(),))


def test_a_copied_or_made_up_request_is_not_answered(served: Served) -> None:
    """A role that takes the locks of another session, or locks of its own making, gets nothing embedded, and is counted."""
    text = unused()
    with login_role(served.url, "livedex_search") as (_, as_role), psycopg.connect(as_role, autocommit=True) as forger:
        with held_request(served, text) as (_, keys):
            for key in keys:
                forger.execute("select pg_advisory_lock_shared(%s)", (key,))
        until(lambda: served.metrics().value("livedex_search_requests_total", route="sql", code="28000") == 1)
        forger.execute("select pg_advisory_unlock_all()")
        payload = struct.pack(">iB", served.generation.generation_id, 0) + b"made up"
        pieces = secrets.token_bytes(12) + payload + bytes(12)
        for n in range(-(-len(pieces) // 6)):
            key = PIECE << 56 | n << 48 | int.from_bytes(pieces[6 * n : 6 * n + 6].ljust(6, b"\0"))
            forger.execute("select pg_advisory_lock_shared(%s)", (key,))
        forger.execute("select pg_advisory_lock_shared(%s)", (SEAL << 56 | len(payload) << 40,))
        calls = len(served.encoder.calls)
        served.connection.execute("select livedex.embed(%s)", (unused(),))
        assert len(served.encoder.calls) == calls + 1
        assert not any("made up" in texts for texts in served.encoder.calls)


def test_a_searching_role_reads_nothing_but_answers(served: Served) -> None:
    """A role of livedex_search can neither read tables, nor the secret, nor the cache, nor a collection that is not granted."""
    with login_role(served.url, "livedex_search") as (name, as_role), psycopg.connect(as_role, autocommit=True) as connection:
        for table in ("document", "chunk", "query_embedding", "mailbox_secret", "advisory_locks", "embedding_1", "documents"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql.SQL("select * from livedex.{}").format(sql.Identifier(table)))
        for call in ("mailbox_keys('', '', '', 1)", "ask_worker(null, '', 1, now())", "mailbox_refusal(null, '')"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql.SQL("select livedex.{}").format(sql.SQL(call)))
        for call in ("search('apples')", "embed('apples')"):
            with pytest.raises(errors.InsufficientPrivilege, match=f"role {name} may not search"):
                connection.execute(sql.SQL("select livedex.{}").format(sql.SQL(call)))


@pytest.mark.parametrize(("length", "most"), [(24, 64), (384, 46)])
def test_a_flood_of_one_role_leaves_room_for_others(served: Served, length: int, most: int) -> None:
    """The 65th text that a role lets wait, or one more than a quarter of the lock table holds, is refused with 53400, while
    another role is answered.
    """
    capacity = served.connection.execute(
        "select current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int"
    ).fetchone()
    assert capacity == (64 * 200,), "what a quarter of the table holds is reckoned from this"
    served.encoder.go.clear()
    outcomes: list[str] = []

    def ask(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            try:
                connection.execute("select livedex.embed(%s, timeout => '30 s')", (unused().ljust(length),))
                outcomes.append("answered")
            except psycopg.Error as error:
                outcomes.append(error.sqlstate or "")

    with login_role(served.url, "livedex_owner") as (_, as_role):
        threads = [threading.Thread(target=ask, args=(as_role,)) for _ in range(most)]
        other = threading.Thread(target=ask, args=(served.url,))
        try:
            for thread in threads:
                thread.start()
            until(lambda: served.waiting() == most)
            ask(as_role)
            assert outcomes == ["53400"]
            other.start()
            until(lambda: served.waiting() == most + 1)
        finally:
            served.encoder.go.set()
        for thread in [*threads, other]:
            thread.join()
    assert outcomes[1:] == ["answered"] * (most + 1)


# --- how it lives


def test_the_cache_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest vectors beyond the limit are deleted, however many there are."""
    served.forget()
    served.connection.execute(
        "insert into livedex.query_embedding select %s, sha256(int4send(n)), '[1]', now() - n * interval '1 s' "
        "from generate_series(1, 50) n",
        (served.generation.generation_id,),
    )
    monkeypatch.setattr(mailbox, "MOST_CACHED", 20)
    monkeypatch.setattr(mailbox, "PRUNED_AT_ONCE", 7)
    monkeypatch.setattr(mailbox, "PRUNE_EVERY", 0.1)
    ended = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name like '%-mailbox'"
    served.connection.execute(f"{ended} and datname = current_database()")  # begins again, and prunes at once
    until(lambda: served.connection.execute("select count(*) from livedex.query_embedding").fetchone() == (20,))
    rows = served.connection.execute("select count(*), min(created_at) > now() - interval '21 s' from livedex.query_embedding")
    assert rows.fetchone() == (20, True)


def test_the_worker_comes_back_to_its_mailbox(served: Served) -> None:
    """When its session is ended, the worker looks again soon, each time, and says so."""
    ended = (
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name like '%-mailbox' "
        "and datname = current_database()"
    )
    present = "select exists (select from livedex.advisory_locks where form = 2)"
    with capture_logs() as lines:
        for _ in range(3):
            assert served.connection.execute(ended).fetchall() == [(True,)]
            until(lambda: served.connection.execute(present).fetchone() == (True,))
            assert len(served.connection.execute(SEARCH, (unused(),)).fetchall()) == 1
    assert [line["event"] for line in lines if line["event"].startswith("mailbox.")] == ["mailbox.interrupted"] * 3


def test_nothing_ends_the_mailbox_for_good(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a defect, here in what reads the keys, is tried again."""
    with capture_logs() as lines, monkeypatch.context() as patched:
        patched.setattr("livedex.query.mailbox.collect", int)
        until(lambda: [line for line in lines if line["event"] == "mailbox.interrupted"])
        assert lines[0]["why"] == "TypeError"
    present = "select exists (select from livedex.advisory_locks where form = 2)"
    until(lambda: served.connection.execute(present).fetchone() == (True,))
    assert len(served.connection.execute(SEARCH, (unused(),)).fetchall()) == 1
