"""What the worker knows of a partition that the group gave it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kafka import TopicPartition

from livedex.core.change import Rejection
from livedex.core.progress import PartitionProgress
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConflictError, SystemicError, UnavailableError
from livedex.index.applying import Claim
from livedex.index.batch import Applied, PoisonFoundError
from livedex.index.refusals import FencedError
from livedex.index.source import LostPositionError


class Hold(StrEnum):
    """Why a partition is not read at the moment: the labels of livedex_paused_partitions."""

    CLAIM = "claim"  # it came a moment ago
    BACKPRESSURE = "backpressure"  # much of it is in flight
    KAFKA = "kafka"  # does not answer
    POSTGRES = "postgres"
    EMBEDDER = "embedder"
    CONFLICT = "conflict"  # another transaction, or another owner, was in the way
    SYSTEMIC = "systemic"  # everything fails
    UNREADABLE = "unreadable"  # the log has records there that cannot be taken apart
    STOPPED = "stopped"  # its source is, until an operator acts
    DEFECT = "defect"  # something that livedex did not expect


@dataclass(slots=True, kw_only=True)
class Partition:
    """One partition, between the moment it came and the moment it goes."""

    progress: PartitionProgress
    hold: Hold | None = Hold.CLAIM  # None: it is claimed
    due: float | None = 0.0  # monotonic second from which it may be claimed; None: it is, or must not be
    attempts: int = 0  # failures in a row
    position: int = 0  # where the next batch begins
    poisoned: dict[int, Rejection] = field(default_factory=dict)  # offsets found to be at fault, not yet applied
    unread: Counter[int] = field(default_factory=Counter)  # tries to read what cannot be taken apart, by offset
    unsettled: Applied | None = None  # a batch of which nobody knows whether it was committed

    @property
    def reading(self) -> bool:
        """Whether it is claimed."""
        return self.hold is None

    def claimed(self, next_offset: int) -> None:
        """Read on from here."""
        self.hold, self.due = None, None
        self.position = next_offset
        self.progress.claimed(next_offset)

    def held(self, why: Hold, now: float, *, due: float | None) -> None:
        """Not read from now (seconds since 1970) on, and to be claimed from `due` on, if at all."""
        self.hold, self.due = why, due
        self.progress.stalled(now)

    def applied(self, next_offset: int) -> None:
        """Everything before this is searchable."""
        self.attempts = 0
        self.progress.applied(next_offset)
        self.unread.clear()
        self.poisoned = {offset: why for offset, why in self.poisoned.items() if offset >= next_offset}

    def staleness(self, now: float, end_offset: int) -> float:
        """As its progress says. Of a stopped source the offsets say nothing: its log may be another one."""
        stopped_since = self.progress.stalled_since if self.hold is Hold.STOPPED else None
        return self.progress.staleness(now, end_offset) if stopped_since is None else max(0.0, now - stopped_since)

    def tries(self, offset: int) -> int:
        """Count one more try to read what stands at an offset; how many there were."""
        self.unread[offset] += 1
        return self.unread[offset]

    def settled_by(self, claim: Claim) -> Applied | None:
        """How the commit ended whose answer was lost, if it came true: the progress is behind it, and nobody else owned the
        partition since.
        """
        end, self.unsettled = self.unsettled, None
        if end is None or claim.owner_epoch != end.batch.claim.owner_epoch + 1 or claim.next_offset != end.batch.next_offset:
            return None
        return end

    def rejections(self, offsets: range) -> Mapping[int, Rejection]:
        """What is known to be at fault of these offsets."""
        return {offset: why for offset, why in self.poisoned.items() if offset in offsets}


def hold_of(error: Exception) -> Hold:
    """Why a partition is held after this error."""
    if isinstance(error, UnavailableError):
        return Hold(error.dependency)
    if isinstance(error, SystemicError):
        return Hold.SYSTEMIC
    if isinstance(error, ConflictError | FencedError):
        return Hold.CONFLICT
    expected = isinstance(error, LostPositionError | EncodingStopped | PoisonFoundError)
    return Hold.CLAIM if expected else Hold.DEFECT


def name_of(partition: TopicPartition) -> str:
    """As people read it: topic[number]."""
    return f"{partition.topic}[{partition.partition}]"
