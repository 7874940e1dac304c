"""The index worker's loop: it owns the consumer, claims partitions, feeds the pipeline, and answers what comes back.

    poll -> what was lost is dropped, what was gained is claimed -> batches go into the pipeline
         <- batches that were applied move the progress, batches that were dropped have their partition claimed again

Recovery is one mechanism, `_reclaim`: drop what is in flight for the partition, claim it, seek to the database's offset.
"""

import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kafka import TopicPartition

from livedex.catalogue import Generation, Source
from livedex.core.backoff import backoff
from livedex.core.progress import PartitionProgress
from livedex.core.record import Record
from livedex.encoders import Encoder
from livedex.encoders.port import EncodingStopped
from livedex.errors import UnavailableError
from livedex.index import report
from livedex.index.batch import Applied, Batch, Dropped
from livedex.index.flow import InFlight
from livedex.index.pipeline import Ownership, Pipeline
from livedex.index.source import KafkaSource, LostPositionError
from livedex.index.store import FencedError, Store
from livedex.lifecycle import Health, Stop
from livedex.observe import IndexMetrics, logger

IDLE_POLL = 0.25  # seconds
BUSY_POLL = 0.05  # while batches are in flight, so that held back partitions go on soon
REPORT_EVERY = 2.0  # seconds between reports of the progress to Kafka
DRAIN = 4.0  # seconds that a stopping worker gives to what is in flight
BATCH_BYTES = 2**20  # a poll's records are cut into batches of about this many

_log = logger("index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What to follow, and with which encoders."""

    sources: Mapping[str, Source]  # by topic
    generations: Mapping[int, Generation]  # by collection id
    encoders: Mapping[int, Encoder]  # by generation id


class IndexWorker:
    """One member of the group. `run` returns when asked to stop; everything else is for it."""

    def __init__(
        self, *, source: KafkaSource, store: Store, pipeline: Pipeline, ownership: Ownership, catalogue: Catalogue,
        metrics: IndexMetrics, health: Health, stop: Stop, name: str,
        between_steps: Callable[["IndexWorker"], None], jitter: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._source = source
        self._store = store
        self._pipeline = pipeline
        self._ownership = ownership
        self.catalogue = catalogue
        self._metrics = metrics
        self._health = health
        self._stop = stop
        self._name = name
        self._between_steps = between_steps
        self._jitter = jitter
        self._in_flight: InFlight[TopicPartition] = InFlight()
        self._waiting: dict[TopicPartition, float] = {}  # to be claimed, from this monotonic second on
        self._attempts: dict[TopicPartition, int] = {}  # failures in a row
        self._positions: dict[TopicPartition, int] = {}  # where the next batch begins
        self.progress: dict[TopicPartition, PartitionProgress] = {}

    def run(self) -> None:
        """Work until the stop, then finish or drop what is in flight."""
        if self.catalogue.sources:
            self._source.subscribe(self.catalogue.sources)
        self._pipeline.start()
        next_report = time.monotonic() + REPORT_EVERY
        while not self._stop.asked:
            self._step(IDLE_POLL if self._in_flight.empty else BUSY_POLL)
            self._between_steps(self)
            if time.monotonic() >= next_report:
                self._report()
                next_report = time.monotonic() + REPORT_EVERY
        self._drain()
        self._report()
        self._source.close()

    @property
    def joined(self) -> bool:
        """Whether the group has given this worker its partitions, maybe none."""
        return self._source.joined

    def follow(self, catalogue: Catalogue) -> None:
        """Go on with another catalogue; called between two steps."""
        if catalogue.sources.keys() != self.catalogue.sources.keys():
            self._source.subscribe(catalogue.sources)
        self.catalogue = catalogue

    def _step(self, timeout: float) -> None:
        if not self.catalogue.sources:
            self._stop.wait(timeout)
            return
        started = time.perf_counter()
        try:
            polled = self._source.poll(timeout)
        except UnavailableError as error:
            self._health.down("kafka", error)
            self._metrics.retries.labels("kafka").inc()
            self._stop.wait(backoff(1, self._jitter()))
            return
        except LostPositionError as error:
            for partition in error.partitions:
                self._give_up(partition, str(error))
            return
        finally:
            self._answer()
        self._settle(polled.gained, polled.lost)
        for partition, records in polled.records.items():
            self._submit(partition, records)
        if polled.records:
            self._metrics.stage.labels("poll").observe(time.perf_counter() - started)
        self._balance()

    def _settle(self, gained: tuple[TopicPartition, ...], lost: tuple[TopicPartition, ...]) -> None:
        """Follow changes of ownership, then claim what is due."""
        if gained or lost:
            self._metrics.rebalances.inc()
        for partition in (*lost, *gained):
            self._forget(partition)
        for partition in gained:
            self._waiting[partition] = 0.0
            self.progress[partition] = PartitionProgress(stalled_since=time.time())
        # one a step: a claim that fails takes seconds, and neither the consumer nor a stop may wait for all of them
        due = next((partition for partition, at in self._waiting.items() if at <= time.monotonic()), None)
        if due is not None:
            self._claim(due)

    def _claim(self, partition: TopicPartition) -> None:
        try:
            start = self._source.start_of(partition)
            with self._health.watch():
                claim = self._store.claim(partition.topic, partition.partition, start=start, owner=self._name)
        except UnavailableError as error:
            self._reclaim(partition, error)
            return
        del self._waiting[partition]
        self.progress[partition].claimed(claim.next_offset)
        if claim.next_offset < start:
            self._give_up(partition, f"the log begins at offset {start}, the index stands at {claim.next_offset}")
            return
        self._ownership.take(claim)
        self._positions[partition] = claim.next_offset
        self._source.begin(partition, claim.next_offset)
        _log.info("index.claimed", topic=partition.topic, partition=partition.partition,
                  next_offset=claim.next_offset, owner_epoch=claim.owner_epoch)  # fmt: skip

    def _reclaim(self, partition: TopicPartition, error: Exception) -> None:
        """The one answer to every surprise: after a pause, read on from what the database says."""
        self._ownership.drop(partition.topic, partition.partition)
        self._source.release(partition)
        if not self._source.holds(partition):
            return
        self.progress[partition].stalled(time.time())
        attempt = self._attempts[partition] = self._attempts.get(partition, 0) + 1
        self._waiting[partition] = time.monotonic() + backoff(attempt, self._jitter())
        if isinstance(error, UnavailableError):
            self._health.down(error.dependency, error)
            self._metrics.retries.labels(error.dependency).inc()

    def _forget(self, partition: TopicPartition) -> None:
        self._ownership.drop(partition.topic, partition.partition)
        self._waiting.pop(partition, None)
        self._attempts.pop(partition, None)
        self._positions.pop(partition, None)
        self.progress.pop(partition, None)

    def _give_up(self, partition: TopicPartition, why: str) -> None:
        """Stop reading a partition whose position is lost; the others go on."""
        self._ownership.drop(partition.topic, partition.partition)
        self._source.release(partition)
        if partition in self.progress:
            self.progress[partition].stalled(time.time())
        _log.error("index.partition_stopped", topic=partition.topic, partition=partition.partition, why=why,
                   remedy="rebuild the index from a topic that has all documents")  # fmt: skip

    def _submit(self, partition: TopicPartition, records: tuple[Record, ...]) -> None:
        source = self.catalogue.sources[partition.topic]
        generation = self.catalogue.generations[source.collection_id]
        claim = self._ownership.held(partition.topic, partition.partition)
        if claim is None:
            return  # dropped a moment ago: `_answer` will claim it again
        progress = self.progress[partition]
        progress.end_offset = self._source.end_of(partition) or progress.end_offset
        for part in _cut(records):
            batch = Batch(
                claim=claim,
                generation=generation,
                encoder=self.catalogue.encoders[generation.generation_id],
                epoch=source.epoch,
                records=part,
                expected_offset=self._positions[partition],
                polled_at=time.time(),
            )
            progress.polled(part[0].offset, part[-1].offset, min(record.timestamp_ms for record in part) / 1000)
            self._positions[partition] = batch.next_offset
            self._in_flight.add(partition, batch.size)
            self._pipeline.submit(batch)

    def _answer(self) -> None:
        """Take note of how batches ended."""
        for end in self._pipeline.ended():
            claim = end.batch.claim
            partition = TopicPartition(claim.topic, claim.partition)
            self._in_flight.remove(partition, end.batch.size)
            if isinstance(end, Applied):
                self._note_applied(partition, end)
            elif end.error is not None:
                self._note_dropped(partition, end)

    def _note_applied(self, partition: TopicPartition, end: Applied) -> None:
        report.applied(self._metrics, end)
        self._attempts.pop(partition, None)
        self._health.up("embedder")
        if partition in self.progress:
            self.progress[partition].applied(end.batch.next_offset)

    def _note_dropped(self, partition: TopicPartition, end: Dropped) -> None:
        error = end.error
        assert error is not None
        if isinstance(error, FencedError):
            self._metrics.fenced.inc()
            _log.warning("index.fenced", topic=partition.topic, partition=partition.partition, why=str(error))
        elif isinstance(error, UnavailableError | EncodingStopped):
            _log.debug("index.dropped", topic=partition.topic, partition=partition.partition, why=str(error))
        else:  # a defect, or a database that contradicts the code: never skipped, always said
            _log.error("index.failed", topic=partition.topic, partition=partition.partition,
                       next_offset=end.batch.expected_offset, error=type(error).__name__, where=_where(error))  # fmt: skip
        if self._source.holds(partition) and partition not in self._waiting:
            self._reclaim(partition, error)

    def _balance(self) -> None:
        """Hold back partitions that have much in flight, and let the others go on."""
        reading = [partition for partition in self._positions if partition not in self._waiting]
        for partition in self._in_flight.to_pause(reading):
            self._source.pause(partition)
        for partition in self._in_flight.to_resume(self._source.paused):
            self._source.resume(partition)

    def _report(self) -> None:
        offsets = {tp: progress.next_offset for tp, progress in self.progress.items() if progress.next_offset is not None}
        self._source.report(offsets)

    def _drain(self) -> None:
        """Give what is in flight a moment to become searchable; the rest is read again by the next owner."""
        deadline = time.monotonic() + DRAIN
        while not self._in_flight.empty and time.monotonic() < deadline:
            time.sleep(0.01)
            self._answer()


def _where(error: Exception) -> list[str]:
    """The places in the code that an error came through, without its message: that may quote a document."""
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]


def _cut(records: tuple[Record, ...]) -> Iterator[tuple[Record, ...]]:
    """Parts of about BATCH_BYTES, in order; a larger record is a part of its own."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and size + record.size > BATCH_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(record)
        size += record.size
    yield tuple(part)
