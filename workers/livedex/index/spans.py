"""Makes spans out of what batches were through: one trace for each batch, which links to those of its records; and in the trace
that a record came with, poll > plan > embed > stage > apply of that record.

A batch is one transaction of many records, so its stages are those of each of them. Spans are written when the batch has ended,
out of the few moments that its journey noted. Names and attributes are those of OpenTelemetry's conventions for messaging; they
never hold a key, an id or a text.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from livedex.core.plan import Outcome
from livedex.core.record import Record
from livedex.index.batch import Applied, Batch, Dropped, End
from livedex.index.journey import Poll
from livedex.observe import IndexMetrics
from livedex.tracing import Attributes, Span, Tracer, exemplar

LINKS = 64  # of a batch's span, to the spans of its records: OpenTelemetry's own limit is 128
DROPPED = "dropped"  # the outcome of a record whose batch was: it is read again


class Spans:
    """Follows batches. `stage` is for the threads of the pipeline, `ended` for the one that takes what they are done with."""

    def __init__(self, tracer: Tracer, metrics: IndexMetrics, group: str) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._group = group

    @contextmanager
    def stage(self, name: str, batch: Batch) -> Iterator[None]:
        """Measure a stage of a batch, and note it in its journey."""
        journey = batch.journey
        if not journey.steps:
            self._begin(batch)
        start, began = time.time(), time.perf_counter()
        failed = None
        try:
            yield
        except Exception as error:
            failed = type(error).__name__
            raise
        finally:
            took = time.perf_counter() - began
            journey.note(name, start, start + took, failed)
            self._metrics.stage.labels(name).observe(took, exemplar(journey.context))

    def _begin(self, batch: Batch) -> None:
        """Only now it is sure which records go together."""
        journey = batch.journey
        traced = [record.trace for record in batch.records if record.trace is not None]
        if self._tracer.on and batch.records:
            journey.span = self._tracer.begin(
                f"process {batch.claim.topic}", kind="consumer", links=traced[:LINKS], attributes=self._of_batch(batch),
                start=min((poll.start for poll in journey.polls), default=None),
            )  # fmt: skip
        journey.context = next((each for each in (journey.span.context, *traced) if each is not None and each.sampled), None)

    def ended(self, end: End) -> None:
        """Write the spans of a batch."""
        batch = end.batch
        journey = batch.journey
        if not (self._tracer.on and journey.steps):
            return
        failed = type(end.error).__name__ if isinstance(end, Dropped) and end.error is not None else None
        if journey.span.recorded:
            for poll in journey.polls:
                self._poll(journey.span, batch, poll, poll.start)
            self._finish(journey.span, batch, None if isinstance(end, Applied) else DROPPED, failed)
        became = _became(end)
        for record in batch.records:
            if record.trace is not None:
                self._write(record, batch, *became.get(record.offset, (DROPPED, failed)))

    def _write(self, record: Record, batch: Batch, outcome: str, failed: str | None) -> None:
        """The spans of a record in its own trace."""
        journey = batch.journey
        poll = journey.poll_of(record.offset)
        # a poll that waits for events begins before them
        start = None if poll is None else max(poll.start, min(record.timestamp_ms / 1000, poll.end))
        whole = journey.span.context if journey.span.recorded else None
        span = self._tracer.begin(
            f"process {record.topic}", kind="consumer", parent=record.trace, start=start,
            links=[whole] if whole is not None else [], attributes=self._of_record(record),
        )  # fmt: skip
        if span.recorded:
            if poll is not None and start is not None:
                self._poll(span, batch, poll, start)
            self._finish(span, batch, outcome, failed)

    def _poll(self, span: Span, batch: Batch, poll: Poll, start: float) -> None:
        topic = batch.claim.topic
        attributes = self._operation("poll", "receive", topic, batch.claim.partition)
        span.child(f"poll {topic}", kind="client", start=start, end=poll.end, attributes=attributes)

    @staticmethod
    def _finish(span: Span, batch: Batch, outcome: str | None, failed: str | None) -> None:
        steps = batch.journey.steps
        for step in steps:
            span.child(step.name, start=step.start, end=step.end, failed=step.failed)
        told = {} if outcome is None else {"livedex.outcome": outcome}
        span.note(attributes={"livedex.collection": batch.generation.collection, **told}, failed=failed)
        span.end(steps[-1].end)

    def _of_batch(self, batch: Batch) -> Attributes:
        place = self._operation("process", "process", batch.claim.topic, batch.claim.partition)
        return {**place, "messaging.batch.message_count": len(batch.records), "livedex.next_offset": batch.next_offset}

    def _of_record(self, record: Record) -> Attributes:
        place = self._operation("process", "process", record.topic, record.partition)
        body = {"messaging.kafka.message.tombstone": True} if record.value is None else {
            "messaging.message.body.size": len(record.value)
        }  # fmt: skip
        return {**place, "messaging.kafka.offset": record.offset, **body}

    def _operation(self, name: str, kind: str, topic: str, partition: int) -> dict[str, str | int | bool]:
        return {
            "messaging.system": "kafka",
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(partition),
            "messaging.consumer.group.name": self._group,
        }


def _became(end: End) -> Mapping[int, tuple[str, str | None]]:
    """(outcome, why it failed) of the records of a batch, by offset."""
    if isinstance(end, Dropped):
        return {}
    settled: dict[int, tuple[str, str | None]] = {change.place.offset: (outcome, None) for change, outcome in end.outcomes}
    return settled | {record.offset: (Outcome.DEAD_LETTER, rejection.reason) for record, rejection in end.rejected}
