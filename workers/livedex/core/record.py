"""What the log holds: records, their places, and the order of versions that a document's events have."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Self

from livedex.core.trace_context import TraceContext

# What livedex.wait_for takes too: the digits keep within the integers of Postgres.
_TOKEN = re.compile(r"(?P<topic>[^:]+):(?P<partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})")
_LATEST_MS = 253_402_300_799_000  # the last second of the year 9999, in milliseconds


class Version(NamedTuple):
    """What orders the events of a document: compared field by field.

    `epoch` belongs to the source and rises when its topic is recreated. `number` is the offset in `log` mode and the
    producer's own version in `source` mode. `offset` breaks ties within one topic and partition.
    """

    epoch: int
    number: int
    offset: int


class Place(NamedTuple):
    """Where a record stands in the log. Its text form is the token of contracts.md: `topic:partition:offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, token: str) -> Self | None:
        """The place that a token names, or None when it is no token. Topics may not contain colons, so it is unique."""
        parts = _TOKEN.fullmatch(token)
        return cls(parts["topic"], int(parts["partition"]), int(parts["offset"])) if parts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the log, as raw bytes."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # Kafka's timestamp, milliseconds since 1970; -1 when the record has none
    key: bytes | None
    value: bytes | None  # None is a tombstone, which is not the same as empty
    headers: tuple[tuple[str, bytes | None], ...] = ()
    trace: TraceContext | None = field(default=None, compare=False)  # that its headers carry, where somebody asked

    @property
    def place(self) -> Place:
        """Where the record stands in the log."""
        return Place(self.topic, self.partition, self.offset)

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers

    @property
    def timestamp(self) -> datetime:
        """Kafka's timestamp in UTC, clamped to the years that a database can hold."""
        return datetime.fromtimestamp(min(max(self.timestamp_ms, 0), _LATEST_MS) / 1000, UTC)
