"""What flows through the pipeline: a batch, the work that it becomes stage by stage, and how it ends."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Generation
from livedex.core.change import Change, Rejection
from livedex.core.plan import BatchPlan, Outcome
from livedex.core.record import Record
from livedex.encoders import Encoder
from livedex.errors import UnavailableError
from livedex.index.applying import Advance, Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one partition, in order, as one poll gave them; none where the log only has markers and gaps."""

    claim: Claim
    generation: Generation
    encoder: Encoder
    records: tuple[Record, ...]
    expected_offset: int  # the progress before this batch
    next_offset: int  # the progress after this batch
    polled_at: float  # seconds since 1970
    poisoned: Mapping[int, Rejection] = field(default_factory=dict)  # offsets that an earlier try found to be at fault

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
    keys: Mapping[bytes, int] = field(default_factory=dict)  # chunk keys of embedded chunks by digest
    vectors: Mapping[bytes, NDArray[np.float32]] = field(default_factory=dict)  # of chunks still to be staged
    embedded: frozenset[bytes] = frozenset()  # digests whose vectors were made for this batch

    @classmethod
    def of(cls, batch: Batch) -> "Work":
        """The work that a batch is at first."""
        return cls(batch=batch, poisoned=batch.poisoned)

    @property
    def planned(self) -> BatchPlan:
        """The plan, which every stage after the first may count on."""
        assert self.plan is not None
        return self.plan

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


BATCH_BYTES = 2**18  # about a hundred chunks: what waits behind a batch waits for seconds, not for minutes


def cut(records: tuple[Record, ...]) -> Iterator[tuple[Record, ...]]:
    """Parts of about BATCH_BYTES, in order; a larger record is a part of its own.

    Of the records with one key only the largest counts: all but one text of them are folded away and cost no embedding, so that
    of many versions of a document that wait one is embedded.
    """
    part: list[Record] = []
    sizes: dict[bytes | int, int] = {}  # by key; a record without one stands for itself
    for record in records:
        key = record.offset if record.key is None else record.key
        before = sizes.get(key, 0)
        if part and sum(sizes.values()) + max(record.size - before, 0) > BATCH_BYTES:
            yield tuple(part)
            part, sizes, before = [], {}, 0
        part.append(record)
        sizes[key] = max(record.size, before)
    yield tuple(part)


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
