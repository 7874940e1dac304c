"""Where the log ends, for who does the upkeep: it may own none of the partitions whose ends it has to know."""

from collections.abc import Collection

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from livedex.config import KafkaSettings
from livedex.errors import UnavailableError
from livedex.kafka import open_admin, topics_of, translated, waited_for

PATIENCE_MS = 2_000

Ends = dict[tuple[str, int], int]  # by topic and partition


class LogLook:
    """Asks Kafka; for one thread."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._admin: KafkaAdminClient | None = None

    def ends(self, topics: Collection[str]) -> Ends:
        """The end of every partition by topic and partition. Empty when a topic is not there, or Kafka does not answer: the
        worker's other threads say so.
        """
        try:
            with waited_for(), translated():
                return self._ends(topics)
        except (KafkaError, UnavailableError):
            self.close()
            return {}

    def _ends(self, topics: Collection[str]) -> Ends:
        self._admin = self._admin or open_admin(self._kafka, "livedex-upkeep")
        found = topics_of(self._admin, topics)
        if set(topics) != found.keys():
            return {}
        partitions = [TopicPartition(name, number) for name, topic in found.items() for number in range(topic.partitions)]
        ends = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST), timeout_ms=PATIENCE_MS)
        return {(partition.topic, partition.partition): place.offset for partition, place in ends.items()}

    def close(self) -> None:
        """Let go of the connections."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
