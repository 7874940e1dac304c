"""A log that is not what it was stops its source, loudly and alone; `livedex source reset` reads it as a new life of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from livedex.config import KafkaSettings
from livedex.kafka import MAX_REQUEST_BYTES
from support.fold import fold
from support.index import assert_is_fold
from support.kafka import Log
from support.waiting import until
from support.workers import Process, Workers


@pytest.fixture
def admin(kafka_settings: KafkaSettings) -> Any:
    """An admin client."""
    client = KafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap_servers)
    yield client
    client.close()


def two_sources(workers: Workers, log: Log, partitions: int = 1) -> tuple[str, str, Path]:
    """Two topics that feed two collections, both followed."""
    topic, other = log.topic(partitions), log.topic()
    config = workers.config(topic)
    config.write_text(f'{config.read_text()}[collections.other]\n[sources."{other}"]\ncollection = "other"\n')
    workers.apply(config)
    return topic, other, config


def state(workers: Workers, topic: str) -> tuple[str, str]:
    """State of a source, and why."""
    found, reason = workers.rows("select state, coalesce(reason, '') from livedex.source where topic = %s", topic)[0]
    return found, reason


def stopped_with(workers: Workers, topic: str, *words: str) -> Callable[[], bool]:
    """Whether the source is stopped, for this reason, with the remedy."""

    def stopped() -> bool:
        found, reason = state(workers, topic)
        return found == "stopped" and all(word in reason for word in (*words, f"livedex source reset {topic}"))

    return stopped


def make_again(admin: KafkaAdminClient, topic: str, partitions: int = 1) -> None:
    """Delete a topic, and make one of the same name."""
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics(), what="the topic to be gone")
    options = {"max.message.bytes": str(MAX_REQUEST_BYTES)}
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1, topic_configs=options)])
    admin.wait_for_topics([topic])


def assert_says_so(workers: Workers, log: Log, worker: Process, topic: str, other: str) -> None:
    """The log, the gauges and the command line tell of the stop, and another source goes on."""
    until(lambda: "index.source_stopped" in worker.log(), what="the log to say that the source stopped")
    held = {"topic": topic, "reason": "stopped"}
    until(lambda: worker.metrics().value("livedex_paused_partitions", **held) >= 1, what="the gauge")
    assert worker.metrics().value("livedex_paused_partitions", topic=other) == 0, "the other topic is read"
    listed = json.loads(workers.run("source", "list", "--json").stdout)
    assert {row["topic"]: row["state"] for row in listed} == {topic: "stopped", other: "live"}
    workers.caught_up(other, {0: log.send(other, {"id": "elsewhere", "text": "A text."}).offset + 1})


def reset(workers: Workers, config: Path, topic: str, *options: str) -> None:
    """`livedex source reset`, which must pass."""
    done = workers.run("source", "reset", topic, *options, config=config)
    assert done.returncode == 0, done.stderr


@pytest.mark.accept
def test_retention_beyond_the_progress_stops_the_source(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """When the log lost events that were not applied yet, the source stops and grows stale; after a reset the index is the fold
    of what the log has.
    """
    topic, other, config = two_sources(workers, log)
    workers.caught_up_by(config, topic, {0: log.send(topic, {"id": "first", "text": "A text."}).offset + 1})
    for number in range(4):
        log.send(topic, {"id": str(number), "text": f"Text {number}."})
    admin.delete_records({TopicPartition(topic, 0): 3})

    worker = workers.start("index", config)
    until(stopped_with(workers, topic, "begins at offset 3", "stands at 1"), what="the source to be stopped")
    assert_says_so(workers, log, worker, topic, other)
    until(lambda: worker.metrics().value("livedex_staleness_seconds", topic=topic) > 1, what="staleness to rise")
    assert worker.metrics().value("livedex_offset_lag", topic=topic) == 4
    assert workers.rows("select document_id from livedex.documents where collection = 'default'") == [("first",)]

    reset(workers, config, topic)
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    with workers.connect() as connection:
        connection.execute("delete from livedex.collection where name = 'other'")
        assert_is_fold(connection, fold(log.records(topic), numbered_by="log"))
    assert worker.stop() == 0


def test_a_topic_made_anew_is_noticed_and_replaces_the_old_one(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """A topic that is deleted and made again while the worker reads stops the source; after a reset its events win over those
    of the topic before, what only that one had is gone, and its dead letters are closed.
    """
    topic, other, config = two_sources(workers, log)
    worker = workers.start("index", config)
    for number in range(20):
        log.send(topic, {"id": f"old {number}", "text": f"Old text {number}."})
    log.send(topic, {"id": "kept", "text": "The old text."})
    end = log.send(topic, b"no JSON", key="broken").offset + 1
    workers.caught_up(topic, {0: end})

    make_again(admin, topic)
    log.send(topic, {"id": "kept", "text": "The new text."})
    log.send(topic, {"id": "new", "text": "A new document."})
    until(stopped_with(workers, topic), what="the source to be stopped")
    assert_says_so(workers, log, worker, topic, other)
    assert workers.rows("select count(*) from livedex.documents where collection = 'default'") == [(21,)]

    reset(workers, config, topic)
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    found = workers.rows("select document_id, text from livedex.chunks where collection = 'default' order by 1")
    assert found == [("kept", "The new text."), ("new", "A new document.")]
    assert workers.rows("select state from livedex.dead_letter") == [("discarded",)]
    end = log.send(topic, {"op": "delete", "id": "new"}).offset + 1
    workers.caught_up(topic, {0: end})
    assert workers.rows("select document_id from livedex.documents where collection = 'default'") == [("kept",)]
    assert worker.stop() == 0


@pytest.mark.accept
def test_a_topic_replaced_while_nobody_looked_is_not_read(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """A worker that starts on a topic of the same name, with more records than its progress, skips none of them in silence."""
    topic, other, config = two_sources(workers, log)
    workers.caught_up_by(config, topic, {0: log.send(topic, {"id": "old", "text": "The old text."}).offset + 1})
    make_again(admin, topic)
    for number in range(5):
        log.send(topic, {"id": str(number), "text": f"Text {number}."})
    worker = workers.start("index", config)
    until(stopped_with(workers, topic, "deleted and made anew"), what="the source to be stopped")
    assert_says_so(workers, log, worker, topic, other)
    assert workers.rows("select document_id from livedex.documents where collection = 'default'") == [("old",)]


def test_a_topic_that_is_gone_stops_the_source(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """A deleted topic is no reason to forget what was indexed, nor to end."""
    topic, other, config = two_sources(workers, log)
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: log.send(topic, {"id": "old", "text": "The old text."}).offset + 1})
    admin.delete_topics([topic])
    until(stopped_with(workers, topic, "does not exist any more"), what="the source to be stopped")
    workers.caught_up(other, {0: log.send(other, {"id": "elsewhere", "text": "A text."}).offset + 1})
    assert workers.rows("select document_id from livedex.documents where collection = 'default'") == [("old",)]
    assert worker.popen.poll() is None
    refused = workers.run("source", "reset", topic, config=config)
    assert (refused.returncode, f"topic {topic} does not exist" in refused.stderr) == (1, True)


@pytest.mark.accept
def test_partitions_added_stop_a_source_that_counts_by_offsets(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """With versions from the log, keys that move between partitions would be ordered by offsets that do not compare: the source
    stops, a reset of the same topic is refused, and one of the topic made anew is not.
    """
    topic, _, config = two_sources(workers, log, partitions=2)
    worker = workers.start("index", config)
    place = log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {place.partition: place.offset + 1})
    until(lambda: workers.rows("select partitions from livedex.source where topic = %s", topic) == [(2,)], what="the claim")
    admin.create_partitions({topic: NewPartitions(total_count=3)})
    until(stopped_with(workers, topic, "3 partitions", "made from 2"), what="the source to be stopped")

    refused = workers.run("source", "reset", topic, config=config)
    assert (refused.returncode, "older events could win over newer ones" in refused.stderr) == (1, True), refused.stderr
    make_again(admin, topic, partitions=3)
    places = [log.send(topic, {"id": str(number), "text": f"Text {number}."}) for number in range(9)]
    reset(workers, config, topic)
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    workers.caught_up(topic, {place.partition: place.offset + 1 for place in places})
    assert workers.rows("select count(*) from livedex.documents") == [(9,)]
    assert worker.stop() == 0


def test_partitions_added_are_read_where_producers_count(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """With versions from the source a document may move to another partition: the new ones are read, and the newest wins."""
    topic = log.topic(1)
    config = workers.config(topic, client={"metadata_max_age_ms": 500}, versions="source")
    workers.apply(config)
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: log.send(topic, {"id": "a", "version": 1, "text": "The old text."}).offset + 1})
    admin.create_partitions({topic: NewPartitions(total_count=2)})
    until(lambda: admin.describe_topics([topic])[0]["partitions"][1:], what="the new partition")
    with Log(KafkaSettings(bootstrap_servers=workers.stack.kafka_bootstrap_servers)) as fresh:
        place = fresh.send(topic, {"id": "a", "version": 2, "text": "The new text."}, partition=1)
    workers.caught_up(topic, {1: place.offset + 1})
    assert workers.rows("select text from livedex.chunks") == [("The new text.",)]
    assert state(workers, topic) == ("live", "")
    assert worker.stop() == 0


@pytest.mark.accept
def test_a_reset_with_versions_from_the_source(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """Read again with the same versions, the log embeds nothing; with versions that restarted, lower numbers win."""
    topic = log.topic(1)
    config = workers.config(topic, versions="source")
    workers.apply(config)
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: log.send(topic, {"id": "a", "version": 9, "text": "The first text."}).offset + 1})
    reset(workers, config, topic)
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    assert worker.metrics().value("livedex_chunks_total", outcome="embedded") == 1
    make_again(admin, topic)
    until(stopped_with(workers, topic), what="the source to be stopped")
    reset(workers, config, topic, "--versions-restarted")
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    workers.caught_up(topic, {0: log.send(topic, {"id": "a", "version": 2, "text": "The second text."}).offset + 1})
    assert workers.rows("select text from livedex.chunks") == [("The second text.",)]
    assert workers.rows("select epoch from livedex.source") == [(1,)]
    assert worker.stop() == 0


@pytest.mark.accept
def test_a_topic_made_anew_keeps_the_dead_letters_of_the_old_one(workers: Workers, log: Log, admin: KafkaAdminClient) -> None:
    """Where versions go on, so does the epoch: a record at the offset of an old letter neither settles nor replaces it."""
    topic = log.topic(1)
    config = workers.config(topic, versions="source")
    workers.apply(config)
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: log.send(topic, b"no JSON", key="broken").offset + 1})
    make_again(admin, topic)
    log.send(topic, {"id": "a", "version": 1, "text": "Stands where the broken one stood."})
    until(stopped_with(workers, topic), what="the source to be stopped")
    reset(workers, config, topic)
    until(lambda: state(workers, topic)[0] == "live", what="the source to be live again")
    assert workers.rows("select convert_from(value, 'UTF8'), state from livedex.dead_letter") == [("no JSON", "discarded")]
    assert worker.stop() == 0


def test_only_sources_can_be_reset(workers: Workers, log: Log) -> None:
    """A topic that nobody follows is named, with where to look."""
    topic = log.topic()
    done = workers.run("source", "reset", topic)
    assert (done.returncode, done.stderr) == (
        1,
        f"livedex: no collection follows topic {topic}: livedex source list names the sources\n",
    )
