"""The index worker's loop: it owns the consumer, feeds the pipeline, and answers what comes back.

    poll -> what was lost is dropped, what was gained is claimed -> batches go into the pipeline
         <- batches that were applied move the progress, batches that were dropped have their partition claimed again

Recovery is one mechanism, see `holdings`.
"""

import random
import time
from collections import Counter
from collections.abc import Callable

from kafka import TopicPartition
from kafka.errors import KafkaError

from livedex.catalogue import Catalogue
from livedex.core.backoff import backoff
from livedex.core.plan import next_offset
from livedex.core.record import Record
from livedex.errors import UnavailableError
from livedex.index import report
from livedex.index.applying import Claim
from livedex.index.batch import Applied, Batch, PoisonFoundError, UnsettledError, cut
from livedex.index.flow import InFlight
from livedex.index.holdings import Holdings
from livedex.index.journey import Journey, Poll
from livedex.index.partition import Hold, name_of
from livedex.index.pipeline import Ownership, Pipeline
from livedex.index.source import KafkaSource, LostPositionError, Polled
from livedex.index.spans import Spans
from livedex.index.unreadable import UnreadableError, WithheldError
from livedex.kafka import describe
from livedex.lifecycle import Health, Stop
from livedex.observe import IndexMetrics
from livedex.tracing import exemplar

IDLE_POLL = 0.25  # seconds
BUSY_POLL = 0.05  # while batches are in flight, so that held back partitions go on soon
REPORT_EVERY = 2.0  # seconds between reports of the progress to Kafka
DRAIN = 3.0  # seconds that a stopping worker gives to what is in flight
POLLING = "polling kafka"  # as the health names it
QUIET = 5.0  # seconds without a failed poll after which polling works again, also when nothing came
UNREADABLE_TRIES = 3  # before records that the client cannot take apart become a dead letter


class IndexWorker:
    """One member of the group. `run` returns when asked to stop; everything else is for it."""

    def __init__(
        self, *, source: KafkaSource, holdings: Holdings, pipeline: Pipeline, ownership: Ownership, catalogue: Catalogue,
        metrics: IndexMetrics, spans: Spans, health: Health, stop: Stop,
        between_steps: Callable[["IndexWorker"], None], jitter: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._source = source
        self.holdings = holdings
        self._pipeline = pipeline
        self._ownership = ownership
        self.catalogue = catalogue
        self._metrics = metrics
        self._spans = spans
        self._health = health
        self._stop = stop
        self._between_steps = between_steps
        self._jitter = jitter
        self._in_flight: InFlight[TopicPartition] = InFlight()
        self._held_back: frozenset[TopicPartition] = frozenset()  # they have too much in flight
        self._polls_failed = 0  # in a row
        self._poll_failed_at = 0.0  # monotonic second
        self.polled_at: float | None = None  # monotonic second of the last poll without an error

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
        before, self.catalogue = self.catalogue.sources, catalogue
        if catalogue.sources.keys() != before.keys():
            self._source.subscribe(catalogue.sources)
        self.holdings.follow(before, catalogue.sources)

    @property
    def held(self) -> Counter[tuple[str, Hold]]:
        """How many partitions are not read at the moment, by topic and why; any thread may ask."""
        return self.holdings.held + Counter((partition.topic, Hold.BACKPRESSURE) for partition in self._held_back)

    @property
    def bytes_in_flight(self) -> int:
        """What was polled and is not applied; any thread may ask."""
        return self._in_flight.bytes

    def _step(self, timeout: float) -> None:
        if not self.catalogue.sources:
            self._metrics.last_poll.set_to_current_time()  # nothing is to be polled, which is no stall
            self._stop.wait(timeout)
            return
        due = self.holdings.due(self._busy)
        started, since = time.perf_counter(), time.time()
        try:
            polled = self._source.poll(0.0 if due else timeout)
        except (UnavailableError, LostPositionError, UnreadableError, WithheldError, KafkaError) as error:
            self._poll_failed(error)
            return
        finally:
            self._answer()
        self._poll_passed(polled)
        self._metrics.last_poll.set_to_current_time()
        self.polled_at = time.monotonic()
        if polled.gained or polled.lost:
            self._metrics.rebalances.inc()
            self.holdings.changed(polled.gained, polled.lost)
        elif due is not None:  # one a step: a claim that fails takes seconds, and neither polls nor a stop may wait for all
            self.holdings.claim(due)
        for partition, records in polled.records.items():
            self._submit(partition, records, since)
        if polled.records:
            traced = (record.trace for records in polled.records.values() for record in records)
            sampled = next((trace for trace in traced if trace is not None and trace.sampled), None)
            self._metrics.stage.labels("poll").observe(time.perf_counter() - started, exemplar(sampled))
        self._pass_gaps()
        self._balance()

    def _busy(self, partition: TopicPartition) -> bool:
        return self._in_flight.of(partition) > 0

    def _poll_failed(self, error: UnavailableError | LostPositionError | UnreadableError | WithheldError | KafkaError) -> None:
        if isinstance(error, UnreadableError):
            self._skip_unreadable(error)
        elif isinstance(error, LostPositionError | WithheldError):
            for partition in error.partitions:
                self.holdings.reclaim(partition, error)  # the claim finds out what became of the log
        else:
            self._wait_for_kafka(error)
        self.holdings.check_positions()

    def _wait_for_kafka(self, error: UnavailableError | KafkaError) -> None:
        """Whatever Kafka answers may pass, a right that was taken away too: a worker outlives it, and says it."""
        if isinstance(error, UnavailableError):
            self._health.down("kafka", error)
        else:
            self._health.fails(POLLING, f"kafka refuses the consumer group: {describe(error)}")
        self._metrics.retries.labels("kafka").inc()
        self._polls_failed += 1
        self._poll_failed_at = time.monotonic()
        self._stop.wait(backoff(self._polls_failed, self._jitter()))

    def _poll_passed(self, polled: Polled) -> None:
        """A poll that brought nothing proves little: a join that will fail may be under way."""
        proven = polled.records or polled.gained or time.monotonic() - self._poll_failed_at > QUIET
        if self._polls_failed and proven:
            self._polls_failed = 0
            self._health.works(POLLING)

    def _submit(self, partition: TopicPartition, records: tuple[Record, ...], since: float) -> None:
        """Hand in what a poll brought that began at `since`, in seconds since 1970."""
        own = self.holdings.partitions[partition]
        own.progress.end_offset = self._source.end_of(partition) or own.progress.end_offset
        self._metrics.records_consumed.inc(len(records))
        self._metrics.bytes_consumed.inc(sum(record.size for record in records))
        now = time.time()
        for part in cut(records):
            oldest = min(record.timestamp_ms for record in part) / 1000
            # with a clock that is wrong, theirs or ours, they are from later: a stall has to show in spite of that
            own.progress.polled(part[0].offset, part[-1].offset, min(oldest, now))
            self._submit_batch(partition, part, next_offset(part), (Poll(next_offset(part), since, now),))

    def _submit_batch(
        self, partition: TopicPartition, records: tuple[Record, ...], end: int, polls: tuple[Poll, ...] = ()
    ) -> None:
        """Hand in a batch that reaches to before offset `end`."""
        own = self.holdings.partitions[partition]
        source = self.catalogue.sources.get(partition.topic)
        claim = self._ownership.held(partition.topic, partition.partition)
        if claim is None or source is None:
            return  # dropped a moment ago: it is claimed again once that is answered
        batch = Batch(
            claim=claim,
            targets=self.catalogue.targets[source.collection_id],
            records=records,
            expected_offset=own.position,
            next_offset=end,
            polled_at=time.time(),
            poisoned=own.rejections(range(own.position, end)),
            journey=Journey(polls),
        )
        own.position = end
        self._in_flight.add(partition, batch.size)
        self._pipeline.submit(batch)

    def _pass_gaps(self) -> None:
        """Move the progress past what is no record: markers of transactions, and what compaction took from the end."""
        for partition, own in self.holdings.reading.items():
            position = None if self._busy(partition) else self._source.position(partition)
            if position is not None and position > own.position:
                self._submit_batch(partition, (), position)

    def _skip_unreadable(self, error: UnreadableError) -> None:
        """Try whether the records can be read after all; then they are one dead letter, with all there is of them."""
        stretch = error.stretch
        own = self.holdings.reading.get(stretch.partition)
        if own is None:
            self._source.release(stretch.partition)
        elif self._busy(stretch.partition) or own.tries(stretch.offset) <= UNREADABLE_TRIES:
            self.holdings.pause_at(stretch.partition)
        else:
            own.poisoned[stretch.offset] = stretch.rejection(str(error))
            self._submit_batch(stretch.partition, (stretch.record,), stretch.next_offset)
            self._source.begin(stretch.partition, stretch.next_offset)

    def _answer(self) -> None:
        """Take note of how batches ended."""
        for end in self._pipeline.ended():
            partition = TopicPartition(end.batch.claim.topic, end.batch.claim.partition)
            self._in_flight.remove(partition, end.batch.size, end.batch.submitted)
            self._spans.ended(end)
            if isinstance(end, Applied):
                self._note_applied(partition, end)
            elif end.error is not None:
                self._note_dropped(partition, end.batch.claim, end.error)

    def _note_applied(self, partition: TopicPartition, end: Applied) -> None:
        report.applied(self._metrics, end)
        if not self.holdings.wait_for_embedder:  # else the batch was embedded before that, or needed no vector
            self._health.up("embedder")
        self._health.works(name_of(partition))
        if partition in self.holdings.partitions:
            self.holdings.partitions[partition].applied(end.batch.next_offset)

    def _note_dropped(self, partition: TopicPartition, claim: Claim, error: Exception) -> None:
        report.failed(self._metrics, partition, error)
        own = self.holdings.partitions.get(partition)
        if own is None or self._ownership.held(partition.topic, partition.partition) not in (None, claim):
            return  # it went, or came again
        if isinstance(error, PoisonFoundError):
            own.poisoned.update(error.rejections)
        if isinstance(error, UnsettledError):
            own.unsettled = error.applied
        if own.hold is not Hold.STOPPED:
            self.holdings.reclaim(partition, error)

    def _balance(self) -> None:
        """Hold back partitions that have much in flight, and let the others go on."""
        for partition in self._in_flight.to_pause(self.holdings.reading):
            self._source.pause(partition)
        for partition in self._in_flight.to_resume(self._source.paused):
            self._source.resume(partition)
        self._held_back = frozenset(self._source.paused)

    def _report(self) -> None:
        known = {partition: own.progress.next_offset for partition, own in self.holdings.partitions.items()}
        self._source.report({partition: offset for partition, offset in known.items() if offset is not None})

    def _drain(self) -> None:
        """Give what is in flight a moment to become searchable; the rest is read again by the next owner."""
        deadline = time.monotonic() + DRAIN
        while not self._in_flight.empty and time.monotonic() < deadline:
            time.sleep(0.01)
            self._answer()
