"""Turns the end of a batch, or its failure, into metrics and one log line."""

import traceback
from collections import Counter
from pathlib import Path

from kafka import TopicPartition

from livedex.core.change import CANARY_PREFIX, Op
from livedex.core.plan import Outcome
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConflictError, SystemicError, UnavailableError
from livedex.index.batch import Applied, PoisonFoundError
from livedex.index.refusals import FencedError
from livedex.observe import IndexMetrics, logger
from livedex.tracing import exemplar

SKEW = 1.0  # seconds by which clocks may differ before it is counted
_log = logger("index")
_ACCEPTED = (Outcome.APPLIED, Outcome.UNCHANGED)


def applied(metrics: IndexMetrics, end: Applied) -> None:
    """Count every event of the batch once, and measure how fresh the accepted ones became.

    Not those of canaries: where users publish little, these would be most of what the objective of freshness is judged by, and
    would hide what users get, or page somebody for it. As work, events and chunks, they count: they were done.
    """
    collection = end.batch.generation.collection
    traces = {record.offset: record.trace for record in end.batch.records if record.trace is not None}
    whole = end.batch.journey.span.context
    for outcome, number in Counter(outcome for _, outcome in end.outcomes).items():
        metrics.events.labels(collection, outcome).inc(number)
    histograms = {op: metrics.freshness.labels(collection, op) for op in Op}  # a look-up costs as much as what it leads to
    for change, outcome in end.outcomes:
        if outcome in _ACCEPTED and not change.document_id.startswith(CANARY_PREFIX):
            freshness = end.applied_at - max(change.event_time, change.timestamp).timestamp()
            trace = traces.get(change.place.offset, whole)
            histograms[change.op].observe(max(0.0, freshness), exemplar(trace))
            if freshness < -SKEW:
                metrics.clock_skew.inc()
    metrics.chunks.labels(collection, "reused").inc(end.reused)
    metrics.events.labels(collection, Outcome.DEAD_LETTER).inc(len(end.rejected))
    for record, rejection in end.rejected:
        _log.warning("index.dead_letter", place=str(record.place), reason=rejection.reason)
    _log.debug("index.applied", topic=end.batch.claim.topic, partition=end.batch.claim.partition,
               next_offset=end.batch.next_offset, events=len(end.outcomes))  # fmt: skip


def failed(metrics: IndexMetrics, partition: TopicPartition, error: Exception) -> None:
    """Say why a batch was dropped, or a claim failed."""
    place = {"topic": partition.topic, "partition": partition.partition}
    if isinstance(error, FencedError):
        metrics.fenced.inc()
        _log.warning("index.fenced", **place, why=str(error))
    elif isinstance(error, UnavailableError | SystemicError):
        metrics.retries.labels(error.dependency).inc()
        _log.debug("index.dropped", **place, why=str(error))  # the change of health is the loud line
    elif isinstance(error, ConflictError):
        metrics.retries.labels("postgres").inc()
        _log.debug("index.dropped", **place, why=str(error))
    elif isinstance(error, EncodingStopped | PoisonFoundError):
        _log.debug("index.dropped", **place, why=str(error))
    else:  # a defect, or a database that contradicts the code: never skipped, always said
        _log.error("index.failed", **place, error=type(error).__name__, where=_where(error))


def _where(error: Exception) -> list[str]:
    """The places in the code that an error came through, without its message: that may quote a document."""
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
