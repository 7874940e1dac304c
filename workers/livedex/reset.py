"""`livedex source reset`: reads a topic from its beginning again, as a new life of the source.

The source is then rebuilding: what it had stays searchable, and what the log no longer has goes once the log was read up to
where it ended at the reset; see `finish_rebuild` in schema/sql.
"""

from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from psycopg.rows import dict_row

from livedex.config import KafkaSettings
from livedex.core.change import VersionMode
from livedex.core.continuity import KnownTopic, Topic, broken_topic
from livedex.database import Connection, query
from livedex.errors import ConfigError
from livedex.kafka import open_admin, topic_of, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A topic as it is at the reset."""

    topic: Topic
    starts: dict[int, int]  # by partition: the first offset that the log has
    ends: dict[int, int]  # by partition: the offset that the next record will have


def reset(kafka: KafkaSettings, connection: Connection, topic: str, *, versions_restarted: bool) -> int:
    """Begin a topic anew; the epoch of its events from now on.

    The epoch rises in `log` mode, and in `source` mode when the producer's versions restarted. Raises ConfigError when no
    collection follows the topic, when there is no such topic, or when its offsets would be misread.
    """
    log = _look(kafka, topic)
    with connection.transaction():
        with connection.cursor(row_factory=dict_row) as cursor:
            known = cursor.execute(query("source", "lock_source"), {"topic": topic}).fetchone()
        if known is None:
            raise ConfigError(f"no collection follows topic {topic}: livedex source list names the sources")
        _refuse_moved_keys(known, log.topic)
        raised = known["version_mode"] == VersionMode.LOG or versions_restarted
        arguments = {
            "topic": topic, "raise": int(raised), "topic_id": log.topic.topic_id, "partitions": log.topic.partitions,
        }  # fmt: skip
        row = connection.execute(query("source", "reset_source"), arguments).fetchone()
        assert row is not None
        connection.execute(query("source", "forget_partitions"), arguments)
        if known["topic_id"] not in (None, log.topic.topic_id):
            connection.execute(query("source", "discard_letters"), arguments)
        for partition, start in log.starts.items():
            place = {"topic": topic, "partition": partition, "start": start, "end": log.ends[partition]}
            connection.execute(query("source", "reset_progress"), place)
    return int(row[0])


def _refuse_moved_keys(known: dict[str, Any], found: Topic) -> None:
    """More partitions in the same topic: its old events are where their keys no longer are, and would win over newer ones."""
    topic = KnownTopic(
        name=known["topic"], topic_id=found.topic_id, partitions=known["partitions"],
        version_mode=VersionMode(known["version_mode"]),
    )  # fmt: skip
    why = broken_topic(topic, found) if known["topic_id"] == found.topic_id else None
    if why is not None:
        raise ConfigError(f"{why}; read from its beginning as it is, older events could win over newer ones")


def _look(kafka: KafkaSettings, topic: str) -> Log:
    admin = open_admin(kafka)
    try:
        with translated():
            found = topic_of(admin, topic)
            if found is None:
                raise ConfigError(f"topic {topic} does not exist: livedex apply creates it")
            starts, ends = (_offsets(admin, topic, found.partitions, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
    finally:
        admin.close()
    return Log(topic=found, starts=starts, ends=ends)


def _offsets(admin: KafkaAdminClient, topic: str, partitions: int, spec: OffsetSpec) -> dict[int, int]:
    wanted = dict.fromkeys((TopicPartition(topic, number) for number in range(partitions)), spec)
    return {place.partition: found.offset for place, found in admin.list_partition_offsets(wanted, timeout_ms=5_000).items()}
