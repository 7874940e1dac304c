"""Records that the client cannot take apart: a checksum that does not match, a codec that nobody knows, a broken structure.

A batch of the log is compressed and checked as a whole, so it is unreadable as a whole, and becomes one dead letter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from livedex.core.change import Reason, Rejection
from livedex.core.record import Record
from livedex.errors import SystemicError
from livedex.kafka import describe
from livedex.unpacking import interrupted


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


class WithheldError(SystemicError):
    """The broker gives nothing out of these partitions, and waiting does not change that: an operator has to act."""

    def __init__(self, partitions: Iterable[TopicPartition], why: str) -> None:
        super().__init__("kafka", why)
        self.partitions = frozenset(partitions)


def unreadable(consumer: KafkaConsumer, error: Exception) -> UnreadableError | None:
    """What of the log an error of `poll` is about; None when it is about something else.

    Damage was found before (`inspection.py`), so this is a sound batch with contents that the client (3.0.12) cannot take
    apart; what it raises then depends on the codec. The batch that it was at work on is found in the frames that the error
    came through; the version is pinned, and tests with a broken log watch.
    """
    frame = interrupted(error)
    batch = frame and frame.f_locals.get("batch")
    if frame is None or batch is None:
        return None
    part: Any = frame.f_locals["self"]
    fetcher: Any = consumer._fetcher  # noqa: SLF001 - see above
    if fetcher._next_partition_records is part:  # noqa: SLF001
        # It is used up, and at the same position the client would ask it for ever.
        fetcher._next_partition_records = None  # noqa: SLF001
    offset = max(part.next_fetch_offset, batch.base_offset)
    stretch = Stretch(
        partition=part.topic_partition,
        offset=offset,
        next_offset=max(getattr(batch, "last_offset", offset), offset) + 1,  # the older formats have a batch for each record
        timestamp_ms=getattr(batch, "max_timestamp", None) or -1,
        raw=bytes(batch._buffer),  # noqa: SLF001 - see above
    )
    return UnreadableError(stretch, describe(error))
