"""What each stage of the pipeline does with one piece of work: plan, embed, stage, apply. No threads, no queues here.

A stage returns the work with more known about it, or raises: the pipeline then drops the batch.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livedex.core.change import Change, Reason, Rejection
from livedex.core.chunking import Chunk, chunk
from livedex.core.plan import DocumentPlan, outcomes, plan, read
from livedex.encoders.port import EncodingStopped
from livedex.errors import UnavailableError
from livedex.index.batch import Applied, Batch, Work
from livedex.index.store import Store
from livedex.observe import IndexMetrics

RECENT_VECTORS = 8192  # vectors kept in memory, 12 MB at 384 dimensions: enough for all batches in flight
DETAIL_CHARACTERS = 300  # of an encoder's message in a dead letter


class _UnreadableError(Exception):
    """The model's tokenizer fails on a document's text."""

    def __init__(self, change: Change, cause: Exception) -> None:
        super().__init__(str(cause))
        self.change = change


class Stages:
    """The four steps, over a store and a clock."""

    def __init__(self, store: Store, metrics: IndexMetrics, *, clock: Callable[[], float], stopped: Callable[[], bool]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._stopped = stopped
        self._recent = RecentVectors(RECENT_VECTORS)

    def plan(self, work: Work) -> Work:
        """Decode, fold, drop what is stale, chunk, and look up which chunks are embedded already."""
        batch, poisoned = work.batch, dict(work.poisoned)
        while True:
            reading = read(batch.records, mode=batch.generation.version_mode, epoch=batch.epoch, poisoned=poisoned)
            stored = self._store.stored_versions(batch.generation, sorted({c.document_id for c in reading.changes}))
            try:
                planned = plan(reading, stored, lambda change: _chunk(change, batch))
            except _UnreadableError as error:
                poisoned[error.change.place.offset] = _rejection(error.change, error)
                continue
            keys = self._store.known_chunks(batch.generation, planned.chunks)
            return replace(work, poisoned=poisoned, plan=planned, keys=keys)

    def embed(self, work: Work) -> Work:
        """Make the vectors that are missing. A document that the encoder fails on is a dead letter; the batch is then folded
        again without that event, so that an older good one of the same document is applied.
        """
        while True:
            missing = {digest: found for digest, found in work.planned.chunks.items() if digest not in work.keys}
            recent = self._recent.get(work.batch.generation.generation_id, missing)
            todo = {digest: found for digest, found in missing.items() if digest not in recent}
            vectors, failed = self._encode(work, todo)
            if not failed:
                break
            embedded = work.embedded | vectors.keys()
            work = self.plan(replace(work, poisoned={**work.poisoned, **failed}, embedded=embedded))
        collection = work.batch.generation.collection
        self._metrics.embedding_lag.labels(collection).observe(max(0.0, self._clock() - work.batch.polled_at))
        return replace(work, vectors={**recent, **vectors}, embedded=work.embedded | vectors.keys())

    def stage(self, work: Work) -> Work:
        """Insert the new chunks and vectors; nothing of it is visible yet."""
        chunks = work.planned.chunks
        new = [chunks[digest] for digest in work.vectors]
        if not new:
            return work
        staged = self._store.stage(work.batch.generation, new, work.vectors)
        return replace(work, keys={**work.keys, **staged}, vectors={})

    def apply(self, work: Work) -> Applied:
        """Make the batch searchable."""
        results = self._store.apply(work.batch.generation, work.advance, work.planned, work.keys)
        return Applied(
            batch=work.batch,
            outcomes=outcomes(work.planned, results),
            reused=sum(
                1 for document in work.planned.documents for c in document.chunks or () if c.digest not in work.embedded
            ),
            rejected=work.planned.rejected,
            applied_at=self._clock(),
        )

    def _encode(self, work: Work, todo: Mapping[bytes, Chunk]) -> tuple[dict[bytes, NDArray[np.float32]], dict[int, Rejection]]:
        """(vectors by digest, rejections by offset): all at once, and document by document when that fails."""
        if not todo:
            return {}, {}
        try:
            return self._encode_chunks(work.batch, todo), {}
        except (UnavailableError, EncodingStopped):
            raise
        except Exception:  # noqa: BLE001 - whatever the model makes of a text; found out document by document
            return self._encode_apart(work, todo)

    def _encode_apart(
        self, work: Work, todo: Mapping[bytes, Chunk]
    ) -> tuple[dict[bytes, NDArray[np.float32]], dict[int, Rejection]]:
        vectors: dict[bytes, NDArray[np.float32]] = {}
        failed: dict[int, Rejection] = {}
        for document in work.planned.documents:
            own = {c.digest: c for c in document.chunks or () if c.digest in todo and c.digest not in vectors}
            try:
                vectors |= self._encode_chunks(work.batch, own) if own else {}
            except (UnavailableError, EncodingStopped):
                raise
            except Exception as error:  # noqa: BLE001 - see above
                content = _content(document)
                failed[content.place.offset] = _rejection(content, error)
        return vectors, failed

    def _encode_chunks(self, batch: Batch, chunks: Mapping[bytes, Chunk]) -> dict[bytes, NDArray[np.float32]]:
        texts = [found.embedded_text for found in chunks.values()]
        vectors = batch.encoder.encode_documents(texts, stopped=self._stopped)
        sound = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        if vectors.shape != (len(texts), batch.generation.identity.dimension) or not sound.all():
            raise ValueError(f"the encoder gave {np.count_nonzero(~sound)} vectors without a direction, shape {vectors.shape}")
        made = dict(zip(chunks, vectors, strict=True))
        self._recent.put(batch.generation.generation_id, made)
        self._metrics.chunks.labels(batch.generation.collection, "embedded").inc(len(made))
        return made


class RecentVectors:
    """The vectors made last. A batch that is read again after a failure, or that shares chunks with one still in flight, finds
    here what the database does not show yet.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[tuple[int, bytes], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, generation_id: int, digests: Mapping[bytes, object]) -> dict[bytes, NDArray[np.float32]]:
        """Those of the digests' vectors that are kept."""
        with self._lock:
            found = {digest: self._vectors.get((generation_id, digest)) for digest in digests}
        return {digest: vector for digest, vector in found.items() if vector is not None}

    def put(self, generation_id: int, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep these, and forget the oldest above the size."""
        with self._lock:
            for digest, vector in vectors.items():
                self._vectors[generation_id, digest] = vector
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)


def _chunk(change: Change, batch: Batch) -> tuple[Chunk, ...]:
    try:
        return chunk(
            change.text,
            title=change.title,
            markdown=change.markdown,
            spec=batch.generation.spec,
            count_tokens=batch.encoder.count_tokens,
            max_tokens=batch.generation.identity.max_tokens,
        )
    except UnavailableError:
        raise
    except Exception as error:
        raise _UnreadableError(change, error) from error


def _content(document: DocumentPlan) -> Change:
    assert document.state.content is not None  # only content has chunks
    return document.state.content


def _rejection(change: Change, error: Exception) -> Rejection:
    detail = f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]
    return Rejection(reason=Reason.EMBEDDING_FAILED, detail=detail.replace("\0", ""), document_id=change.document_id)
