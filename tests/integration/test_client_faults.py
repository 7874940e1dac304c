"""Faults of the pinned Kafka client that are got around; each test fails when its way around is taken away."""

import time

from kafka import TopicPartition

from livedex.config import KafkaSettings
from livedex.index.source import KafkaSource
from support.kafka import Log

SHORT = 0.002  # seconds: a poll that ends in the middle of whatever the client does
JOINS = 5
PATIENCE = 20.0  # seconds


def test_a_join_that_outlives_its_poll_is_finished(kafka_settings: KafkaSettings, log: Log) -> None:
    """A member whose polls are much shorter than joining the group takes gets its partitions all the same."""
    topic = log.topic(2)
    settings = kafka_settings.model_copy(update={"client": {"group_id": topic}})
    for _ in range(JOINS):
        source = KafkaSource(settings, "short")
        try:
            source.subscribe([topic])
            gained: set[TopicPartition] = set()
            deadline = time.monotonic() + PATIENCE
            while len(gained) < 2:
                gained.update(source.poll(SHORT).gained)
                assert time.monotonic() < deadline, "the group gave it nothing"
        finally:
            source.close()
