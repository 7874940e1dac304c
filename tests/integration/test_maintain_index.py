"""The vector index of a generation on a real Postgres: built behind the rows, once, and mended when interrupted."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pgvector import Vector

from livedex import status
from livedex.catalogue import Generation
from livedex.config import KafkaSettings
from livedex.database import WRITER_SETTINGS, Connection, PatientConnection
from livedex.index import maintain_session
from livedex.index.app import IndexApp
from livedex.lifecycle import Stop
from support.database import login_role
from support.kafka import Log
from support.synthetic import connection_to, create_collection, gaussian
from support.upkeep import FAST, INDEXES, blocked_build, cancel, documents, filled, looked, old_reader, upkeep
from support.waiting import until
from support.workers import Workers

BUILD = "create index concurrently embedding_1_hnsw on livedex.embedding_1 using hnsw (embedding halfvec_cosine_ops)"
READY = [("embedding_1_hnsw", True)]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A superuser's."""
    with connection_to(database_url) as own:
        yield own


@pytest.fixture
def generation(connection: Connection) -> Generation:
    """A collection of 300 documents without a vector index."""
    made = create_collection(connection, "default", model="hash-8")
    filled(connection, made, documents(300, 8))
    return made


@pytest.fixture
def indexes(connection: Connection) -> Callable[[], list[tuple[Any, ...]]]:
    """What vector indexes there are, and whether they are valid."""
    return lambda: connection.execute(INDEXES).fetchall()


def test_the_index_comes_once_the_collection_is_caught_up(workers: Workers, log: Log) -> None:
    """A worker that read everything builds the index, says that it is ready, and probes it; before, searches compare all."""
    topic = log.topic(2)
    config = workers.config(topic, model="hash-8")
    workers.apply(config)
    app = IndexApp(workers.settings(config), pace=FAST)
    assert workers.rows(INDEXES) == []
    with workers.in_thread(app):
        places = [log.send(topic, {"id": str(number), "text": f"Text {number}."}) for number in range(10)]
        until(lambda: workers.rows(INDEXES) == READY, what="the index")
        workers.caught_up(topic, {place.partition: place.offset + 1 for place in places})
        ready = app.metrics.index_ready.labels("default")
        until(lambda: ready._value.get() == 1, what="the gauge")
        until(lambda: app.metrics.index_recall.labels("default")._value.get() == 1.0, what="a probe that finds everything")


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("storage", ["halfvec", "vector"])
def test_each_metric_and_storage_has_its_index(
    connection: Connection, database_url: str, kafka_settings: KafkaSettings, metric: str, storage: str,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """The operator class is that of the metric and the type, and the probe finds the nearest by them."""
    made = create_collection(connection, "default", model="hash-8", metric=metric, storage=storage)
    filled(connection, made, documents(50, 8))
    with upkeep(database_url, kafka_settings):
        until(lambda: indexes() == READY, what="the index")
        recall = "select recall from livedex.upkeep"
        until(lambda: connection.execute(recall).fetchone() == (1.0,), what="a probe")
    definition = connection.execute("select indexdef from pg_indexes where indexname = 'embedding_1_hnsw'").fetchone()
    operators = {"cosine": "cosine", "dot": "ip", "l2": "l2"}[metric]
    assert definition is not None
    assert f"{storage}_{operators}_ops" in definition[0]


def test_the_index_of_storage_bit_has_the_signs(
    connection: Connection, database_url: str, kafka_settings: KafkaSettings, indexes: Callable[[], list[Any]]
) -> None:
    """It is made over the signs alone, and the probe, which ranks what it finds by the vectors, finds the nearest."""
    made = create_collection(connection, "default", model="hash-64", storage="bit")
    filled(connection, made, documents(300, 64))
    with upkeep(database_url, kafka_settings):
        until(lambda: indexes() == READY, what="the index")
        recall = "select recall from livedex.upkeep"
        until(lambda: connection.execute(recall).fetchone() == (1.0,), what="a probe")
    definition = connection.execute("select indexdef from pg_indexes where indexname = 'embedding_1_hnsw'").fetchone()
    assert definition is not None
    assert "binary_quantize(embedding))::bit(64)) bit_hamming_ops" in definition[0]


def test_a_backfill_has_no_index_before_it_has_rows(
    workers: Workers, log: Log, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """While the log has more than was read, or nobody can say, there is no index until the vectors are many."""
    topic = log.topic(2)
    for number in range(4):
        log.send(topic, {"id": str(number), "text": "A text."}, partition=number % 2)
    source = "insert into livedex.source (topic, collection_id) values (%s, %s)"
    connection.execute(source, (topic, generation.collection_id))
    progress = "insert into livedex.source_progress (topic, partition, next_offset, owner) values (%s, %s, %s, 'me')"
    connection.execute(progress, (topic, 0, 2))
    with upkeep(workers.database_url, kafka_settings, replace(FAST, build_rows=301)) as maintainer:
        looked(maintainer)
        connection.execute(progress, (topic, 1, 1))
        looked(maintainer)
        assert indexes() == []
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    connection.execute("update livedex.source_progress set next_offset = 2")
    with upkeep(workers.database_url, nowhere, replace(FAST, build_rows=301)) as maintainer:
        looked(maintainer, 2)
        assert indexes() == []
    with upkeep(workers.database_url, nowhere, replace(FAST, build_rows=300)):
        until(lambda: indexes() == READY, what="the index")


def test_an_interrupted_build_is_repeated(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """What a build left that was cancelled is dropped, and the index built."""
    with blocked_build(database_url, BUILD):
        cancel(database_url, "by-hand")
        until(lambda: connection.execute(WAITING).fetchone() == (0,), what="the build to end")
    assert indexes() == [("embedding_1_hnsw", False)]
    with upkeep(database_url, kafka_settings):
        until(lambda: indexes() == READY, what="the index")


WAITING = "select count(*) from pg_stat_activity where application_name = 'by-hand' and state = 'active'"


def test_a_build_under_way_is_left_alone(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """An index that somebody else builds is not valid yet, and neither dropped nor built a second time."""
    with blocked_build(database_url, BUILD) as failures:
        identity = connection.execute("select 'livedex.embedding_1_hnsw'::regclass::oid").fetchone()
        with upkeep(database_url, kafka_settings) as maintainer:
            looked(maintainer)
        assert indexes() == [("embedding_1_hnsw", False)]
    assert not failures
    with upkeep(database_url, kafka_settings) as maintainer:
        looked(maintainer)
    assert indexes() == READY
    assert connection.execute("select 'livedex.embedding_1_hnsw'::regclass::oid").fetchone() == identity


def test_what_an_interrupted_rebuild_left_is_dropped_beside_the_valid_index(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """The index that REINDEX CONCURRENTLY began goes; the valid one is the same as before, and what has another name
    is an operator's.
    """
    connection.execute(BUILD)
    connection.execute(BUILD.replace("embedding_1_hnsw", "by_an_operator"))
    connection.execute(BUILD.replace("embedding_1_hnsw", "half_built"))
    connection.execute("update pg_index set indisvalid = false where indexrelid = 'livedex.half_built'::regclass")
    valid = "select v.name, v.name::text::regclass::oid from livedex.vector_indexes v where v.valid order by v.name"
    connection.execute("set search_path = livedex, public")
    before = connection.execute(valid).fetchall()
    with blocked_build(database_url, "reindex index concurrently livedex.embedding_1_hnsw"):
        cancel(database_url, "by-hand")
        until(lambda: connection.execute(WAITING).fetchone() == (0,), what="the rebuild to end")
    assert ("embedding_1_hnsw_ccnew", False) in indexes()
    kept = [("by_an_operator", True), *READY, ("half_built", False)]
    with upkeep(database_url, kafka_settings) as maintainer:
        until(lambda: indexes() == kept, what="the leftover to be dropped")
        looked(maintainer)
        assert indexes() == kept
    assert connection.execute(valid).fetchall() == before


def test_one_worker_does_the_upkeep_and_another_takes_over(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection
) -> None:
    """Of two workers one is elected; when its session ends, whatever its process does, the other one takes over."""
    names = "select worker from livedex.upkeep"
    backends = "select count(*) from pg_stat_activity where application_name in ('first-upkeep', 'second-upkeep')"
    with upkeep(database_url, kafka_settings, name="first") as first:
        until(lambda: connection.execute(names).fetchone() == ("first",), what="the first to be elected")
        with upkeep(database_url, kafka_settings, name="second") as second:
            looked(first)
            looked(second)
            assert connection.execute(names).fetchone() == ("first",)
            assert connection.execute(backends).fetchone() == (2,)
            slow = replace(FAST, look=60.0)
            first._pace = slow  # so that the other is there earlier
            looked(first, 1)
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'first-upkeep'")
            until(lambda: connection.execute(names).fetchone() == ("second",), what="the second to take over")


def test_a_stop_cancels_a_build(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """A worker that is asked to stop does not wait for its build; the next one repeats it."""
    stop = Stop()
    with old_reader(database_url):
        with upkeep(database_url, kafka_settings, stop=stop) as maintainer:
            until(lambda: indexes() == [("embedding_1_hnsw", False)], what="the build to wait")
            stop.ask("the test wants it")
            maintainer.join(3)
            assert not maintainer.running
        sessions = "select count(*) from pg_stat_activity where application_name like 'me-upkeep%'"
        until(lambda: connection.execute(sessions).fetchone() == (0,), timeout=5, what="its session to end")
    with upkeep(database_url, kafka_settings):
        until(lambda: indexes() == READY, what="the index")


@pytest.mark.accept
def test_a_worker_ends_in_time_while_it_builds(workers: Workers, log: Log) -> None:
    """SIGTERM during a build ends the process with 0 within ten seconds."""
    topic = log.topic()
    config = workers.config(topic, model="hash-8")
    workers.apply(config)
    worker = workers.start("index", config)
    place = log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {0: place.offset + 1})
    with old_reader(workers.database_url):
        until(lambda: workers.rows(INDEXES) == [("embedding_1_hnsw", False)], what="the build to wait")
        assert worker.stop() == 0
    assert workers.rows(INDEXES) == [("embedding_1_hnsw", False)]


def test_a_build_waits_as_long_as_it_takes(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The limits of other statements, and the patience with a server that says nothing, are not those of a build."""
    short = {**WRITER_SETTINGS, "lock_timeout": "1s", "statement_timeout": "1s"}
    monkeypatch.setattr(maintain_session, "WRITER_SETTINGS", short)
    monkeypatch.setattr(PatientConnection, "patience", 2.0)
    builder = "select pid from pg_stat_activity where application_name = 'me-upkeep-index' and wait_event = 'virtualxid'"
    with upkeep(database_url, kafka_settings):
        with old_reader(database_url):
            until(lambda: connection.execute(builder).fetchone(), what="the build to wait")
            first = connection.execute(builder).fetchone()
            patient = f"{builder} and query_start < clock_timestamp() - interval '3 seconds'"
            until(lambda: connection.execute(patient).fetchone() == first, timeout=10, what="the build to have waited long")
        until(lambda: indexes() == READY, what="the index")
    assert connection.execute("select deleted from livedex.upkeep where built_at is not null").fetchone() == (0,)


def test_a_build_does_not_outlive_its_worker(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection,
    indexes: Callable[[], list[Any]],
) -> None:  # fmt: skip
    """When the building worker vanishes without a word, Postgres ends its session soon, and another worker builds the index."""
    builder = "select pid from pg_stat_activity where application_name = 'me-upkeep-index' and wait_event = 'virtualxid'"
    with upkeep(database_url, kafka_settings) as maintainer:
        with old_reader(database_url):
            until(lambda: connection.execute(builder).fetchone(), what="the build to wait")
            first = connection.execute(builder).fetchone()
            assert maintainer._keeper._session is not None
            with socket.socket(fileno=os.dup(maintainer._keeper._session._connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
            until(lambda: connection.execute(builder).fetchone() not in (None, first), timeout=10, what="another build")
        until(lambda: indexes() == READY, what="the index")


def test_the_status_says_how_the_index_is(
    database_url: str, kafka_settings: KafkaSettings, generation: Generation, connection: Connection
) -> None:
    """None, building with the transaction that it waits for, invalid, ready; and who does the upkeep, while somebody does."""

    def index() -> dict[str, Any]:
        found: dict[str, Any] = status.read(connection)["collections"][0]["index"]
        return found

    assert (index()["state"], index()["worker"]) == ("none", None)
    with old_reader(database_url) as old, upkeep(database_url, kafka_settings, name="the-worker"):
        until(lambda: index()["waits_for"], what="the build to wait")
        found = index()
        assert (found["state"], found["worker"], found["problem"]) == ("building", "the-worker", None)
        assert found["waits_for"]["pid"] == old.info.backend_pid
        assert found["waits_for"]["application"] == "the-old-one"
        (remark,) = status.remarks({"collection": "default", "index": found, "generations": []})
        assert f"waits for a transaction of the-old-one (pid {old.info.backend_pid}) since 20" in remark
        assert status.describe_index(found) == f"building, {found['phase']}"
    assert (index()["state"], index()["worker"]) == ("invalid", None)
    without = status.remarks({"collection": "default", "index": index(), "generations": []})
    assert without == ["index of default: no worker does the upkeep"]
    with upkeep(database_url, kafka_settings):
        until(lambda: index()["state"] == "ready", what="the index")
        until(lambda: index()["recall"] == 1.0, what="a probe")


def test_a_worker_without_the_right_says_so_and_goes_on(
    workers: Workers, log: Log, generation: Generation, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a member of livedex_indexer alone a worker indexes, collects and is ready; it names the grant once, and builds
    the index after it.
    """
    topic = log.topic()
    config = workers.config(topic, model="hash-8", orphan_grace="0s")
    workers.apply(config)
    with login_role(workers.database_url, "livedex_indexer") as (role, url):
        app = IndexApp(workers.settings(config, database_url=url), pace=FAST)
        with workers.in_thread(app):
            place = log.send(topic, {"id": "a", "text": "The first text."})
            workers.caught_up(topic, {0: place.offset + 1})
            place = log.send(topic, {"id": "a", "text": "The second text."})
            workers.caught_up(topic, {0: place.offset + 1})
            gone = "select count(*) from livedex.chunk where text = 'The first text.'"
            until(lambda: workers.rows(gone) == [(0,)], what="the orphan to be collected")
            problem = "select problem from livedex.upkeep"
            until(lambda: f"GRANT livedex_owner TO {role}" in str(workers.rows(problem)), what="the problem to be noted")
            assert app.health.waiting_for == []
            assert workers.rows(INDEXES) == []
            connection.execute(psycopg.sql.SQL("grant livedex_owner to {}").format(psycopg.sql.Identifier(role)))
            until(lambda: workers.rows(INDEXES) == READY, what="the index after the grant")
            until(lambda: workers.rows(problem) == [(None,)], what="the problem to be gone")
    logged = capsys.readouterr()
    assert (logged.out + logged.err).count("upkeep.fails") == 1


def test_searches_without_an_index_compare_all(connection: Connection, database_url: str) -> None:
    """Where there is no valid index, a search among more chunks than it would compare otherwise is exact, and joins the map
    once instead of asking it for every vector.
    """
    made = create_collection(connection, "default", model="hash-8")
    every = documents(6000, 8)
    filled(connection, made, every)
    before = map_scans(connection, database_url)
    for query in gaussian(9, 5, 8):
        statement = "select document_id from livedex.search_vector(%s, mode => 'vector')"
        found = connection.execute(statement, (Vector(query),)).fetchall()
        cosine = {d.name: float(query @ d.pieces[0].vector) / float(sum(d.pieces[0].vector ** 2) ** 0.5) for d in every}
        assert [name for (name,) in found] == sorted(cosine, key=lambda name: -cosine[name])[:10]
    assert map_scans(connection, database_url) - before < 1000


def map_scans(connection: Connection, url: str) -> int:
    """How often the map was asked for a chunk, as another session sees it."""
    connection.execute("select pg_stat_force_next_flush()")
    statement = "select idx_scan from pg_stat_user_indexes where indexrelname = 'document_chunk_chunk_idx'"
    with psycopg.connect(url) as other:
        row = other.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def test_frequent_words_follow_the_statistics(
    connection: Connection, generation: Generation, kafka_settings: KafkaSettings, database_url: str
) -> None:
    """A worker with the role of the index worker notes which words are frequent after each ANALYZE, without being asked."""

    def share(word: str) -> float | None:
        row = connection.execute("select share from livedex.frequent_word where word = %s", (word,)).fetchone()
        return row[0] if row else None

    with login_role(database_url, "livedex_indexer") as (_, url), upkeep(url, kafka_settings):
        until(lambda: share("dragon"), what="the words to be noted")
        assert share("seldom") is None
        connection.execute(
            "insert into livedex.chunk (collection_id, digest, context, text, tsv) "
            "select %s, sha256(i::text::bytea), '', 'seldom', to_tsvector('english', 'seldom ' || i) "
            "  from generate_series(1, 300) i",
            (generation.collection_id,),
        )
        connection.execute("analyze livedex.chunk")
        until(lambda: share("seldom") == pytest.approx(0.5), what="the new words to be noted")
