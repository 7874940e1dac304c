"""What flows through the pipeline: a batch, the work that it becomes stage by stage, and how it ends."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Generation, Live, Target
from livedex.core.change import Change, Rejection
from livedex.core.plan import BatchPlan, Outcome
from livedex.core.record import Record
from livedex.errors import UnavailableError
from livedex.index.applying import Advance, Claim, Keys
from livedex.index.journey import Journey


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one partition, in order, as one poll or several gave them; none where the log only has markers and gaps."""

    claim: Claim
    targets: tuple[Target, ...]  # what it is written to, the active generation first
    records: tuple[Record, ...]
    expected_offset: int  # the progress before this batch
    next_offset: int  # the progress after this batch
    polled_at: float  # seconds since 1970; of the first of its records
    poisoned: Mapping[int, Rejection] = field(default_factory=dict)  # offsets that an earlier try found to be at fault
    submitted: int = 1  # how many batches the worker handed in that this one is
    journey: Journey = field(default_factory=Journey, compare=False)

    @property
    def generation(self) -> Generation:
        """The active one."""
        return self.targets[0].generation

    @property
    def live(self) -> Live:
        """The generations of the targets."""
        return tuple(target.generation for target in self.targets)

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return sum(record.size for record in self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A batch on its way: each stage adds what it found out."""

    batch: Batch
    poisoned: Mapping[int, Rejection]  # offsets whose content cannot be indexed
    plan: BatchPlan | None = None  # from the plan stage on
    keys: Keys = field(default_factory=dict)  # of chunks that are embedded
    staging: Target | None = None  # what `vectors` are for
    vectors: Mapping[bytes, NDArray[np.float32]] = field(default_factory=dict)  # of chunks still to be staged
    embedded: frozenset[bytes] = frozenset()  # digests whose vectors were made for this batch and its active generation

    @classmethod
    def of(cls, batch: Batch) -> "Work":
        """The work that a batch is at first."""
        return cls(batch=batch, poisoned=batch.poisoned)

    @property
    def planned(self) -> BatchPlan:
        """The plan, which every stage after the first may count on."""
        assert self.plan is not None
        return self.plan

    def known(self, target: Target) -> Mapping[bytes, int]:
        """The keys of the chunks that are embedded for a target, by digest."""
        return self.keys.get(target.generation.generation_id, {})

    @property
    def advance(self) -> Advance:
        """The step of progress that applying the batch makes."""
        batch = self.batch
        event_times = [change.event_time for document in self.planned.documents for change in [document.state.newest]]
        return Advance(
            claim=batch.claim,
            expected_offset=batch.expected_offset,
            next_offset=batch.next_offset,
            event_time=max(event_times, default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A batch that is searchable."""

    batch: Batch
    outcomes: list[tuple[Change, Outcome]]  # of every change
    rejected: tuple[tuple[Record, Rejection], ...]  # the dead letters
    reused: int  # chunks of its documents that cost no encoding
    applied_at: float  # seconds since 1970: the commit was acknowledged


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A batch that was given up and changed nothing: its partition is claimed again and read from the stored progress."""

    batch: Batch
    error: Exception | None = None  # None: another batch of the partition was dropped, or the partition was lost


End = Applied | Dropped


BATCH_BYTES = 2**18  # about four hundred chunks: what waits behind a batch waits for seconds, not for minutes
BATCH_RECORDS = 500  # how many the transaction that applies them handles at once, however little there is to embed


class _Load:
    """What a batch costs. Of the records with one key only the largest counts: all but one text of them are folded away and
    cost no embedding, so that of many versions of a document that wait one is embedded.
    """

    def __init__(self) -> None:
        self._count = self._total = self._largest = 0
        self._sizes: dict[bytes | int, int] = {}  # by key; a record without one stands for itself

    def takes(self, records: Sequence[Record]) -> bool:
        """Add records, unless there are some and all would be more than a batch, or a larger document alone, may cost."""
        grown: dict[bytes | int, int] = {}
        for record in records:
            key = record.offset if record.key is None else record.key
            grown[key] = max(record.size, grown.get(key, self._sizes.get(key, 0)))
        count = self._count + len(records)
        total = self._total + sum(size - self._sizes.get(key, 0) for key, size in grown.items())
        largest = max(self._largest, *grown.values(), 0)
        if self._count and (count > BATCH_RECORDS or total > max(BATCH_BYTES, largest)):
            return False
        self._count, self._total, self._largest = count, total, largest
        self._sizes.update(grown)
        return True


def cut(records: tuple[Record, ...]) -> Iterator[tuple[Record, ...]]:
    """Parts of about BATCH_BYTES, in order; a larger record is a part of its own, with other versions of its document."""
    part: list[Record] = []
    load = _Load()
    for record in records:
        if not load.takes([record]):
            yield tuple(part)
            part, load = [], _Load()
            load.takes([record])
        part.append(record)
    yield tuple(part)


def take_joined(waiting: deque[Work]) -> Work:
    """Take the first work of a partition, as one batch with those behind it that could have been polled with it.

    They came while the encoder was busy. Joined they cost no more than one batch may, so nobody waits longer for them.
    """
    first = waiting.popleft()
    load = _Load()
    load.takes(first.batch.records)
    batches = [first.batch]
    while waiting and _alike(first.batch, waiting[0].batch) and load.takes(waiting[0].batch.records):
        batches.append(waiting.popleft().batch)
    return first if len(batches) == 1 else Work.of(_joined(batches))


def _alike(one: Batch, other: Batch) -> bool:
    # the targets are others after every look at the catalogue that found something new, a source's first claim for one
    return one.claim is other.claim and one.targets == other.targets


def _joined(batches: Sequence[Batch]) -> Batch:
    return replace(
        batches[0],
        records=tuple(record for batch in batches for record in batch.records),
        next_offset=batches[-1].next_offset,
        poisoned={offset: why for batch in batches for offset, why in batch.poisoned.items()},
        submitted=len(batches),
        journey=Journey.joined(batch.journey for batch in batches),
    )


class UnsettledError(UnavailableError):
    """The connection was lost while the batch was committed: `applied` is how it ended if the progress row says so."""

    def __init__(self, cause: UnavailableError, applied: Applied) -> None:
        super().__init__(cause.dependency, str(cause))
        self.applied = applied


class PoisonFoundError(Exception):
    """These offsets make their batch fail: read it again without them."""

    def __init__(self, rejections: Mapping[int, Rejection]) -> None:
        super().__init__(f"{len(rejections)} records are at fault")
        self.rejections = rejections
