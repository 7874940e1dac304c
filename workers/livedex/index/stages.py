"""What each stage of the pipeline does with one piece of work: plan, embed, stage, apply. No threads, no queues here.

A stage returns the work with more known about it, or raises: the pipeline then drops the batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from livedex.core.change import Change, Reason, Rejection
from livedex.core.chunking import Chunk, chunk
from livedex.core.isolate import Streak, isolate
from livedex.core.plan import DocumentPlan, DocumentResult, outcomes, plan, read
from livedex.core.record import Place
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConfigError, SystemicError, UnavailableError
from livedex.index.batch import Applied, Batch, PoisonFoundError, UnsettledError, Work
from livedex.index.recent import RecentVectors
from livedex.index.refusals import RefusedError, UnknownCommitError
from livedex.index.store import Store
from livedex.observe import IndexMetrics

RECENT_VECTORS = 8192  # vectors kept in memory, 12 MB at 384 dimensions: enough for all batches in flight
CHUNKS_PER_SLICE = 256  # seconds of encoding: what a worker that is killed in a large document has to make again
MEMORY_TRIES = 4  # of a document that the encoder has no memory for, before it is at fault
DETAIL_CHARACTERS = 300  # of an encoder's message in a dead letter
NOT_THE_TEXT = (UnavailableError, EncodingStopped, SystemicError, ConfigError)  # what an encoder raises whatever the text is


class _UnreadableError(Exception):
    """The model's tokenizer fails on a document's text."""

    def __init__(self, change: Change, cause: Exception) -> None:
        super().__init__(str(cause))
        self.change = change


class Stages:
    """The four steps, over a store and a clock."""

    def __init__(
        self, store: Store, metrics: IndexMetrics, *, failures_in_a_row: int, clock: Callable[[], float],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._stopped = stopped
        self._recent = RecentVectors(RECENT_VECTORS)
        self._failures_in_a_row = failures_in_a_row
        self._unembedded = Streak(failures_in_a_row)
        self._unstored = Streak(failures_in_a_row)
        self._starved: Counter[Place] = Counter()  # tries of documents that the encoder had no memory for, each alone

    def plan(self, work: Work) -> Work:
        """Decode, fold, drop what is stale, chunk, and look up which chunks are embedded already."""
        batch, poisoned = work.batch, dict(work.poisoned)
        while True:
            reading = read(batch.records, mode=batch.generation.version_mode, epoch=batch.claim.epoch, poisoned=poisoned)
            stored = self._store.stored_versions(batch.generation, sorted({c.document_id for c in reading.changes}))
            try:
                planned = plan(reading, stored, lambda change: _chunk(change, batch, self._stopped))
            except _UnreadableError as error:
                poisoned[error.change.place.offset] = self._at_fault(self._unembedded, error.change, error)
                continue
            keys = self._store.known_chunks(batch.generation, planned.chunks)
            return replace(work, poisoned=poisoned, plan=planned, keys=keys)

    def embed(self, work: Work, keep: Callable[[Work], Work] | None = None) -> Work:
        """Make the vectors that are missing, slice by slice: `keep` takes what came before the last one to be staged, and the
        last is in the answer. What is kept is not lost if the rest fails: it is found by its digest.

        A document that the encoder fails on is a dead letter; the batch is then folded again without that event, so that an
        older good one of the same document is applied.
        """
        while True:
            missing = {digest: found for digest, found in work.planned.chunks.items() if digest not in work.keys}
            failed: dict[int, Rejection] = {}
            for part in _slices(missing):
                work = (keep or self.stage)(work) if work.vectors else work
                work, failed = self._embed_slice(work, part)
                if failed:
                    break  # the rest may be of the same document, and cost minutes
            if not failed:
                break
            work = self.plan(replace(work, poisoned={**work.poisoned, **failed}, vectors={}))
        collection = work.batch.generation.collection
        self._metrics.embedding_lag.labels(collection).observe(max(0.0, self._clock() - work.batch.polled_at))
        return work

    def _embed_slice(self, work: Work, part: Mapping[bytes, Chunk]) -> tuple[Work, dict[int, Rejection]]:
        """(the work with the vectors of these chunks, rejections by offset)."""
        recent = self._recent.get(work.batch.generation.generation_id, part)
        todo = {digest: found for digest, found in part.items() if digest not in recent}
        vectors, failed = self._encode(work, todo)
        return replace(work, vectors={**recent, **vectors}, embedded=work.embedded | vectors.keys()), failed

    def stage(self, work: Work) -> Work:
        """Insert the new chunks and vectors; nothing of it is visible yet."""
        chunks = work.planned.chunks
        new = [chunks[digest] for digest in work.vectors]
        if not new:
            return work
        try:
            staged = self._store.stage(work.batch.generation, new, work.vectors)
        except RefusedError as error:

            def rehearse(documents: Sequence[DocumentPlan]) -> None:
                own = {c.digest: c for document in documents for c in document.chunks or () if c.digest in work.vectors}
                self._store.stage(work.batch.generation, list(own.values()), work.vectors)

            raise self._poison(work, rehearse) or error from error
        return replace(work, keys={**work.keys, **staged}, vectors={})

    def apply(self, work: Work) -> Applied:
        """Make the batch searchable."""
        generation, claim = work.batch.generation, work.batch.claim
        try:
            results = self._store.apply(generation, work.advance, work.planned, work.keys)
            self._unstored.passed()
        except UnknownCommitError as error:
            raise UnsettledError(error, self._applied(work, error.results)) from error
        except RefusedError as error:
            poison = self._poison(work, lambda some: self._store.rehearse(generation, claim, some, work.keys))
            raise poison or error from error
        return self._applied(work, results)

    def _applied(self, work: Work, results: Mapping[str, DocumentResult]) -> Applied:
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
        """(vectors by digest, rejections by offset): all at once, and in ever smaller parts when that fails."""
        vectors: dict[bytes, NDArray[np.float32]] = {}

        def failure(documents: Sequence[DocumentPlan]) -> Exception | None:
            own = {c.digest: c for d in documents for c in d.chunks or () if c.digest in todo and c.digest not in vectors}
            try:
                vectors.update(self._encode_chunks(work.batch, own) if own else {})
            except NOT_THE_TEXT:
                raise
            except MemoryError as error:
                if len(documents) == 1:
                    self._wait_for_memory(_content(documents[0]))
                return error
            except Exception as error:  # noqa: BLE001 - whatever the model makes of a text
                return error
            if own:
                self._unembedded.passed()
            return None

        asking = [document for document in work.planned.documents if any(c.digest in todo for c in document.chunks or ())]
        contents = ((_content(document), error) for document, error in isolate(asking, failure))
        failed = {content.place.offset: self._at_fault(self._unembedded, content, error) for content, error in contents}
        return vectors, failed

    def _wait_for_memory(self, content: Change) -> None:
        """Others may have used it up, so a document is tried again, a few times."""
        self._starved[content.place] += 1
        if self._starved[content.place] < MEMORY_TRIES:
            raise UnavailableError("embedder", "the encoder has no memory for a document")
        del self._starved[content.place]

    def _poison(self, work: Work, rehearse: Callable[[Sequence[DocumentPlan]], object]) -> PoisonFoundError | None:
        """The documents that the database refuses, found by trying parts; None when it refuses none of them alone."""

        def failure(documents: Sequence[DocumentPlan]) -> RefusedError | None:
            try:
                rehearse(documents)
            except RefusedError as error:
                return error
            self._unstored.passed()
            return None

        refused = {
            change.place.offset: self._at_fault(self._unstored, change, error)
            for document, error in isolate(work.planned.documents, failure)
            for change in document.state.parts
        }
        return PoisonFoundError(refused) if refused else None

    def _at_fault(self, streak: Streak, change: Change, error: Exception) -> Rejection:
        """Why a change cannot be indexed; SystemicError when so many cannot that they are not at fault."""
        detail = f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS].replace("\0", "")
        storing = streak is self._unstored
        if streak.failed(change.place):
            raise SystemicError(
                "postgres" if storing else "embedder",
                f"{'the database' if storing else 'the encoder'} failed on {self._failures_in_a_row} records in a row, at last "
                f"with {type(error).__name__}: nothing is skipped, and it goes on by itself once that is mended. If really the "
                "records are at fault, set LIVEDEX_FAILURES_IN_A_ROW higher to make them dead letters",
            ) from error
        return Rejection(
            reason=Reason.STORING_FAILED if storing else Reason.EMBEDDING_FAILED,
            detail=detail,
            document_id=change.document_id,
            version=change.version,
        )

    def _encode_chunks(self, batch: Batch, chunks: Mapping[bytes, Chunk]) -> dict[bytes, NDArray[np.float32]]:
        texts = [found.embedded_text for found in chunks.values()]
        vectors = batch.encoder.encode_documents(texts, stopped=self._stopped)
        wanted = (len(texts), batch.generation.identity.dimension)
        if vectors.shape != wanted:
            raise SystemicError("embedder", f"the encoder gave vectors of shape {vectors.shape}, {wanted} was expected")
        sound = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        if not sound.all():
            raise ValueError(f"the encoder gave {np.count_nonzero(~sound)} of {len(texts)} vectors without a direction")
        made = dict(zip(chunks, vectors, strict=True))
        self._recent.put(batch.generation.generation_id, made)
        self._metrics.chunks.labels(batch.generation.collection, "embedded").inc(len(made))
        return made


def _chunk(change: Change, batch: Batch, stopped: Callable[[], bool]) -> tuple[Chunk, ...]:
    try:
        return chunk(
            change.text,
            title=change.title,
            markdown=change.markdown,
            spec=batch.generation.spec,
            count_tokens=partial(batch.encoder.count_tokens, stopped=stopped),
            max_tokens=batch.generation.identity.max_tokens,
        )
    except NOT_THE_TEXT:
        raise
    except Exception as error:
        raise _UnreadableError(change, error) from error


def _slices(chunks: Mapping[bytes, Chunk]) -> Iterator[dict[bytes, Chunk]]:
    """The chunks in parts, in their order."""
    items = list(chunks.items())
    for start in range(0, len(items), CHUNKS_PER_SLICE):
        yield dict(items[start : start + CHUNKS_PER_SLICE])


def _content(document: DocumentPlan) -> Change:
    assert document.state.content is not None  # only content has chunks
    return document.state.content
