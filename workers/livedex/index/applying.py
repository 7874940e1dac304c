"""The statements of the fenced apply, in their order, on a connection that is in its transaction: the fence, the documents with
their chunks, the dead letters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from livedex import catalogue
from livedex.catalogue import Generation, Live
from livedex.core.change import Reason, Rejection
from livedex.core.chunking import Chunk
from livedex.core.fold import DocumentState
from livedex.core.plan import BatchPlan, DocumentPlan, DocumentResult
from livedex.core.record import Record
from livedex.database import Connection, query
from livedex.errors import ConflictError
from livedex.index.refusals import FencedError

#: Chunk keys by digest, by generation.
Keys = Mapping[int, Mapping[bytes, int]]


def merged(one: Keys, other: Keys) -> Keys:
    """The keys of both."""
    return {number: {**one.get(number, {}), **other.get(number, {})} for number in one.keys() | other.keys()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A partition as taken over by this worker: nothing can be applied under an older epoch."""

    topic: str
    partition: int
    owner_epoch: int
    next_offset: int  # where the database's progress stood at the claim
    epoch: int  # of the source, at the claim: the first part of every version. A reset raises it and ends the claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """The step of progress that a batch makes."""

    claim: Claim
    expected_offset: int
    next_offset: int
    event_time: datetime | None  # of the newest event in the batch


def move_progress(connection: Connection, advance: Advance, live: Live) -> list[int]:
    """Move the progress by compare-and-set, which also locks it; the generations that are built and not among `live`, for which
    the batch was made. FencedError when another worker moved it, or may, or when `live` lacks one that is active or kept.
    """
    claim, generation = advance.claim, live[0]
    shared = {"key": catalogue.COLLECTION_LOCK, "collection_id": generation.collection_id}
    connection.execute(query("index", "share_collection"), shared)
    moved = connection.execute(
        query("index", "move_progress"),
        {
            "topic": claim.topic,
            "partition": claim.partition,
            "owner_epoch": claim.owner_epoch,
            "expected_offset": advance.expected_offset,
            "next_offset": advance.next_offset,
            "event_time": advance.event_time,
            "collection_id": generation.collection_id,
            **fenced_by(live),
        },
    )
    row = moved.fetchone()
    if row is None:
        raise FencedError(
            f"{claim.topic}[{claim.partition}] is no longer at offset {advance.expected_offset} under owner epoch "
            f"{claim.owner_epoch} with the generations {', '.join(str(each.generation_id) for each in live)}: another worker "
            "took it over, or livedex apply or generation changed them"
        )
    return list(row[0])


def fenced_by(live: Live) -> dict[str, Any]:
    """What the statements with a fence ask of a collection's generations: the active one, and all that are live."""
    return {"generation_id": live[0].generation_id, "live": sorted(each.generation_id for each in live)}


def apply_documents(
    connection: Connection, live: Live, claim: Claim, plan: BatchPlan, keys: Keys, *, left_out: Sequence[int] = ()
) -> dict[str, DocumentResult]:
    """Write the documents that the version fence lets pass, with their maps; what became of each, by its id."""
    planned = {document.document_id: document for document in plan.documents}
    scope = {"collection_id": live[0].collection_id, "topic": claim.topic, "partition": claim.partition}
    with connection.cursor(row_factory=dict_row) as cursor:
        locked = cursor.execute(query("index", "lock_documents"), {**scope, "ids": list(planned)}).fetchall()
        rows = [_document_row(document) for document in plan.documents]
        written = cursor.execute(query("index", "apply_documents"), {**scope, "documents": Jsonb(rows)}).fetchall()
    before = {row["document_id"]: row for row in locked}
    accepted = {row["doc_key"]: planned[row["document_id"]] for row in written if _took_content(row, planned)}
    remapped: set[int] = set()
    for generation in live:
        mapping = {doc_key: document.chunks_in(generation.chunking_id) for doc_key, document in accepted.items()}
        remapped |= map_chunks(connection, generation, mapping, keys.get(generation.generation_id, {}))
    if left_out and accepted:
        changed = {"generations": list(left_out), "doc_keys": list(accepted)}
        connection.execute(query("index", "leave_to_builder"), changed)
    return {
        row["document_id"]: _result(planned[row["document_id"]].state, row, before.get(row["document_id"]), remapped)
        for row in written
    }


def _document_row(document: DocumentPlan) -> dict[str, Any]:
    state = document.state
    return {
        "document_id": document.document_id,
        "content_version": state.content and list(state.content.version),
        "metadata_version": state.metadata and list(state.metadata.version),
        "deleted": not state.visible,
        "title": state.content.title if state.content else None,
        "markdown": state.content.markdown if state.content and state.visible else None,
        "metadata": state.metadata_value,
        "event_time": state.newest.event_time.isoformat(),
        "offset": state.newest.place.offset,
    }


def _took_content(row: Mapping[str, Any], planned: Mapping[str, DocumentPlan]) -> bool:
    content = planned[row["document_id"]].state.content
    return content is not None and row["content_version"] == list(content.version)


def map_chunks(
    connection: Connection, generation: Generation, chunks: Mapping[int, tuple[Chunk, ...]], keys: Mapping[bytes, int]
) -> set[int]:
    """Make the map of these documents, whose rows are locked, these chunks; the keys of the documents whose map changed."""
    if not chunks:
        return set()
    try:
        wanted = [
            (doc_key, ordinal, keys[chunk.digest]) for doc_key, own in chunks.items() for ordinal, chunk in enumerate(own)
        ]
    except KeyError as error:
        raise ConflictError("a chunk was collected while it was staged: planning the batch again") from error
    arguments = {
        "chunking_id": generation.chunking_id,
        "doc_keys": [row[0] for row in wanted],
        "ordinals": [row[1] for row in wanted],
        "chunk_keys": [row[2] for row in wanted],
    }
    kept = {
        "chunking_id": generation.chunking_id,
        "doc_keys": list(chunks),
        "counts": [len(own) for own in chunks.values()],
        "chunk_keys": arguments["chunk_keys"],
    }
    try:
        mapped = connection.execute(query("index", "map_chunks"), arguments).fetchall() if wanted else []
    except errors.ForeignKeyViolation as error:
        raise ConflictError("a chunk was collected before it was mapped: planning the batch again") from error
    trimmed = connection.execute(query("index", "trim_chunks"), kept).fetchall()
    return {row[0] for row in [*mapped, *trimmed]}


def _result(
    state: DocumentState, row: Mapping[str, Any], before: Mapping[str, Any] | None, remapped: set[int]
) -> DocumentResult:
    content, metadata = state.content, state.metadata
    title = content.title if content else None
    return DocumentResult(
        content_accepted=content is not None and row["content_version"] == list(content.version),
        metadata_accepted=metadata is not None and row["metadata_version"] == list(metadata.version),
        content_changed=content is not None
        and (
            before is None
            or row["doc_key"] in remapped
            or before["deleted"] is state.visible
            or (state.visible and before["title"] != title)
        ),
        metadata_changed=before is None or before["metadata"] != state.metadata_value,
    )


_STAGES = {Reason.EMBEDDING_FAILED: "embed", Reason.STORING_FAILED: "store"}


def write_dead_letters(connection: Connection, advance: Advance, plan: BatchPlan) -> None:
    """Keep the records that cannot be indexed, and close the letters of those that can be by now."""
    claim = advance.claim
    settled = {
        "topic": claim.topic,
        "partition": claim.partition,
        "epoch": claim.epoch,
        "expected_offset": advance.expected_offset,
        "next_offset": advance.next_offset,
        "rejected": [record.offset for record, _ in plan.rejected],
    }
    connection.execute(query("index", "settle_dead_letters"), settled)
    for record, rejection in plan.rejected:
        connection.execute(query("index", "add_dead_letter"), dead_letter(record, rejection, claim))


def dead_letter(record: Record, rejection: Rejection, claim: Claim) -> dict[str, Any]:
    """The row of a record that cannot be indexed, with its exact bytes."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "document_id": rejection.document_id,
        "key": record.key,
        "value": record.value,
        "headers": [part for name, value in record.headers for part in (name.encode(errors="surrogateescape"), value)],
        "timestamp": record.timestamp,
        "stage": _STAGES.get(rejection.reason, "decode"),
        "reason": rejection.reason,
        "detail": rejection.detail,
        "epoch": claim.epoch,
        "version": rejection.version and list(rejection.version),
    }
