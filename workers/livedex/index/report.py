"""Turns the end of a batch into metrics and one log line."""

from datetime import datetime

from livedex.core.plan import Outcome
from livedex.index.batch import Applied
from livedex.observe import IndexMetrics, logger

_log = logger("index")
_ACCEPTED = (Outcome.APPLIED, Outcome.UNCHANGED)


def applied(metrics: IndexMetrics, end: Applied) -> None:
    """Count every event of the batch once, and measure how fresh the accepted ones became."""
    collection = end.batch.generation.collection
    for change, outcome in end.outcomes:
        metrics.events.labels(collection, outcome).inc()
        if outcome in _ACCEPTED:
            since = max(change.event_time, change.timestamp)
            metrics.freshness.labels(collection, change.op).observe(_seconds_since(since, end.applied_at))
    metrics.chunks.labels(collection, "reused").inc(end.reused)
    metrics.events.labels(collection, Outcome.DEAD_LETTER).inc(len(end.rejected))
    for record, rejection in end.rejected:
        _log.warning("index.dead_letter", place=str(record.place), reason=rejection.reason)
    _log.debug("index.applied", topic=end.batch.claim.topic, partition=end.batch.claim.partition,
               next_offset=end.batch.next_offset, events=len(end.outcomes))  # fmt: skip


def _seconds_since(moment: datetime, now: float) -> float:
    """Never negative: a producer's clock may be ahead of ours."""
    return max(0.0, now - moment.timestamp())
