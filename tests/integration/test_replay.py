"""Whole streams through broker and worker end in exactly the fold of the log, whatever kills the worker on the way."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedex.core.record import Record
from support.fold import fold
from support.index import assert_is_fold
from support.kafka import Log
from support.streams import Generator, rust_book
from support.waiting import until
from support.workers import Process, Workers

PARTITIONS = 3
KILLS = 4  # at random moments, before one at a chosen moment
HELD_BACK = 200  # events of the end of the stream, for that one
Published = tuple[list[Record], dict[int, int]]  # records, end offset of each partition


def publish(log: Log, topic: str, events: list[dict[str, Any]]) -> Published:
    """Send everything, and read it back."""
    for event in events:
        log.post(topic, event)
    log.flush()
    records = log.records(topic)
    return records, dict(Counter(record.partition for record in records))


def embedded(worker: Process) -> float:
    """Chunks that this worker has embedded."""
    return worker.metrics().value("livedex_chunks_total", outcome="embedded")


def stored_chunks(workers: Workers) -> int:
    """Rows of the table of chunks."""
    return int(workers.rows("select count(*) from livedex.chunk")[0][0])


def applied(workers: Workers, topic: str) -> int:
    """Offsets that are applied, over all partitions."""
    rows = workers.rows("select coalesce(sum(next_offset), 0) from livedex.progress where topic = %s", topic)
    return int(rows[0][0])


def unmapped_chunks(workers: Workers) -> int:
    """Chunks that are staged and that no document has."""
    statement = "select count(*) from livedex.chunk where chunk_key not in (select chunk_key from livedex.document_chunk)"
    return int(workers.rows(statement)[0][0])


def alone(workers: Workers) -> bool:
    """Whether the killed workers' sessions are gone: until then a statement of theirs may still be carried out."""
    statement = """select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                                                  and backend_type = 'client backend'"""
    return not workers.rows(statement)


def owns_all(workers: Workers, worker: Process, partitions: int) -> bool:
    """Whether this worker has claimed every partition."""
    statement = "select count(*) from livedex.source_progress where owner like %s"
    return workers.rows(statement, f"%-{worker.popen.pid}-%") == [(partitions,)]


def kill_before_an_apply(
    workers: Workers, config: Path, topic: str, ends: dict[int, int], publish: Callable[[], Published]
) -> Published:
    """Start a worker, and, once it is at these ends, SIGKILL it when it has staged chunks of what is published then: its
    progress is locked meanwhile.
    """
    worker = workers.start("index", config)
    until(lambda: owns_all(workers, worker, PARTITIONS), what="every partition to be claimed")
    workers.caught_up(topic, ends)  # a pipeline that is full when the lock comes would stage no more
    with workers.connect() as connection, connection.transaction():
        connection.execute("select from livedex.source_progress for update")
        before = unmapped_chunks(workers)
        published = publish()
        until(lambda: unmapped_chunks(workers) > before, what="chunks that are staged ahead")
        worker.kill()
    until(lambda: alone(workers), what="the killed worker's sessions to end")
    assert unmapped_chunks(workers) > before, "without chunks that only the killed worker knew, the test proves nothing"
    return published


def kill_on_the_way(workers: Workers, config: Path, topic: str, total: int, seed: int) -> None:
    """Start a worker and SIGKILL it, four times, each at a random moment of its share of the stream."""
    choose = random.Random(seed)
    for number in range(KILLS):
        worker = workers.start("index", config)
        goal = total * (number + choose.random()) / (KILLS + 1)
        until(lambda: applied(workers, topic) >= goal, timeout=120, what=f"offset {goal:.0f} to be applied")  # noqa: B023
        worker.kill()


@pytest.mark.accept
def test_five_kills_in_a_real_stream_change_nothing(workers: Workers, log: Log) -> None:
    """A replay of the real stream with five SIGKILLs, the last one between staging and apply, is the fold; no chunk that was
    staged is embedded again; and a second replay of the whole log embeds nothing.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    topic = log.topic(PARTITIONS)
    config = workers.config(topic)
    workers.apply(config)
    events = rust_book()
    early, ends = publish(log, topic, events[:-HELD_BACK])
    kill_on_the_way(workers, config, topic, len(early), seed)
    records, ends = kill_before_an_apply(workers, config, topic, ends, lambda: publish(log, topic, events[-HELD_BACK:]))

    staged = stored_chunks(workers)
    worker = workers.start("index", config)
    workers.caught_up(topic, ends)
    expected = fold(records, numbered_by="log")
    with workers.connect() as connection:
        assert_is_fold(connection, expected)
    until(lambda: embedded(worker) == stored_chunks(workers) - staged, what="only what was not staged to be embedded")
    assert worker.stop() == 0

    workers.rows("update livedex.source_progress set next_offset = 0 returning 1")
    again = workers.start("index", config)
    workers.caught_up(topic, ends)

    def told() -> bool:  # counted once it is committed, so a moment after the progress shows it
        seen = again.metrics()
        outcomes = [seen.value("livedex_events_total", outcome=outcome) for outcome in ("stale", "superseded")]
        return sum(outcomes) == len(records)

    until(told, what="every event to be counted as nothing new")
    assert embedded(again) == 0
    with workers.connect() as connection:
        assert_is_fold(connection, expected)


@pytest.mark.parametrize("versions", ["log", "source"])
def test_a_generated_stream_is_folded(workers: Workers, log: Log, versions: str) -> None:
    """Edits, moves, deletes, metadata, repeated and late events end in the fold, each event is accounted for exactly once, and
    sending everything again with the same versions embeds nothing.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    topic = log.topic(2)
    config = workers.config(topic, versions=versions)
    workers.apply(config)
    events = list(Generator(seed).events(600))
    worker = workers.start("index", config)
    records, ends = publish(log, topic, events)
    workers.caught_up(topic, ends)
    with workers.connect() as connection:
        assert_is_fold(connection, fold(records, numbered_by=versions))
    until(lambda: worker.metrics().value("livedex_events_total") == len(records), what="every event to be counted")
    if versions == "source":
        before = embedded(worker)
        records, ends = publish(log, topic, events)
        workers.caught_up(topic, ends)
        assert embedded(worker) == before
        with workers.connect() as connection:
            assert_is_fold(connection, fold(records, numbered_by="source"))


def test_a_metadata_event_writes_no_chunk_and_no_vector(workers: Workers, log: Log) -> None:
    """A metadata event changes one row of document, and none of chunk, document_chunk and the embedding table."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)
    place = log.send(topic, {"id": "a", "text": "One paragraph.\n\n" * 200, "metadata": {"n": 1}})
    workers.caught_up(topic, {0: place.offset + 1})
    assert worker.stop() == 0  # its statistics are complete once its connections are closed
    before = until(lambda: _writes(workers, inserted=1), what="the statistics of the first event")

    worker = workers.start("index", config)
    place = log.send(topic, {"op": "metadata", "id": "a", "metadata": {"n": 2}})
    workers.caught_up(topic, {0: place.offset + 1})
    assert workers.rows("select metadata from livedex.documents") == [({"n": 2},)]
    assert worker.stop() == 0
    after = until(lambda: _writes(workers, updated=1), what="the statistics of the metadata event")
    untouched = ("chunk", "document_chunk", "embedding_1")
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert before["chunk"][0] > 1


def _writes(workers: Workers, *, inserted: int = 0, updated: int = 0) -> dict[str, tuple[int, ...]]:
    """Rows inserted, updated and deleted by table, once the table document shows at least so many; empty before."""
    rows = workers.rows("select relname, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables where schemaname = 'livedex'")
    found = {row[0]: tuple(row[1:]) for row in rows}
    return found if found["document"][0] >= inserted and found["document"][1] >= updated else {}
