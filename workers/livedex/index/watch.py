"""Looks around while the worker works, in a thread of its own: do Kafka and Postgres answer, how far is the log's end, is it
still the same, did the database go back, how many dead letters are open, has `livedex apply` changed what to follow.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, RetriableError, UnknownTopicOrPartitionError

from livedex import memory
from livedex.catalogue import Catalogue, Live, Source
from livedex.config import KafkaSettings
from livedex.core.change import Reason
from livedex.core.continuity import broken_topic
from livedex.errors import ConfigError, UnavailableError
from livedex.index.partition import Partition
from livedex.index.store import Store
from livedex.kafka import describe, open_admin, retention_of, tell_topics, waited_for
from livedex.lifecycle import Health, Stop
from livedex.observe import IndexMetrics, logger

EVERY = 1.0  # seconds
LOOKS_PER_TRIM = 10  # between two times that freed memory is given back to the system
LOOKS_PER_START = 10  # between two times that is asked where the log begins, and what the broker deletes
LOOKS_PER_REFUSAL = 10  # between two times that a model is loaded which was refused
_log = logger("watch")
Followed = tuple[dict[str, Source], dict[int, Live]]


class Watch:
    """What was last seen. Readers take whole values; nothing here is changed in place."""

    def __init__(
        self, kafka: KafkaSettings, store: Store, metrics: IndexMetrics, health: Health, stop: Stop, *,
        followed: Followed, open_catalogue: Callable[[Followed], Catalogue],
    ) -> None:  # fmt: skip
        self._kafka = kafka
        self._store = store
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._followed = followed  # what the worker goes by: its models are open
        self._stored = followed  # what the database said last
        self._open_catalogue = open_catalogue
        self._admin: KafkaAdminClient | None = None
        self._looks = 0
        self._tried: Followed | None = None  # what was last tried to be opened
        self._next_opening = 0
        self._kafka_answered = time.time()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.partitions: Mapping[TopicPartition, Partition] = {}  # of this worker; set by it
        self.joined = False  # set by the worker: before it, an answer of Kafka is not readiness
        self.unowned: Sequence[TopicPartition] = ()  # before this worker has joined: those that nobody reads, as it seems
        self.began = time.time()
        self.ends: Mapping[TopicPartition, int] = {}  # the log's end offsets
        self.starts: Mapping[TopicPartition, int] = {}  # and its first
        self.catalogues: SimpleQueue[Catalogue] = SimpleQueue()  # what to follow from now on, each time that changed
        self.sources: SimpleQueue[Mapping[str, Source]] = SimpleQueue()  # the same, where only their states changed
        self.went_back: SimpleQueue[TopicPartition] = SimpleQueue()  # the database forgot progress that was committed

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.asked:
            for look in (self._look_at_postgres, self._look_at_kafka):
                try:
                    look()
                except UnavailableError as error:
                    self._health.down(error.dependency, error)
                except Exception as error:  # noqa: BLE001 - looking must not end because one look failed
                    _log.error("watch.failed", look=look.__name__, error=type(error).__name__)
            self._looks += 1
            if self._looks % LOOKS_PER_TRIM == 0:
                memory.trim()
            self._stop.wait(EVERY)

    def _look_at_postgres(self) -> None:
        letters = self._store.open_dead_letters()
        self._health.up("postgres")
        for reason in Reason:
            self._metrics.dead_letters_open.labels(reason).set(letters.get(reason, 0))
        self._look_at_progress()
        if not self.joined:
            self.unowned = [TopicPartition(topic, number) for topic, number in self._store.unowned()]
        followed = self._stored = self._store.catalogue()
        for source in followed[0].values():
            if source.state == "rebuilding":
                self._store.finish_rebuild(source.topic)
        again = followed == self._tried  # it was opened in part, or not at all
        if followed != self._followed and (not again or self._looks >= self._next_opening):
            self._take_up(followed)

    def _look_at_progress(self) -> None:
        """After a failover the database may lack commits that it had acknowledged: those partitions are read again."""
        partitions = list(self.partitions.items())
        remembered = {tp: own.progress.next_offset for tp, own in partitions if own.reading}
        stored = self._store.progress()  # asked afterwards, so it may be ahead of what is remembered, never behind
        for partition, offset in remembered.items():
            if offset is not None and stored.get((partition.topic, partition.partition), 0) < offset:
                self.went_back.put(partition)
        for partition, own in partitions:
            if own.progress.next_offset is None:  # not claimed yet, or its source is stopped: lag counts from what is stored
                own.progress.next_offset = stored.get((partition.topic, partition.partition))

    def _take_up(self, followed: Followed) -> None:
        """Open the models of what changed, in this thread: it takes seconds, and the consumer has to go on."""
        self._tried, self._next_opening = followed, self._looks + LOOKS_PER_REFUSAL
        try:
            catalogue = self._open_catalogue(followed)
        except (ConfigError, UnavailableError) as error:
            self._health.fails("catalogue", error)
            self._follow_sources(followed)
            return
        self.catalogues.put(catalogue)
        self._followed = (
            followed[0],
            {number: tuple(each.generation for each in of) for number, of in catalogue.targets.items()},
        )
        self._health.works("catalogue")

    def _follow_sources(self, followed: Followed) -> None:
        """Where some model cannot be opened: stops and resets count all the same, of all sources whose models are open."""
        before, live = self._followed
        known = {topic: source for topic, source in followed[0].items() if topic in before}
        if known != before:
            self._followed = ({**before, **known}, live)
            self.sources.put(self._followed[0])

    def _look_at_kafka(self) -> None:
        try:
            with waited_for():
                self._look_at_log()
        except UnavailableError:
            for own in list(self.partitions.values()):
                own.progress.lost_sight(self._kafka_answered)
            raise
        self._kafka_answered = time.time()
        if self.joined:
            self._health.up("kafka")

    def _look_at_log(self) -> None:
        self._admin = self._admin or open_admin(self._kafka, "livedex-watch")
        try:
            self._look_at_topics(self._admin)
            found = self._offsets(self._admin, OffsetSpec.LATEST)
            if self._looks % LOOKS_PER_START == 0 or not self.starts.keys() >= found.keys():
                self.starts = self._offsets(self._admin, OffsetSpec.EARLIEST)
                self._look_at_retention(self._admin)
        except UnknownTopicOrPartitionError:
            _log.warning("watch.topic_missing", topics=sorted({partition.topic for partition in self.partitions}))
        except KafkaError as error:
            raise UnavailableError("kafka", f"kafka does not answer: {describe(error)}") from error
        else:
            self._note_ends(found)

    def _offsets(self, admin: KafkaAdminClient, which: OffsetSpec) -> dict[TopicPartition, int]:
        wanted = dict.fromkeys(list(self.partitions), which)
        found = admin.list_partition_offsets(wanted, timeout_ms=2_000) if wanted else {}
        return {partition: place.offset for partition, place in found.items()}

    def _look_at_retention(self, admin: KafkaAdminClient) -> None:
        """What the broker deletes is for the alerts only: a worker that may not ask tells nothing."""
        try:
            found = retention_of(admin, sorted({partition.topic for partition in self.partitions}))
        except RetriableError:
            return  # what was told before holds until Kafka says something else
        except KafkaError as error:
            _log.debug("watch.retention_unknown", why=describe(error))
            found = {}
        self._metrics.retention.clear()
        for topic, seconds in found.items():
            self._metrics.retention.labels(topic).set(seconds)

    def _note_ends(self, ends: Mapping[TopicPartition, int]) -> None:
        self.ends = ends
        now = time.time()
        for partition, own in list(self.partitions.items()):
            own.progress.saw_end(ends.get(partition, 0), now)

    def _look_at_topics(self, admin: KafkaAdminClient) -> None:
        """Stop the sources whose topic is not what it was: the client may read on without noticing."""
        sources, live = self._stored
        told = tell_topics(admin, sources) if sources else {}
        for topic, source in sources.items():
            found = told.get(topic)
            if isinstance(found, UnavailableError):  # of this one nobody knows what it is; the others are judged
                self._health.fails(f"topic {topic}", found)
                continue
            self._health.works(f"topic {topic}")
            known = source.known(live[source.collection_id][0].version_mode)
            why = broken_topic(known, found) if source.state != "stopped" else None
            if why is not None:
                self._store.stop_source(source, why)
