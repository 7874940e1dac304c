"""What applications see in SQL beside the ranking: access, waiting for an event, and the views, fed by a real worker."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from livedex.index.app import IndexApp
from support.database import fresh_database, login_role
from support.kafka import Log
from support.workers import Workers

TEXT = "\n\n".join(f"Paragraph {number} of the long document, with words that fill it. " * 4 for number in range(40))
SHARED = "A text that twins have."
SEARCH = "select document_id from livedex.search_vector(null, mode => 'text', query => %s)"


@dataclass(frozen=True, slots=True)
class Fed:
    """A database that an index worker keeps up with a topic."""

    workers: Workers
    log: Log
    topic: str
    settings_file: Path

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        return self.workers.rows(statement, *arguments)

    def send(self, value: dict[str, Any] | bytes | None, **more: Any) -> str:
        """Send an event and wait until it is searchable; its token."""
        token = str(self.log.send(self.topic, value, **more))
        assert self.rows("select livedex.wait_for(%s, timeout => '30 s')", token) == [(True,)]
        return token


@pytest.fixture(scope="module")
def fed(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fed]:
    """A few documents, applied by a worker that goes on running."""
    folder = tmp_path_factory.mktemp("fed")
    settings = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(settings) as log:
        topic = log.topic()
        config = workers.config(topic)
        workers.apply(config)
        app = IndexApp(workers.settings(config))
        with workers.in_thread(app):
            made = Fed(workers, log, topic, config)
            made.send({"id": "long", "title": "Long", "text": TEXT, "metadata": {"lang": "en"}, "time": "2026-01-02T03:04:05Z"})
            for name in ("one", "two", "gone"):
                made.send({"id": name, "text": SHARED})
            made.send({"id": "empty", "text": ""})
            made.send(None, key="gone")
            yield made


def test_the_views_have_the_columns_of_the_contract(fed: Fed) -> None:
    """Names and order are fixed."""
    columns = {
        "documents": "collection document_id version title metadata event_time indexed_at topic partition offset "
        "pending_reason",
        "chunks": "collection document_id ordinal text start_char end_char",
        "progress": "topic partition next_offset owner event_time updated_at",
        "dead_letters": "id topic partition offset reason detail state failed_at",
    }
    with fed.workers.connect() as connection:
        for view, expected in columns.items():
            cursor = connection.execute(sql.SQL("select * from livedex.{}").format(sql.Identifier(view)))
            assert [column.name for column in cursor.description or ()] == expected.split()


def test_the_view_of_documents_tells_what_was_sent(fed: Fed) -> None:
    """A visible document has its title, metadata, event time and place in the log; a deleted one is not there."""
    statement = (
        'select document_id, title, metadata, version, topic, partition, "offset" from livedex.documents where document_id = %s'
    )
    assert fed.rows(statement, "long") == [("long", "Long", {"lang": "en"}, 0, fed.topic, 0, 0)]
    assert fed.rows("select event_time at time zone 'UTC' from livedex.documents where document_id = 'long'")[0][0].year == 2026
    assert fed.rows(statement, "gone") == []
    assert fed.rows("select document_id from livedex.documents where document_id = 'empty'") == [("empty",)]


def test_chunks_tile_the_text(fed: Fed) -> None:
    """In the order of ordinal, from 0, the chunks are the text, and start_char and end_char are their places in it."""
    statement = "select ordinal, text, start_char, end_char from livedex.chunks where document_id = 'long' order by ordinal"
    rows = fed.rows(statement)
    assert len(rows) > 5
    assert [row[0] for row in rows] == list(range(len(rows)))
    assert "".join(row[1] for row in rows) == TEXT
    assert all(TEXT[start:end] == text for _, text, start, end in rows)
    assert fed.rows("select count(*) from livedex.chunks where document_id in ('gone', 'empty')") == [(0,)]


def test_the_chunks_of_one_document_are_found_by_index(fed: Fed) -> None:
    """Among thousands of documents, livedex.chunks WHERE document_id reads one document's rows."""
    with fed.workers.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("""
            insert into livedex.document (collection_id, document_id, content_version, metadata_version, deleted, event_time,
                                          topic, partition, "offset")
            select 1, 'other/' || n, '{0,0,0}', '{0,0,0}', false, now(), 'none', 0, n from generate_series(1, 5000) n""")
        connection.execute("""
            insert into livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key)
            select 1, d.doc_key, n, (select min(chunk_key) from livedex.chunk)
              from livedex.document d, generate_series(0, 3) n where d.topic = 'none'""")
        connection.execute("analyze livedex.document, livedex.document_chunk, livedex.chunk")
        rows = connection.execute(
            "explain (analyze, format json) select * from livedex.chunks where document_id = 'long'"
        ).fetchall()
    nodes = list(walk(rows[0][0][0]["Plan"]))
    for table in ("document", "document_chunk"):
        scans = [node for node in nodes if node.get("Relation Name") == table]
        assert [scan["Node Type"] for scan in scans] in (["Index Scan"], ["Bitmap Heap Scan"], ["Index Only Scan"]), scans
        assert sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) < 100


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield node
    for child in node.get("Plans", []):
        yield from walk(child)


def test_a_document_says_why_its_newest_update_is_missing(fed: Fed) -> None:
    """A rejected update leaves the old text searchable with pending_reason; the next good update takes the reason away."""
    fed.send({"id": "pending", "text": "The first text."})
    fed.send(json.dumps({"id": "pending", "text": 7}).encode(), key="pending")
    statement = "select pending_reason from livedex.documents where document_id = 'pending'"
    assert fed.rows(statement) == [("schema",)]
    assert fed.rows("select text from livedex.chunks where document_id = 'pending'") == [("The first text.",)]
    fed.send({"id": "pending", "text": "The second text."})
    assert fed.rows(statement) == [(None,)]


def test_a_text_of_two_documents_is_one_chunk_and_two_rows(fed: Fed) -> None:
    """Equal texts share a chunk, and a search shows both documents; the deleted third one is not shown."""
    assert fed.rows("select count(*) from livedex.chunk where text = %s", SHARED) == [(1,)]
    assert fed.rows(SEARCH, "twins") == [("one",), ("two",)]


def test_wait_for_says_when_an_event_is_searchable(fed: Fed) -> None:
    """True for what is applied, also when it became a dead letter; false, at the timeout and not before, for what is not."""
    token = fed.send(b"no json", key="broken")
    assert fed.rows("select livedex.wait_for(%s)", token) == [(True,)]
    started = time.monotonic()
    assert fed.rows("select livedex.wait_for(%s, timeout => '0.3 s')", f"{fed.topic}:0:1000000") == [(False,)]
    assert 0.3 <= time.monotonic() - started < 2
    assert fed.rows("select livedex.wait_for(%s, timeout => '0 s')", f"{fed.topic}:7:0") == [(False,)]


def test_wait_for_returns_when_the_event_comes(fed: Fed) -> None:
    """A wait that began before the event was sent ends when it is searchable."""
    end = fed.rows("select next_offset from livedex.progress where topic = %s", fed.topic)[0][0]
    with fed.workers.connect() as connection, connection.cursor() as cursor:
        send = fed.log.post(fed.topic, {"id": "late", "text": "A late text."})
        assert cursor.execute("select livedex.wait_for(%s, timeout => '30 s')", (f"{fed.topic}:0:{end}",)).fetchone() == (True,)
    assert send().offset == end
    assert fed.rows("select count(*) from livedex.documents where document_id = 'late'") == [(1,)]


@pytest.mark.parametrize(
    "token", ["", "no token", "a:b:c", "t:1", ":0:0", "t:0:-1", "t:0:1 ", "t:1234567890:0", "t:0:" + "9" * 19, None]
)
def test_a_malformed_token_is_refused(fed: Fed, token: str | None) -> None:
    """What is no topic:partition:offset is an invalid argument, never a wait."""
    with pytest.raises(errors.InvalidParameterValue, match="is no topic:partition:offset"):
        fed.rows("select livedex.wait_for(%s)", token)


def test_a_token_of_a_topic_that_nobody_follows_is_refused(fed: Fed) -> None:
    """It would never come."""
    with pytest.raises(errors.InvalidParameterValue, match=r"names no topic of a collection that role .* may search"):
        fed.rows("select livedex.wait_for('nobody:0:0')")
    with pytest.raises(errors.InvalidParameterValue, match="timeout is null"):
        fed.rows("select livedex.wait_for(%s, timeout => null)", f"{fed.topic}:0:0")
    with pytest.raises(errors.InvalidParameterValue, match="timeout is 300000 years"):
        fed.rows("select livedex.wait_for(%s, timeout => '300000 years')", f"{fed.topic}:0:0")
    end = f"{fed.topic}:0:1000000"
    assert fed.rows("select livedex.wait_for(%s, timeout => '-300000 years')", end) == [(False,)], "a look"


def test_waiting_in_a_snapshot_is_refused_unless_the_event_is_in_it(fed: Fed) -> None:
    """REPEATABLE READ would never see the event: 25001 at once. What the snapshot shows already is true there too."""
    token = fed.send({"id": "seen", "text": "Seen."})
    with fed.workers.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            assert connection.execute("select livedex.wait_for(%s)", (token,)).fetchone() == (True,)
        with pytest.raises(errors.ActiveSqlTransaction, match="snapshot"), connection.transaction():
            connection.execute("select livedex.wait_for(%s)", (f"{fed.topic}:0:1000000",))


def test_a_search_after_an_event_sees_it(fed: Fed) -> None:
    """`after` waits for the event of the token; when it does not come within `timeout`, the search fails with 57014."""
    end = fed.rows("select next_offset from livedex.progress where topic = %s", fed.topic)[0][0]
    search = SEARCH[:-1] + ", after => %s, timeout => %s::interval)"
    fed.log.post(fed.topic, {"id": "own", "text": "My own zebra."})
    assert fed.rows(search, "zebra", f"{fed.topic}:0:{end}", "30 s") == [("own",)]
    with pytest.raises(errors.QueryCanceled, match="was not searchable within") as late:
        fed.rows(search, "zebra", f"{fed.topic}:0:1000000", "0.1 s")
    assert late.value.diag.message_detail == "after"


def test_a_search_role_searches_what_it_was_granted(fed: Fed) -> None:
    """A member of livedex_search needs an access row for the collection, its own or a group's; without it: 42501."""
    database = fed.workers.database_url
    with (
        login_role(database, "livedex_search") as (name, url),
        login_role(database, "livedex_search", name) as (member, as_member),
    ):
        with pytest.raises(errors.InsufficientPrivilege, match="may not search the collection") as refused:
            ask(url, "text")
        assert f"livedex grant default {name}" in (refused.value.diag.message_hint or "")
        fed.rows("insert into livedex.collection_access select collection_id, %s from livedex.collection returning role", name)
        assert ask(url, "twins") == [("one",), ("two",)]
        assert ask(as_member, "twins") == [("one",), ("two",)], "membership is inherited"
        assert ask(database, "twins", role=member) == [("one",), ("two",)], "after SET ROLE the role asks"


def test_the_access_of_a_role_that_was_dropped_harms_nobody(fed: Fed) -> None:
    """An access row whose role is gone is passed over."""
    fed.rows(
        "insert into livedex.collection_access select collection_id, 'a dropped role' from livedex.collection returning role"
    )
    with login_role(fed.workers.database_url, "livedex_search") as (_, url), pytest.raises(errors.InsufficientPrivilege):
        ask(url, "twins")


def test_a_role_that_was_set_loses_the_rights_of_the_session(fed: Fed) -> None:
    """A superuser's session that has SET ROLE to a role without access is refused like that role."""
    database = fed.workers.database_url
    with login_role(database, "livedex_search") as (name, _):
        with pytest.raises(errors.InsufficientPrivilege, match=f"role {name} may not search"):
            ask(database, "text", role=name)
        assert ask(database, "twins") == [("one",), ("two",)]


@pytest.mark.parametrize("group", ["livedex_owner", "livedex_query"])
def test_owners_and_query_workers_search_everything(fed: Fed, group: str) -> None:
    """Members of livedex_owner and of livedex_query need no access row."""
    with login_role(fed.workers.database_url, group) as (_, url):
        assert ask(url, "twins") == [("one",), ("two",)]


def ask(url: str, query: str, role: str | None = None) -> list[tuple[Any, ...]]:
    """Search as whom the URL names, after SET ROLE if a role is given."""
    with psycopg.connect(url) as connection:
        if role:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        return connection.execute(SEARCH, (query,)).fetchall()


def test_a_role_without_livedex_search_may_call_nothing(fed: Fed) -> None:
    """The functions are not for everybody."""
    with login_role(fed.workers.database_url) as (_, url), pytest.raises(errors.InsufficientPrivilege):
        ask(url, "text")


def test_a_search_role_reads_no_table_and_no_view(fed: Fed) -> None:
    """Everything in the schema but the four functions is closed to livedex_search."""
    relations = [
        name
        for (name,) in fed.rows(
            "select relname from pg_class where relnamespace = 'livedex'::regnamespace and relkind in ('r', 'v')"
        )
    ]
    functions = """
        select proname, has_function_privilege('livedex_search', oid, 'execute')
          from pg_proc where pronamespace = 'livedex'::regnamespace"""
    with (
        login_role(fed.workers.database_url, "livedex_search") as (_, url),
        psycopg.connect(url, autocommit=True) as connection,
    ):
        for relation in relations:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql.SQL("select from {} limit 1").format(sql.Identifier("livedex", relation)))
    open_to_it = {name for name, may in fed.rows(functions) if may}
    assert len(relations) > 15
    assert open_to_it == {"active_generation", "embed", "search", "search_vector", "wait_for"}


def test_a_search_cannot_be_led_astray_by_the_callers_search_path(fed: Fed) -> None:
    """Operators that a caller puts in front of Postgres's own are not called with the owner's rights."""
    with fed.workers.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("create schema trap")
        connection.execute("grant usage on schema trap to public")
        for kind, operator in (("text", "="), ("jsonb", "@>"), ("bigint", "=")):
            arguments = f"{kind}, {kind}"
            body = "returns boolean language plpgsql as $$ begin raise 'trapped'; end $$"
            connection.execute(sql.SQL(f"create function trap.spring({arguments}) {body}"))
            operands = f"leftarg = {kind}, rightarg = {kind}, function = trap.spring"
            connection.execute(sql.SQL(f"create operator trap.{operator} ({operands})"))
        connection.execute("set local search_path = trap, pg_catalog, public")
        with pytest.raises(errors.RaiseException, match="trapped"), connection.transaction():
            connection.execute("select 'a'::text = 'b'::text")
        assert connection.execute(SEARCH, ("twins",)).fetchall() == [("one",), ("two",)]


def test_nothing_made_in_the_schema_of_pgvector_runs_as_the_owner(fed: Fed) -> None:
    """A function there that fits a call better than Postgres's own is not called: others may be allowed to create in it."""
    with fed.workers.connect() as connection, connection.transaction(force_rollback=True):
        for signature, result in (("quote_ident(name)", "text"), ("cardinality(livedex.search_result[])", "int")):
            body = f"returns {result} language plpgsql as $$ begin raise 'trapped'; end $$"
            connection.execute(sql.SQL(f"create function public.{signature} {body}"))
        with pytest.raises(errors.RaiseException, match="trapped"), connection.transaction():
            connection.execute("select quote_ident('a'::name)")
        assert connection.execute(SEARCH, ("twins",)).fetchall() == [("one",), ("two",)]
        with pytest.raises(errors.UndefinedObject), connection.transaction():
            connection.execute("select * from livedex.search_vector(null, mode => 'text', query => 'x', collection => 'none')")


def test_one_signature_a_function() -> None:
    """The contract's functions have no overloads."""
    files = Path(__file__).parents[2] / "schema" / "sql"
    text = "".join(path.read_text() for path in files.glob("*.sql"))
    for name in ("search", "search_vector", "wait_for"):
        assert text.count(f"create function livedex.{name}(") == 1
