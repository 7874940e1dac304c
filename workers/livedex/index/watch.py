"""Looks around while the worker works, in a thread of its own: do Kafka and Postgres answer, how far is the log's end, how many
dead letters are open, has `livedex apply` changed what to follow.
"""

import threading
from collections.abc import Iterable, Mapping

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from livedex import memory
from livedex.catalogue import Generation, Source
from livedex.config import KafkaSettings
from livedex.core.change import Reason
from livedex.errors import UnavailableError
from livedex.index.store import Store
from livedex.kafka import describe, open_admin
from livedex.lifecycle import Health, Stop
from livedex.observe import IndexMetrics, logger

EVERY = 1.0  # seconds
LOOKS_PER_TRIM = 10  # between two times that freed memory is given back to the system
_log = logger("watch")
Followed = tuple[dict[str, Source], dict[int, Generation]]


class Watch:
    """What was last seen. Readers take whole values; nothing here is changed in place."""

    def __init__(self, kafka: KafkaSettings, store: Store, metrics: IndexMetrics, health: Health, stop: Stop) -> None:
        self._kafka = kafka
        self._store = store
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._admin: KafkaAdminClient | None = None
        self._looks = 0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.partitions: frozenset[TopicPartition] = frozenset()  # to ask about; set by the worker
        self.joined = False  # set by the worker: before it, an answer of Kafka is not readiness
        self.ends: Mapping[TopicPartition, int] = {}  # the log's end offsets
        self.followed: Followed | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.asked:
            try:
                self._look_at_postgres()
                self._look_at_kafka(self.partitions)
            except UnavailableError as error:
                self._health.down(error.dependency, error)
            except Exception as error:  # noqa: BLE001 - looking must not end because one look failed
                _log.error("watch.failed", error=type(error).__name__)
            self._looks += 1
            if self._looks % LOOKS_PER_TRIM == 0:
                memory.trim()
            self._stop.wait(EVERY)

    def _look_at_postgres(self) -> None:
        letters = self._store.open_dead_letters()
        self.followed = self._store.catalogue()
        self._health.up("postgres")
        for reason in Reason:
            self._metrics.dead_letters_open.labels(reason).set(letters.get(reason, 0))

    def _look_at_kafka(self, partitions: Iterable[TopicPartition]) -> None:
        wanted = dict.fromkeys(partitions, OffsetSpec.LATEST)
        self._admin = self._admin or open_admin(self._kafka, "livedex-watch")
        try:
            if wanted:
                found = self._admin.list_partition_offsets(wanted, timeout_ms=2_000)
                self.ends = {partition: place.offset for partition, place in found.items()}
            else:
                self._admin.list_topics()
        except UnknownTopicOrPartitionError:
            _log.warning("watch.topic_missing", topics=sorted({partition.topic for partition in wanted}))
        except KafkaError as error:
            raise UnavailableError("kafka", f"kafka does not answer: {describe(error)}") from error
        if self.joined:
            self._health.up("kafka")
