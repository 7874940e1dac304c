"""What is in the way of the upkeep, on a real Postgres: it holds up nothing but itself, is told, and does no harm."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from psycopg import errors, sql

from livedex import status
from livedex.catalogue import Generation
from livedex.config import KafkaSettings
from livedex.database import Connection
from livedex.index import maintain_index
from livedex.index.maintain_session import UpkeepSession
from livedex.lifecycle import Stop
from support.synthetic import build_index, connection_to, create_collection, fill
from support.upkeep import FAST, INDEXES, documents, filled, looked, old_reader, upkeep
from support.waiting import until

READY = [("embedding_1_hnsw", True)]
CHUNKS = "select count(*) from livedex.chunk"


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A superuser's."""
    with connection_to(database_url) as own:
        yield own


@pytest.fixture
def generation(connection: Connection) -> Generation:
    """A collection of 100 documents without a vector index and without a grace."""
    made = create_collection(connection, "default", model="hash-8", orphan_grace="0s")
    filled(connection, made, documents(100, 8))
    return made


@pytest.fixture
def index(generation: Generation, connection: Connection) -> None:
    """Its vector index."""
    build_index(connection, generation)


def one(connection: Connection, statement: str) -> Any:
    """The value that a query gives."""
    row = connection.execute(statement).fetchone()
    return row and row[0]


def problem(connection: Connection) -> str:
    """What `livedex status` says is in the way."""
    return str(status.read(connection)["collections"][0]["index"]["problem"])


def test_a_build_that_waits_holds_up_nothing_else(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection
) -> None:
    """While it waits for an old transaction chunks are collected, and the share without a document is measured."""
    with old_reader(database_url), upkeep(database_url, kafka_settings) as maintainer:
        until(lambda: connection.execute(INDEXES).fetchall() == [("embedding_1_hnsw", False)], what="the build to wait")
        connection.execute("delete from livedex.document_chunk where doc_key <= 10")
        until(lambda: one(connection, CHUNKS) == 90, what="the orphans to be collected")
        until(lambda: one(connection, "select unmapped from livedex.upkeep") == 0.0, what="the share to be measured")
        assert connection.execute(INDEXES).fetchall() == [("embedding_1_hnsw", False)]
        assert maintainer._keeper.running


@pytest.mark.usefixtures("index")
def test_a_probe_that_takes_too_long_has_no_answer(
    database_url: str, kafka_settings: KafkaSettings, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is canceled, asked again only when it is its turn, and the rest of the upkeep goes on."""
    pace = replace(FAST, probe_limit=0.001, probe=3600.0, first_probe=3600.0)
    with upkeep(database_url, kafka_settings, pace) as maintainer:
        connection.execute("delete from livedex.document_chunk where doc_key <= 10")
        until(lambda: one(connection, CHUNKS) == 90, what="the orphans to be collected")
        looked(maintainer)
        assert one(connection, "select recall from livedex.upkeep") is None
        assert problem(connection) == "None"
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("upkeep.probe_unanswered") == 1


def test_a_collection_that_fails_does_not_stop_the_others(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What Postgres gives up of one is noted there; another one is measured, and chunks of both are collected."""
    fill(connection, create_collection(connection, "other", model="hash-8"), documents(10, 8, prefix="other"))
    plain = UpkeepSession.rows

    def rows(session: UpkeepSession, name: str, arguments: Any = None, **names: str) -> list[dict[str, Any]]:
        if names.get("embeddings") == "embedding_1":
            raise errors.QueryCanceled("canceling statement due to statement timeout")
        return plain(session, name, arguments, **names)

    monkeypatch.setattr(UpkeepSession, "rows", rows)
    with upkeep(database_url, kafka_settings):
        connection.execute("delete from livedex.document_chunk where doc_key <= 10")
        until(lambda: one(connection, CHUNKS) == 100, what="the orphans to be collected")
        until(lambda: one(connection, "select unmapped from livedex.upkeep where generation_id = 2") == 0.0, what="the share")
        until(lambda: "gave a statement up" in problem(connection), what="the problem of the first")
        assert one(connection, "select problem from livedex.upkeep where generation_id = 2") is None


@pytest.mark.usefixtures("index")
def test_a_recall_is_told_when_enough_was_asked(
    database_url: str, kafka_settings: KafkaSettings, connection: Connection
) -> None:
    """Probes of one query each are added up, also over workers, until they are as many as say something; then anew."""
    single = replace(FAST, probe_queries=1, first_probe=0.0, least_queries=10**6)
    asked = "select probe_queries from livedex.upkeep"
    with upkeep(database_url, kafka_settings, single) as maintainer:
        until(lambda: (one(connection, asked) or 0) > 3, what="some probes")
        looked(maintainer)
        assert one(connection, "select recall from livedex.upkeep") is None
    before = one(connection, asked)
    with upkeep(database_url, kafka_settings, replace(single, least_queries=before + 3)):
        until(lambda: one(connection, "select recall from livedex.upkeep") == 1.0, what="the recall")
        assert one(connection, "select first_recall from livedex.upkeep") == 1.0
        assert one(connection, asked) < before


@pytest.mark.usefixtures("index")
def test_an_index_that_was_mended_meanwhile_is_not_dropped(
    database_url: str, generation: Generation, connection: Connection
) -> None:
    """What was not valid when it was seen, and is when it is to be dropped, stays, under its name."""
    valid = "update pg_index set indisvalid = %s where indexrelid = 'livedex.embedding_1_hnsw'::regclass"
    connection.execute(valid, (False,))
    session = UpkeepSession(database_url, "test", Stop())
    (kept,) = session.generations()
    assert kept.left_over == ["embedding_1_hnsw"]
    connection.execute(valid, (True,))
    maintain_index._drop(session, kept)
    assert connection.execute(INDEXES).fetchall() == READY
    connection.execute(valid, (False,))
    maintain_index._drop(session, kept)
    assert connection.execute(INDEXES).fetchall() == []
    session.close()


def set_database(connection: Connection, **settings: str) -> None:
    """Set these for every session to come."""
    name = sql.Identifier(connection.info.dbname)
    for setting, value in settings.items():
        connection.execute(sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), sql.Literal(value)))


def test_a_build_that_lacks_shared_memory_is_repeated_by_one_process(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What the first left is dropped, and the index built without parallel workers."""
    set_database(connection, maintenance_work_mem="1000GB", min_parallel_table_scan_size="0")
    with upkeep(database_url, kafka_settings, replace(FAST, build_pause=3600.0, longest_pause=3600.0)):
        until(lambda: connection.execute(INDEXES).fetchall() == READY, what="the index")
        until(lambda: problem(connection) == "None", what="the problem to be gone")
    logged = capsys.readouterr()
    assert "could not resize shared memory" in logged.out + logged.err


FAILS = """
    create sequence livedex.tries;
    create function livedex.fail() returns event_trigger language plpgsql security definer as
      $$ begin perform nextval('livedex.tries'); raise 'no room for it'; end $$;
    create event trigger no_index on ddl_command_start when tag in ('CREATE INDEX') execute function livedex.fail()"""


def test_a_build_that_fails_is_told_and_waits(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection
) -> None:
    """`livedex status` says why there is no index as long as there is none; it is not tried at every look; then it is built."""
    connection.execute(FAILS)
    with upkeep(database_url, kafka_settings, replace(FAST, build_pause=3600.0, longest_pause=3600.0)) as maintainer:
        until(lambda: "to build the vector index fails" in problem(connection), what="the problem")
        looked(maintainer)
        assert "no room for it" in problem(connection)
        assert one(connection, "select last_value from livedex.tries") == 1
    with upkeep(database_url, kafka_settings):
        until(lambda: one(connection, "select last_value from livedex.tries") > 3, what="some tries")
        connection.execute("drop event trigger no_index")
        until(lambda: connection.execute(INDEXES).fetchall() == READY, what="the index")
        until(lambda: problem(connection) == "None", what="the problem to be gone")


def test_a_build_has_memory_by_its_size(database_url: str, connection: Connection) -> None:
    """As much as it asks for, no less than the server gives anyhow, no more than the server has for its buffers."""
    session = UpkeepSession(database_url, "test", Stop())

    def given(memory: int) -> int:
        with session.building(memory, parallel=True):
            return int(one(session._connection, "select pg_size_bytes(current_setting('maintenance_work_mem'))"))

    buffers = one(connection, "select pg_size_bytes(current_setting('shared_buffers'))")
    least = one(connection, "select pg_size_bytes(current_setting('maintenance_work_mem'))")
    assert least < buffers
    assert given(0) == least
    assert given(least + 2**20) == least + 2**20
    assert given(10**13) == buffers
    assert one(session._connection, "select pg_size_bytes(current_setting('maintenance_work_mem'))") == least
    session.close()


@pytest.mark.usefixtures("index")
def test_autovacuum_does_not_come_before_a_rebuild(
    database_url: str, kafka_settings: KafkaSettings, connection: Connection
) -> None:
    """Where the upkeep may rebuild, autovacuum of the vectors comes later than that; what an operator set beyond it stays."""
    factor = "select reloptions::text from pg_class where oid = 'livedex.embedding_1'::regclass"
    assert "=0.05" in one(connection, factor)
    with upkeep(database_url, kafka_settings):
        until(lambda: "=0.2" in one(connection, factor), what="the factor to be set")
    connection.execute("alter table livedex.embedding_1 set (autovacuum_vacuum_scale_factor = 0.1)")
    with upkeep(database_url, kafka_settings) as maintainer:
        looked(maintainer)
    assert "=0.1" in one(connection, factor)


@pytest.mark.usefixtures("index")
def test_too_many_orphans_go_before_their_grace(
    database_url: str, kafka_settings: KafkaSettings, connection: Connection
) -> None:
    """The oldest first, until the share that no document has is as large as it may be; the others have their grace."""
    connection.execute("update livedex.collection set orphan_grace = '1 hour'")
    connection.execute("delete from livedex.document_chunk where doc_key <= 50")
    with upkeep(database_url, kafka_settings, replace(FAST, least_grace=60.0, early_from=0)) as maintainer:
        until(lambda: one(connection, "select count(*) from livedex.chunk_orphan") == 50, what="the orphans to be noted")
        looked(maintainer)
        assert one(connection, CHUNKS) == 100  # they may be staged for a batch in flight
        noted = connection.execute("select chunk_key from livedex.chunk_orphan order by chunk_key").fetchall()
        aged = "update livedex.chunk_orphan set since = now() - interval '2 minutes' - chunk_key * interval '1 second'"
        connection.execute(aged)
        until(lambda: one(connection, CHUNKS) == 62, what="the oldest to be collected")
        looked(maintainer)
    left = connection.execute("select chunk_key from livedex.chunk_orphan order by chunk_key").fetchall()
    assert left == noted[:12]  # the later the key, the older
    assert one(connection, "select unmapped from livedex.upkeep") <= 0.2
