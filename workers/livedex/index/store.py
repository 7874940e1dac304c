"""The Postgres side of the index worker: every statement that it sends, each in a short transaction.

`stage` inserts chunks and vectors ahead, idempotently; nothing of it is visible. `apply` makes a batch visible behind two
fences, or changes nothing and raises `FencedError`. What fails because Postgres is down raises UnavailableError.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from livedex import catalogue
from livedex.catalogue import Generation, Source
from livedex.core.change import Reason, Rejection
from livedex.core.chunking import Chunk
from livedex.core.fold import DocumentState
from livedex.core.plan import BatchPlan, DocumentPlan, DocumentResult, StoredVersions
from livedex.core.record import Record, Version
from livedex.database import Connection, query, translated
from livedex.errors import UnavailableError

STAGING_CONNECTIONS = 2  # an HNSW insert is bound by its connection; two give 1.8 times the rows on two cores
ROWS_FOR_ANOTHER_CONNECTION = 32  # below it, one connection is done before a second one has begun


class FencedError(Exception):
    """The partition has another owner by now, or the batch was applied before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A partition as taken over by this worker: nothing can be applied under an older epoch."""

    topic: str
    partition: int
    owner_epoch: int
    next_offset: int  # where the database's progress stood at the claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """The step of progress that a batch makes."""

    claim: Claim
    expected_offset: int
    next_offset: int
    event_time: datetime | None  # of the newest event in the batch


class Store:
    """The tables of livedex as the index worker writes them. Its methods may be called from any thread."""

    def __init__(self, pool: ConnectionPool[Connection]) -> None:
        self._pool = pool
        self._stagers = ThreadPoolExecutor(STAGING_CONNECTIONS, thread_name_prefix="stage")

    def close(self) -> None:
        """Give the connections back."""
        self._stagers.shutdown(wait=False, cancel_futures=True)
        self._pool.close(timeout=1)

    def catalogue(self) -> tuple[dict[str, Source], dict[int, Generation]]:
        """The sources by topic, and the active generations by collection id."""
        with translated(), self._pool.connection() as connection:
            return catalogue.sources(connection), catalogue.generations(connection)

    def claim(self, topic: str, partition: int, *, start: int, owner: str) -> Claim:
        """Take a partition over; the progress of a partition that nobody ever owned begins at `start`."""
        arguments = {"topic": topic, "partition": partition, "start": start, "owner": owner}
        with translated(), self._pool.connection() as connection:
            row = connection.execute(query("index", "claim"), arguments).fetchone()
        assert row is not None
        return Claim(topic=topic, partition=partition, owner_epoch=row[0], next_offset=row[1])

    def stored_versions(self, generation: Generation, ids: Sequence[str]) -> dict[str, StoredVersions]:
        """The versions of those of the documents that the database knows, deleted ones too."""
        arguments = {"collection_id": generation.collection_id, "ids": list(ids)}
        with translated(), self._pool.connection() as connection:
            rows = connection.execute(query("index", "stored_versions"), arguments).fetchall()
        return {row[0]: StoredVersions(content=_version(row[1]), metadata=_version(row[2])) for row in rows}

    def known_chunks(self, generation: Generation, digests: Iterable[bytes]) -> dict[bytes, int]:
        """The keys of those of the chunks that are embedded already, by digest."""
        statement = query("index", "known_chunks", embeddings=generation.embeddings)
        arguments = {"collection_id": generation.collection_id, "digests": list(digests)}
        if not arguments["digests"]:
            return {}
        with translated(), self._pool.connection() as connection:
            return dict(connection.execute(statement, arguments).fetchall())

    def stage(
        self, generation: Generation, chunks: Sequence[Chunk], vectors: Mapping[bytes, NDArray[np.float32]]
    ) -> dict[bytes, int]:
        """Insert chunks with their vectors ahead of the apply; the key of each chunk by digest. Invisible, idempotent."""
        ordered = sorted(chunks, key=lambda chunk: chunk.digest)
        parts = min(STAGING_CONNECTIONS, 1 + len(ordered) // ROWS_FOR_ANOTHER_CONNECTION)
        size = -(-len(ordered) // parts)
        slices = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        staged = self._stagers.map(lambda part: self._stage(generation, part, vectors), slices)
        return {digest: key for part in staged for digest, key in part.items()}

    def _stage(
        self, generation: Generation, chunks: Sequence[Chunk], vectors: Mapping[bytes, NDArray[np.float32]]
    ) -> dict[bytes, int]:
        staging = f"staging_{generation.storage}"
        names = {"staging": staging, "embeddings": generation.embeddings, "storage": generation.storage}
        arguments = {"collection_id": generation.collection_id, "text_config": generation.text_config}
        wrap = HalfVector if generation.storage == "halfvec" else Vector
        with translated(), self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(query("index", "staging_table", **names))
            with cursor.copy(query("index", "copy_staging", **names)) as copy:
                copy.set_types(["bytea", "text", "text", generation.storage])
                for chunk in chunks:
                    copy.write_row((chunk.digest, chunk.context, chunk.text, wrap(vectors[chunk.digest])))
            cursor.execute(query("index", "stage_chunks", **names), arguments)
            cursor.execute(query("index", "stage_embeddings", **names), arguments)
            return dict(cursor.execute(query("index", "staged_keys", **names), arguments).fetchall())

    def apply(
        self, generation: Generation, advance: Advance, plan: BatchPlan, keys: Mapping[bytes, int]
    ) -> dict[str, DocumentResult]:
        """Make a batch visible together with its progress, in one transaction; what it did with each document.

        Raises FencedError, and writes nothing, when another worker owns the partition or the progress stands elsewhere. A
        document that the version fence refuses has no entry in the answer.
        """
        with translated(), self._pool.connection() as connection, connection.transaction():
            _move_progress(connection, advance)
            results = _apply_documents(connection, generation, advance.claim, plan, keys) if plan.documents else {}
            for record, rejection in plan.rejected:
                connection.execute(query("index", "add_dead_letter"), _dead_letter(record, rejection))
        return results

    def open_dead_letters(self) -> dict[str, int]:
        """How many dead letters are open, by reason."""
        with translated(), self._pool.connection() as connection:
            return dict(connection.execute(query("index", "open_dead_letters")).fetchall())


def _version(stored: list[int] | None) -> Version | None:
    return Version(*stored) if stored else None


def _move_progress(connection: Connection, advance: Advance) -> None:
    claim = advance.claim
    moved = connection.execute(
        query("index", "move_progress"),
        {
            "topic": claim.topic,
            "partition": claim.partition,
            "owner_epoch": claim.owner_epoch,
            "expected_offset": advance.expected_offset,
            "next_offset": advance.next_offset,
            "event_time": advance.event_time,
        },
    )
    if moved.rowcount != 1:
        raise FencedError(
            f"{claim.topic}[{claim.partition}] is no longer at offset {advance.expected_offset} under owner epoch "
            f"{claim.owner_epoch}: another worker took it over"
        )


def _apply_documents(
    connection: Connection, generation: Generation, claim: Claim, plan: BatchPlan, keys: Mapping[bytes, int]
) -> dict[str, DocumentResult]:
    planned = {document.document_id: document for document in plan.documents}
    scope = {"collection_id": generation.collection_id, "topic": claim.topic, "partition": claim.partition}
    with connection.cursor(row_factory=dict_row) as cursor:
        locked = cursor.execute(query("index", "lock_documents"), {**scope, "ids": list(planned)}).fetchall()
        rows = [_document_row(document) for document in plan.documents]
        written = cursor.execute(query("index", "apply_documents"), {**scope, "documents": Jsonb(rows)}).fetchall()
    before = {row["document_id"]: row for row in locked}
    accepted = {row["doc_key"]: planned[row["document_id"]] for row in written if _took_content(row, planned)}
    remapped = _map_chunks(connection, generation, accepted, keys)
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
        "metadata": state.metadata_value,
        "event_time": state.newest.event_time.isoformat(),
        "offset": state.newest.place.offset,
    }


def _took_content(row: Mapping[str, Any], planned: Mapping[str, DocumentPlan]) -> bool:
    content = planned[row["document_id"]].state.content
    return content is not None and row["content_version"] == list(content.version)


def _map_chunks(
    connection: Connection, generation: Generation, accepted: Mapping[int, DocumentPlan], keys: Mapping[bytes, int]
) -> set[int]:
    """Make the map of the accepted documents what the plan says; the keys of the documents whose map changed."""
    if not accepted:
        return set()
    wanted = [
        (doc_key, ordinal, keys[chunk.digest])
        for doc_key, document in accepted.items()
        for ordinal, chunk in enumerate(document.chunks or ())
    ]
    arguments = {
        "chunking_id": generation.chunking_id,
        "doc_keys": [row[0] for row in wanted],
        "ordinals": [row[1] for row in wanted],
        "chunk_keys": [row[2] for row in wanted],
    }
    kept = {
        "chunking_id": generation.chunking_id,
        "doc_keys": list(accepted),
        "counts": [len(document.chunks or ()) for document in accepted.values()],
    }
    try:
        mapped = connection.execute(query("index", "map_chunks"), arguments).fetchall() if wanted else []
    except errors.ForeignKeyViolation as error:
        raise UnavailableError("postgres", "a chunk was collected before it was mapped: planning the batch again") from error
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


def _dead_letter(record: Record, rejection: Rejection) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "document_id": rejection.document_id,
        "key": record.key,
        "value": record.value,
        "headers": [part for name, value in record.headers for part in (name.encode(errors="surrogateescape"), value)],
        "timestamp": record.timestamp,
        "stage": "embed" if rejection.reason is Reason.EMBEDDING_FAILED else "decode",
        "reason": rejection.reason,
        "detail": rejection.detail,
    }
