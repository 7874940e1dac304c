"""Gets at what a broker does not find in its own log: it looks for an offset by the heads of the batches before it, so that one
that is damaged is in its way, up to the next entry of its index. A fetch from before the damage brings everything, raw.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from livedex.config import KafkaSettings
from livedex.kafka import open_client, waited_for

_PATIENCE = 2.0  # seconds for one answer
_OPTIONS = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "none", "isolation_level": "read_committed",
            "fetch_max_wait_ms": 10, "enable_incremental_fetch_sessions": False}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raw:
    """What one fetch brought."""

    content: bytes
    end_offset: int  # of the log at that time


class Reach:
    """A consumer in no group, opened when it is needed first. Belongs to the thread that polls."""

    def __init__(self, settings: KafkaSettings) -> None:
        own = {name: value for name, value in settings.client.items() if not name.startswith("group_")}
        self._settings = settings.model_copy(update={"client": own})
        self._consumer: KafkaConsumer | None = None
        self._answers: list[Any] = []
        self._from: dict[TopicPartition, int] = {}  # where the last fetch that brought something began

    def back(self, partition: TopicPartition, position: int, size: int) -> Raw | None:
        """What a fetch of up to `size` bytes brings that begins before the position; None when the broker gives nothing."""
        for offset in self._before(partition, position):
            answer = self._fetch(partition, offset, size)
            if answer is not None and answer.error_code == 0 and answer.records:
                self._from[partition] = offset
                return Raw(bytes(answer.records), answer.high_watermark)
            if answer is not None and answer.error_code == OffsetOutOfRangeError.errno:
                break
        return None

    def _before(self, partition: TopicPartition, position: int) -> Iterator[int]:
        known = self._from.get(partition, position)
        if known < position:
            yield known
        step = 1
        while step < 2 * position:
            yield max(0, position - step)
            step *= 2

    def _fetch(self, partition: TopicPartition, offset: int, size: int) -> Any:
        consumer = self._consumer = self._consumer or self._open()
        fetcher: Any = consumer._fetcher  # noqa: SLF001 - as in `inspection`
        fetcher.config.update(max_partition_fetch_bytes=size, fetch_max_bytes=size)
        self._answers.clear()
        consumer.assign([partition])
        consumer.seek(partition, offset)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            consumer.poll(50)
            found = [
                answer for answer in self._answers if (answer.topic_partition, answer.fetched_offset) == (partition, offset)
            ]
            if found:
                return found[0].partition_data
        return None

    def _open(self) -> KafkaConsumer:
        with waited_for():
            consumer = open_client(KafkaConsumer, self._settings, "livedex-reach", **_OPTIONS)
        consumer._fetcher._parse_fetched_data = self._answers.append  # noqa: SLF001 - it keeps the bytes, and parses nothing
        return consumer

    def close(self) -> None:
        """Let the connection go."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=1_000)
