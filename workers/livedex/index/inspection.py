"""Looks over what a fetch brought before the client takes it apart, so that the client is only given sound batches.

The client (3.0.12) believes the heads of batches before it checks anything: depending on the damage it raises one of half a
dozen errors, or goes on in the wrong place. Its one function that takes a fetch is private: the version is pinned, and tests
with a damaged log watch.
"""

from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    CorruptRecordError,
    InvalidRecordError,
    NoError,
    OffsetOutOfRangeError,
    RetriableError,
    UnknownError,
    for_code,
)

from livedex.index.log_bytes import inspect
from livedex.index.reach import Reach
from livedex.index.unreadable import Stretch, UnreadableError, WithheldError

_LOOKS = 8  # at the same position while in doubt
_LARGEST_FETCH = 2**26  # bytes: more than twice the largest batch that `livedex apply` lets a topic take
_STUMBLED = (CorruptRecordError, InvalidRecordError, UnknownError)  # how a broker says that its log is damaged
_LEFT_TO_THE_CLIENT = (NoError, OffsetOutOfRangeError, RetriableError)
_DAMAGED = "its checksum does not match, or its head contradicts what stands around it"


class Inspection:
    """Stands between one consumer's fetches and its parser. Raises UnreadableError and WithheldError out of its `poll`."""

    def __init__(self, consumer: KafkaConsumer, reach: Reach) -> None:
        self._fetcher: Any = consumer._fetcher  # noqa: SLF001 - see above
        self._reach = reach
        self._parse = self._fetcher._parse_fetched_data  # noqa: SLF001
        self._looks: dict[TopicPartition, tuple[int, int]] = {}  # position, and how often it was looked at in doubt
        self._fetcher._parse_fetched_data = self._inspected  # noqa: SLF001

    def _inspected(self, fetched: Any) -> Any:
        if self._wanted(fetched):
            self._mend_answer(fetched)
            if fetched.partition_data.records:
                self._keep_sound(fetched)
        return self._parse(fetched)

    def _mend_answer(self, fetched: Any) -> None:
        """When the broker stumbles over its log, read on from before the place; WithheldError when it refuses that too."""
        partition, position, data = fetched.topic_partition, fetched.fetched_offset, fetched.partition_data
        error = for_code(data.error_code)
        if issubclass(error, _LEFT_TO_THE_CLIENT):
            return
        size = self._fetcher.config["max_partition_fetch_bytes"]
        found = self._reach.back(partition, position, size) if issubclass(error, _STUMBLED) else None
        if found is None:
            raise _withheld(partition, position, error.__name__)
        data.error_code, data.records, data.high_watermark = NoError.errno, found.content, found.end_offset

    def _wanted(self, fetched: Any) -> bool:
        """Whether the partition is still read at the position that was fetched."""
        subscriptions = self._fetcher._subscriptions  # noqa: SLF001
        partition = fetched.topic_partition
        return bool(
            subscriptions.is_fetchable(partition)
            and subscriptions.assignment[partition].position.offset == fetched.fetched_offset
        )

    def _keep_sound(self, fetched: Any) -> None:
        partition, position, data = fetched.topic_partition, fetched.fetched_offset, fetched.partition_data
        content = bytes(data.records)
        before, looks = self._looks.pop(partition, (position, 0))
        looks = looks + 1 if before == position else 1
        found = inspect(content, position, data.high_watermark, sure=looks >= _LOOKS)
        if found.damage is not None:
            at = found.damage
            raise UnreadableError(
                Stretch(
                    partition=partition, offset=at.offset, next_offset=at.next_offset, timestamp_ms=at.timestamp_ms, raw=at.raw
                ),
                _DAMAGED,
            )
        if found.doubt:
            self._looks[partition] = (position, looks)
        if found.cut:
            self._fetch_more(2 * len(content))
        if (found.start, found.end) != (0, len(content)):
            data.records = content[found.start : found.end]

    def _fetch_more(self, size: int) -> None:
        """What fills a fetch may all lie before the position: then the next one has to reach further."""
        for limit in ("max_partition_fetch_bytes", "fetch_max_bytes"):
            self._fetcher.config[limit] = max(self._fetcher.config[limit], min(size, _LARGEST_FETCH))


def _withheld(partition: TopicPartition, position: int, why: str) -> WithheldError:
    return WithheldError(
        [partition],
        f"the broker gives nothing out of {partition.topic}[{partition.partition}] from offset {position} on: {why}. Make a "
        "sound replica its leader, or let this worker read the topic; nothing is skipped until then",
    )
