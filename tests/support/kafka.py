"""Topics of a test's own: produce to them, read them with an independent client."""

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from livedex.config import KafkaSettings
from livedex.core.record import Place, Record
from livedex.kafka import MAX_REQUEST_BYTES, open_admin, open_producer


class Log:
    """A producer, and the topics that it made."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topics: list[str] = []

    def __enter__(self) -> Self:
        self._admin = open_admin(self._settings)
        self._producer = open_producer(self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=1)
        for topic in self._topics:
            self._admin.delete_topics([topic], raise_errors=False)
        self._admin.close()

    def topic(self, partitions: int = 1, **config: str) -> str:
        """A new topic."""
        name = f"test.{uuid.uuid4().hex[:12]}"
        options = {"max.message.bytes": str(MAX_REQUEST_BYTES), **config}
        self._admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=options)])
        self._admin.wait_for_topics([name])
        self._topics.append(name)
        return name

    def forget(self, topic: str) -> None:
        """Leave the deletion of a topic that somebody else made to this log."""
        self._topics.append(topic)

    def send(
        self,
        topic: str,
        value: bytes | dict[str, Any] | None,
        *,
        key: str | bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Place:
        """Send one record and wait for its place. The key defaults to the event's id."""
        return self.post(topic, value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp_ms)()

    def post(
        self,
        topic: str,
        value: bytes | dict[str, Any] | None,
        *,
        key: str | bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Callable[[], Place]:
        """Send one record; the returned function waits for its place."""
        if isinstance(value, dict):
            key = value.get("id") if key is None else key
            value = json.dumps(value).encode()
        raw = key.encode() if isinstance(key, str) else key
        future = self._producer.send(
            topic, key=raw, value=value, headers=headers or [], partition=partition, timestamp_ms=timestamp_ms
        )

        def place() -> Place:
            found = future.get(timeout=30)
            return Place(found.topic, found.partition, found.offset)

        return place

    def send_together(self, topic: str, events: Sequence[dict[str, Any]]) -> int:
        """Send upserts that become readable at one moment, in a transaction; the end of the log that they leave."""
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap_servers, transactional_id=f"together.{topic}")
        try:
            producer.init_transactions()
            producer.begin_transaction()
            posts = [producer.send(topic, key=event["id"].encode(), value=json.dumps(event).encode()) for event in events]
            end = max(post.get(timeout=30).offset for post in posts) + 1
            producer.commit_transaction()
        finally:
            producer.close(timeout=1)
        return int(end)

    def flush(self) -> None:
        """Wait until everything is in the log."""
        self._producer.flush(timeout=60)

    def records(self, topic: str) -> list[Record]:
        """Everything in a topic, partition by partition, read by a client of its own."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._settings.bootstrap_servers, group_id=None, auto_offset_reset="earliest",
            enable_auto_commit=False,
        )  # fmt: skip
        try:
            partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for partition, batch in consumer.poll(500).items():
                    found[partition] += [_record(record) for record in batch]
        finally:
            consumer.close(autocommit=False)
        return [record for partition in partitions for record in found[partition]]


def _record(record: Any) -> Record:
    return Record(
        topic=record.topic, partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp, key=record.key,
        value=record.value, headers=tuple(record.headers),
    )  # fmt: skip
