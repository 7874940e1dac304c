"""Records that the client cannot take apart: a checksum that does not match, a codec that nobody knows, a broken structure.

A batch of the log is compressed and checked as a whole, so it is unreadable as a whole, and becomes one dead letter.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from livedex.core.change import Reason, Rejection
from livedex.core.record import Record
from livedex.kafka import describe


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The part of a partition that cannot be read."""

    partition: TopicPartition
    offset: int  # of the first record that cannot be read
    next_offset: int  # where to go on
    timestamp_ms: int  # of the newest record of the batch, as its header says; -1: unknown
    raw: bytes  # the batch as it is in the log

    @property
    def record(self) -> Record:
        """What there is of it, as one record."""
        topic, number = self.partition
        return Record(
            topic=topic, partition=number, offset=self.offset, timestamp_ms=self.timestamp_ms, key=None, value=self.raw
        )

    def rejection(self, why: str) -> Rejection:
        """Why it becomes a dead letter."""
        detail = f"the records at offsets {self.offset} to {self.next_offset - 1} cannot be read: {why}"
        return Rejection(reason=Reason.UNREADABLE, detail=detail)


class UnreadableError(Exception):
    """A stretch of the log cannot be read. What was read before it was given out."""

    def __init__(self, stretch: Stretch, why: str) -> None:
        super().__init__(why)
        self.stretch = stretch


def unreadable(consumer: KafkaConsumer, error: KafkaError) -> Exception:
    """What of the log an error of `poll` is about; the error itself when the client does not show it.

    The client (3.0.12) names the offset in the message at best. The batch that it was at work on is found in the frames that
    the error came through; the version is pinned, and tests with a corrupted log watch.
    """
    fetcher: Any = consumer._fetcher  # noqa: SLF001 - see above
    part = fetcher._next_partition_records  # noqa: SLF001
    # It is used up, and at the same position the client would ask it for ever.
    fetcher._next_partition_records = None  # noqa: SLF001
    batch = _local(error.__traceback__, "batch")
    if part is None or batch is None:
        return cast("Exception", error)
    offset = max(part.next_fetch_offset, batch.base_offset)
    return UnreadableError(
        Stretch(
            partition=part.topic_partition,
            offset=offset,
            next_offset=max(batch.last_offset, offset) + 1,
            timestamp_ms=batch.max_timestamp or -1,
            raw=bytes(batch._buffer),  # noqa: SLF001 - see above
        ),
        describe(error),
    )


def _local(trace: TracebackType | None, name: str) -> Any:
    """The innermost local variable of this name; None when there is none."""
    found = None
    while trace is not None:
        found = trace.tb_frame.f_locals.get(name, found)
        trace = trace.tb_next
    return found
