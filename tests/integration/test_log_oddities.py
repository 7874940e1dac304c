"""What a log may hold besides plain records: transactions, gaps, and batches that cannot be taken apart."""

import gzip
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.record import default_records

from livedex import unpacking
from livedex.config import KafkaSettings
from livedex.doctor.kafka import KafkaChecks
from livedex.index.app import IndexApp
from livedex.kafka import LogEnds
from support.kafka import Log
from support.waiting import until
from support.workers import Workers


@pytest.fixture
def transactional(workers: Workers) -> Iterator[KafkaProducer]:
    """A producer that writes in transactions."""
    producer = KafkaProducer(bootstrap_servers=workers.stack.kafka_bootstrap_servers, transactional_id="test-oddities")
    producer.init_transactions()
    yield producer
    producer.close(timeout=5)


def test_what_a_transaction_took_back_never_happened(workers: Workers, log: Log, transactional: KafkaProducer) -> None:
    """Events of an aborted transaction are not indexed, those of a committed one are, and the progress passes the markers, so
    that nothing looks late.
    """
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)
    transactional.begin_transaction()
    transactional.send(topic, key=b"never", value=b'{"text": "A text that was taken back."}').get(timeout=20)
    transactional.abort_transaction()
    transactional.begin_transaction()
    place = transactional.send(topic, key=b"real", value=b'{"text": "A text that stays."}').get(timeout=20)
    transactional.commit_transaction()
    workers.caught_up(topic, {0: place.offset + 2})  # the marker of the commit is behind it
    assert workers.rows("select document_id from livedex.documents") == [("real",)]
    until(lambda: worker.metrics().value("livedex_offset_lag", topic=topic) == 0, what="the lag to be 0")
    assert worker.metrics().value("livedex_staleness_seconds", topic=topic) == 0
    assert worker.stop() == 0


class Raw(str):
    """A header's name of bytes that are no UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """As other producers write it."""
        del encoding, errors
        return b"\xff\xfe"


@pytest.mark.accept
def test_a_batch_that_cannot_be_taken_apart_is_one_dead_letter(workers: Workers, log: Log) -> None:
    """A header's name that is no UTF-8 makes the client fail on its batch: that is kept as a dead letter with its bytes, what
    stands before and behind it is applied, and another partition never waits.
    """
    topic = log.topic(2)
    config = workers.config(topic)
    workers.apply(config)
    log.send(topic, {"id": "before", "text": "A text."}, partition=0)
    bad = log.send(topic, {"id": "bad", "text": "A text."}, partition=0, headers=[(Raw("x"), b"1")])
    end = log.send(topic, {"id": "after", "text": "A text."}, partition=0).offset + 1
    other = log.send(topic, {"id": "other", "text": "A text."}, partition=1).offset + 1
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: end, 1: other})
    assert {row[0] for row in workers.rows("select document_id from livedex.documents")} == {"before", "after", "other"}
    letters = workers.rows('select "offset", reason, stage, value, detail from livedex.dead_letter')
    assert [letter[:3] for letter in letters] == [(bad.offset, "unreadable", "decode")]
    assert b'"id": "bad"' in letters[0][3] or b"bad" in letters[0][3]
    assert f"offsets {bad.offset} to {bad.offset}" in letters[0][4]
    assert worker.stop() == 0


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_a_batch_that_would_unpack_to_too_much_is_a_dead_letter(
    workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """A few kilobytes in the log that would be gigabytes in memory: their place is passed, and what follows is indexed."""
    monkeypatch.setattr(unpacking, "MOST_BYTES", 4 * 2**20)
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    bomb(workers, topic, codec)
    log.send(topic, {"id": "after", "text": "A text that comes after it."})
    with workers.in_thread(IndexApp(workers.settings(config))):
        workers.caught_up(topic, {0: 2})
    assert workers.rows("select document_id from livedex.documents") == [("after",)]
    ((reason, detail),) = workers.rows("select reason, detail from livedex.dead_letters")
    assert reason == "unreadable"
    assert "unpacked it would have more than 4194304 bytes" in detail


def bomb(workers: Workers, topic: str, codec: str = "gzip", partition: int = 0) -> None:
    """Put a batch of 8 MiB into a topic's partition, packed."""
    producer = KafkaProducer(
        bootstrap_servers=workers.stack.kafka_bootstrap_servers, compression_type=codec, max_request_size=2**26
    )
    try:
        producer.send(topic, key=b"bomb", value=b" " * (8 * 2**20), partition=partition).get(timeout=20)
    finally:
        producer.close(timeout=5)


def test_who_only_looks_at_the_log_unpacks_no_more(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query worker and `livedex status`, whose process may index nothing: the age of what such a batch begins with is not
    known, and that of the other partitions is.
    """
    monkeypatch.setattr(unpacking, "MOST_BYTES", 4 * 2**20)
    monkeypatch.setattr(default_records, "gzip_decode", gzip.decompress)  # as in a process that has not asked Kafka yet
    topic = log.topic(4)
    packed, plain, empty, behind = (TopicPartition(topic, number) for number in range(4))
    bomb(workers, topic)
    late = int(time.time() - 100)
    for partition in (plain, behind):
        log.send(topic, {"id": "a", "text": "A text."}, partition=partition.partition, timestamp_ms=1000 * late)
    bomb(workers, topic, partition=behind.partition)
    positions = {packed: 0, plain: 0, empty: 0, behind: 0}
    ends = LogEnds.ask(kafka_of(workers), positions, patience=5)
    assert dict(ends.lag) == {packed: 1, plain: 1, empty: 0, behind: 2}
    assert dict(ends.oldest) == {plain: late, behind: late}
    assert ends.staleness(packed, late + 100) is None


def test_the_doctor_unpacks_no_more_either(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest record of a topic is that of the partitions that can be read."""
    monkeypatch.setattr(unpacking, "MOST_BYTES", 4 * 2**20)
    monkeypatch.setattr(default_records, "gzip_decode", gzip.decompress)
    topic = log.topic(2)
    bomb(workers, topic)
    log.send(topic, {"id": "a", "text": "A text."}, partition=1, timestamp_ms=int(1000 * (time.time() - 100)))
    checks, sources = KafkaChecks(kafka_of(workers)), cast("Any", {topic: None})
    try:
        assert checks.newest(sources) == {topic: pytest.approx(-100, abs=30)}
    finally:
        checks.close()


def kafka_of(workers: Workers) -> KafkaSettings:
    """Of these workers."""
    return KafkaSettings(bootstrap_servers=workers.stack.kafka_bootstrap_servers)
