"""How much may be in flight: bytes of records that were polled and have not ended, per partition and in all."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

PARTITION_HIGH = 2 * 2**20  # bytes: above it the partition is held back
PARTITION_LOW = 2**20  # below it, it goes on
TOTAL_HIGH = 16 * 2**20

P = TypeVar("P", bound=Hashable)


class InFlight(Generic[P]):
    """Counts bytes per partition and says which partitions to hold back."""

    def __init__(self) -> None:
        self._bytes: Counter[P] = Counter()
        self._batches: Counter[P] = Counter()

    def add(self, partition: P, size: int) -> None:
        """A batch went into the pipeline."""
        self._bytes[partition] += size
        self._batches[partition] += 1

    def remove(self, partition: P, size: int, batches: int = 1) -> None:
        """A batch ended, or several that became one."""
        self._bytes[partition] -= size
        self._batches[partition] -= batches

    def of(self, partition: P) -> int:
        """How many batches of the partition are in flight."""
        return self._batches[partition]

    @property
    def bytes(self) -> int:
        """Everything in flight."""
        return self._bytes.total()

    @property
    def empty(self) -> bool:
        """Whether nothing is in flight."""
        return not any(self._batches.values())

    def to_pause(self, reading: Iterable[P]) -> list[P]:
        """Which of these to hold back."""
        full = self._bytes.total() > TOTAL_HIGH
        return [partition for partition in reading if full or self._bytes[partition] > PARTITION_HIGH]

    def to_resume(self, paused: Iterable[P]) -> list[P]:
        """Which of these may go on."""
        if self._bytes.total() > TOTAL_HIGH:
            return []
        return [partition for partition in paused if self._bytes[partition] < PARTITION_LOW]
