"""What a batch of records means for the index, decided before anything is embedded or written.

records --read--> changes and rejections --coalesce, fence, chunk--> BatchPlan --(applied)--> an outcome per event
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from livedex.core.change import Change, Op, Rejection, VersionMode, decode
from livedex.core.chunking import Chunk
from livedex.core.fold import DocumentState, coalesce, fence
from livedex.core.record import Record, Version


class Outcome(StrEnum):
    """What became of an event; each event has exactly one (contracts.md section 7)."""

    APPLIED = "applied"  # it changed the state
    UNCHANGED = "unchanged"  # accepted, with the content and metadata that were there
    SUPERSEDED = "superseded"  # folded away within its batch
    STALE = "stale"  # refused by the version fence
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The records of a batch, decoded."""

    changes: tuple[Change, ...]
    rejected: tuple[tuple[Record, Rejection], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersions:
    """The versions that the database has of a document's two parts; None: that part was never seen."""

    content: Version | None
    metadata: Version | None


#: A document's chunks in order, by chunking: each live generation of a collection has its own.
Chunks = Mapping[int, tuple[Chunk, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPlan:
    """The parts of a document that this batch may replace."""

    document_id: str
    state: DocumentState
    chunks: Chunks | None  # None: the content stays, so its chunks do

    def chunks_in(self, chunking: int) -> tuple[Chunk, ...]:
        """Its chunks in a chunking; none where the content stays, or goes."""
        return (self.chunks or {}).get(chunking, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentResult:
    """What the fenced apply did with a document: the fence's verdict on each part, and whether readers see a change."""

    content_accepted: bool
    metadata_accepted: bool
    content_changed: bool
    metadata_changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """All that a batch asks of the index. Every event of the batch is in exactly one of the three parts."""

    documents: tuple[DocumentPlan, ...]
    settled: tuple[tuple[Change, Outcome], ...]  # superseded in the batch, or stale already
    rejected: tuple[tuple[Record, Rejection], ...]

    def chunks(self, chunking: int) -> dict[bytes, Chunk]:
        """The distinct chunks of the plan by digest, in a chunking."""
        return {chunk.digest: chunk for document in self.documents for chunk in document.chunks_in(chunking)}


def read(
    records: Iterable[Record], *, mode: VersionMode, epoch: int, poisoned: Mapping[int, Rejection] | None = None
) -> Reading:
    """Decode a partition's records; `poisoned` rejects the records at these offsets, whatever they hold."""
    poisoned = poisoned or {}
    changes: list[Change] = []
    rejected: list[tuple[Record, Rejection]] = []
    for record in records:
        result = poisoned.get(record.offset) or decode(record, mode=mode, epoch=epoch)
        if isinstance(result, Rejection):
            rejected.append((record, result))
        else:
            changes.append(result)
    return Reading(changes=tuple(changes), rejected=tuple(rejected))


def plan(reading: Reading, stored: Mapping[str, StoredVersions], chunk: Callable[[Change], Chunks]) -> BatchPlan:
    """Fold the batch, drop what the fence would refuse, and chunk what is left (`chunk` is called for upserts only)."""
    documents: list[DocumentPlan] = []
    states = coalesce(reading.changes)
    settled = [
        (change, Outcome.SUPERSEDED) for change in reading.changes if change.place not in states[change.document_id].winners
    ]
    for document_id, state in states.items():
        versions = stored.get(document_id)
        newer = fence(state, versions.content, versions.metadata) if versions else state
        kept = newer.winners if newer else frozenset()
        settled += [(change, Outcome.STALE) for change in state.parts if change.place not in kept]
        if newer is not None:
            documents.append(
                DocumentPlan(document_id=document_id, state=newer, chunks=_chunks(newer.content, chunk)),
            )
    return BatchPlan(documents=tuple(documents), settled=tuple(settled), rejected=reading.rejected)


def outcomes(plan: BatchPlan, results: Mapping[str, DocumentResult]) -> list[tuple[Change, Outcome]]:
    """Every change of a batch with what became of it; `results` has no entry for a document that the fence refused."""
    settled = list(plan.settled)
    for document in plan.documents:
        result = results.get(document.document_id)
        settled += [(change, _outcome(change, document.state, result)) for change in document.state.parts]
    return settled


def next_offset(records: Sequence[Record]) -> int:
    """Where to go on after these records. Offsets have gaps, so it is the last one's successor, not a count."""
    return records[-1].offset + 1


def _chunks(content: Change | None, chunk: Callable[[Change], Chunks]) -> Chunks | None:
    if content is None:
        return None
    return chunk(content) if content.op is Op.UPSERT else {}


def _outcome(change: Change, state: DocumentState, result: DocumentResult | None) -> Outcome:
    if result is None:
        return Outcome.STALE
    content = state.content is change and result.content_accepted
    metadata = state.metadata is change and result.metadata_accepted
    if not (content or metadata):
        return Outcome.STALE
    if (content and result.content_changed) or (metadata and result.metadata_changed):
        return Outcome.APPLIED
    return Outcome.UNCHANGED
