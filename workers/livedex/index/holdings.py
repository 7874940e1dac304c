"""The partitions that the group gave this worker: taken over, left, and taken over again.

Recovery is one mechanism, `reclaim`, whatever went wrong: drop what is in flight for the partition, claim it again, which
raises the owner epoch and fences whoever still writes, and read on from the progress in the database.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from kafka import TopicPartition

from livedex.catalogue import Source
from livedex.core.backoff import backoff
from livedex.core.progress import PartitionProgress
from livedex.errors import SystemicError, UnavailableError
from livedex.index import report
from livedex.index.batch import PoisonFoundError
from livedex.index.claims import Claims
from livedex.index.partition import Hold, Partition, hold_of, name_of
from livedex.index.pipeline import Ownership
from livedex.index.refusals import SourceStoppedError
from livedex.index.source import KafkaSource
from livedex.lifecycle import Health
from livedex.observe import IndexMetrics, logger

_log = logger("index")


class Holdings:
    """What this worker holds, and how. Belongs to the worker's thread; others may read `partitions` and `held`."""

    def __init__(
        self, *, source: KafkaSource, claims: Claims, ownership: Ownership, metrics: IndexMetrics, health: Health,
        jitter: Callable[[], float],
    ) -> None:  # fmt: skip
        self._source = source
        self._claims = claims
        self._ownership = ownership
        self._metrics = metrics
        self._health = health
        self._jitter = jitter
        self.partitions: dict[TopicPartition, Partition] = {}

    @property
    def reading(self) -> dict[TopicPartition, Partition]:
        """Those that are claimed."""
        return {partition: own for partition, own in self.partitions.items() if own.reading}

    @property
    def held(self) -> Counter[tuple[str, Hold]]:
        """How many partitions are not read at the moment, by topic and why."""
        held = ((partition.topic, own.hold) for partition, own in list(self.partitions.items()))
        return Counter((topic, why) for topic, why in held if why is not None)

    @property
    def wait_for_embedder(self) -> bool:
        """Whether some do."""
        return any(own.hold is Hold.EMBEDDER for own in list(self.partitions.values()))

    def changed(self, gained: Iterable[TopicPartition], lost: Iterable[TopicPartition]) -> None:
        """The group took partitions away and gave others."""
        gained = tuple(gained)
        for partition in (*lost, *gained):
            self._ownership.drop(partition.topic, partition.partition)
            self._health.works(name_of(partition))
            self.partitions.pop(partition, None)
        for partition in gained:
            self.partitions[partition] = Partition(progress=PartitionProgress(stalled_since=time.time()))
        if lost and not self.wait_for_embedder:  # whoever has what waited for it tells whether it is back
            self._health.up("embedder")

    def due(self, busy: Callable[[TopicPartition], bool]) -> TopicPartition | None:
        """A partition to claim now. One with work in flight is not: that would be done twice, or fenced."""
        now = time.monotonic()
        due = (partition for partition, own in self.partitions.items() if own.due is not None and own.due <= now)
        return next((partition for partition in due if not busy(partition)), None)

    def claim(self, partition: TopicPartition) -> None:
        """Take a partition over, or try again later."""
        own = self.partitions[partition]
        try:
            with self._health.watch():
                claim, end = self._claims.take(partition)
        except SourceStoppedError as error:
            self.leave(partition, str(error))
            return
        except Exception as error:  # noqa: BLE001 - one answer to every surprise, and a worker outlives them all
            report.failed(self._metrics, partition, error)
            self.reclaim(partition, error)
            return
        self._ownership.take(claim)
        settled = own.settled_by(claim)
        if settled is not None:
            report.applied(self._metrics, settled)
        own.claimed(claim.next_offset)
        if claim.next_offset >= end:  # nothing is left that could fail
            self._health.works(name_of(partition))
        _log.info("index.claimed", topic=partition.topic, partition=partition.partition,
                  next_offset=claim.next_offset, owner_epoch=claim.owner_epoch)  # fmt: skip

    def reclaim(self, partition: TopicPartition, error: Exception) -> None:
        """After a pause, read on from what the database says."""
        self._drop(partition)
        own = self.partitions.get(partition)
        if own is None or not self._source.holds(partition):
            return
        own.attempts = 0 if isinstance(error, PoisonFoundError) else own.attempts + 1
        pause = 0.0 if isinstance(error, PoisonFoundError) else backoff(own.attempts, self._jitter())
        own.held(hold_of(error), time.time(), due=time.monotonic() + pause)
        if isinstance(error, UnavailableError):
            self._health.down(error.dependency, error)
        elif isinstance(error, SystemicError):
            own.poisoned.clear()  # what was found to be at fault may not be
            self._health.fails(name_of(partition), error)

    def reclaim_now(self, partition: TopicPartition) -> None:
        """Read from what the database says, without a failure of ours."""
        self._drop(partition)
        self.partitions[partition].held(Hold.CLAIM, time.time(), due=0.0)

    def leave(self, partition: TopicPartition, why: str) -> None:
        """Read no further, because the source is stopped; the others go on."""
        self._drop(partition)
        self.partitions[partition].held(Hold.STOPPED, time.time(), due=None)
        _log.error("index.source_stopped", topic=partition.topic, partition=partition.partition, why=why)

    def pause_at(self, partition: TopicPartition) -> None:
        """Read again from the stored progress once everything in flight has ended: what cannot be read may be then."""
        self._source.release(partition)
        self.partitions[partition].held(Hold.UNREADABLE, time.time(), due=time.monotonic() + backoff(1, self._jitter()))

    def follow(self, before: Mapping[str, Source], now: Mapping[str, Source]) -> None:
        """Sources were stopped, or reset."""
        for partition, own in self.partitions.items():
            old, new = before.get(partition.topic), now.get(partition.topic)
            if old is None or new is None:
                continue
            if new.state == "stopped" and own.hold is not Hold.STOPPED:
                self.leave(partition, new.reason or "an operator stopped it")
            elif new.epoch != old.epoch or (new.state != "stopped" and (own.hold is Hold.STOPPED or _reset(old, new))):
                self.reclaim_now(partition)

    def check_positions(self) -> None:
        """After a poll that failed: what it had taken out is lost, unless it is read again."""
        for partition, own in self.reading.items():
            if self._source.position(partition) != own.position:
                self.reclaim_now(partition)

    def _drop(self, partition: TopicPartition) -> None:
        self._ownership.drop(partition.topic, partition.partition)
        self._source.release(partition)


def _reset(old: Source, new: Source) -> bool:
    """Whether a rebuild began between these two looks."""
    return new.state == "rebuilding" and old.state != "rebuilding"
