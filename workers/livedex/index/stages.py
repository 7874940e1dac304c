"""What each stage of the pipeline does with one piece of work: plan, embed, stage, apply. No threads, no queues here.

A stage returns the work with more known about it, or raises: the pipeline then drops the batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Target
from livedex.core.change import Change, Rejection
from livedex.core.chunking import Chunk
from livedex.core.isolate import isolate
from livedex.core.plan import Chunks, DocumentPlan, DocumentResult, outcomes, plan, read
from livedex.core.record import Place
from livedex.encoders.port import EncodingStopped, no_memory
from livedex.errors import ConflictError, UnavailableError
from livedex.index.applying import Keys, merged
from livedex.index.batch import Applied, PoisonFoundError, UnsettledError, Work
from livedex.index.blame import Blame, blamed, detail
from livedex.index.encoding import NOT_THE_TEXT, cut, encode
from livedex.index.recent import Recent
from livedex.index.refusals import RefusedError, UnknownCommitError
from livedex.index.store import Store
from livedex.observe import IndexMetrics, logger
from livedex.tracing import exemplar

RECENT_VECTORS = 8192  # vectors kept in memory, 12 MB at 384 dimensions: enough for all batches in flight
RECENT_COUNTS = 50_000  # numbers of tokens of chunks and contexts, 12 MB: some 20 MB of text
CHUNKS_PER_SLICE = 256  # seconds of encoding: what a worker that is killed in a large document has to make again
MEMORY_TRIES = 6  # of a document that the encoder has no memory for, while it has some for FEW_WORDS, before it is at fault
FEW_WORDS = "a few words"
_log = logger("index")


class UnreadableTextError(Exception):
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
        self._recent: Recent[NDArray[np.float32]] = Recent(RECENT_VECTORS)
        self._counts: Recent[int] = Recent(RECENT_COUNTS)
        self._unembedded = Blame("embedder", failures_in_a_row)
        self._unstored = Blame("postgres", failures_in_a_row)
        self._starved: Counter[Place] = Counter()  # tries of documents that the encoder had no memory for, each alone

    def plan(self, work: Work) -> Work:
        """Decode, fold, drop what is stale, chunk, and look up which chunks are embedded already."""
        batch, poisoned = work.batch, dict(work.poisoned)
        while True:
            reading = read(batch.records, mode=batch.generation.version_mode, epoch=batch.claim.epoch, poisoned=poisoned)
            stored = self._store.stored_versions(batch.generation, sorted({c.document_id for c in reading.changes}))
            try:
                planned = plan(reading, stored, lambda change: self._chunk(change, batch.targets))
            except UnreadableTextError as error:
                poisoned[error.change.place.offset] = self._unembedded.at_fault(error.change, error)
                continue
            keys = {made.generation_id: self._store.known_chunks(made, planned.chunks(made.chunking_id)) for made in batch.live}
            return replace(work, poisoned=poisoned, plan=planned, keys=keys)

    def _chunk(self, change: Change, targets: Sequence[Target]) -> Chunks:
        """The chunks of a text in the chunking of each target."""
        active, *others = targets
        chunks = {active.generation.chunking_id: self._cut(change, active)}
        for target in others:
            with self._spared(target):
                chunks[target.generation.chunking_id] = self._cut(change, target)
        return chunks

    def _cut(self, change: Change, target: Target) -> tuple[Chunk, ...]:
        try:
            return cut(
                change.text, title=change.title, markdown=change.markdown, target=target, stopped=self._stopped,
                counts=self._counts,
            )  # fmt: skip
        except NOT_THE_TEXT:
            raise
        except Exception as error:
            raise UnreadableTextError(change, error) from error

    def embed(self, work: Work, keep: Callable[[Work], Work] | None = None) -> Work:
        """Make the vectors that are missing, slice by slice: `keep` takes what came before the last one to be staged, and the
        last is in the answer. What is kept is not lost if the rest fails: it is found by its digest.

        A document that the encoder fails on is a dead letter; the batch is then folded again without that event, so that an
        older good one of the same document is applied.
        """
        while True:
            failed: dict[int, Rejection] = {}
            for target in work.batch.targets:
                try:
                    work, failed = self._embed_for(target, work, keep or self.stage)
                except UnavailableError as error:
                    raise _found(work) or error from error
                if failed:
                    break
            if not failed:
                break
            work = self.plan(replace(work, poisoned={**work.poisoned, **failed}, staging=None, vectors={}))
        collection = work.batch.generation.collection
        lag, context = max(0.0, self._clock() - work.batch.polled_at), work.batch.journey.context
        self._metrics.embedding_lag.labels(collection).observe(lag, exemplar(context))
        return work

    def _embed_for(self, target: Target, work: Work, keep: Callable[[Work], Work]) -> tuple[Work, dict[int, Rejection]]:
        """(the work with the last of the vectors that the target lacks, rejections by offset)."""
        chunks, known = work.planned.chunks(target.generation.chunking_id), work.known(target)
        for part in _slices({digest: found for digest, found in chunks.items() if digest not in known}):
            work = keep(work) if work.vectors else work
            work, failed = self._embed_slice(target, work, part)
            if failed:
                return work, failed  # the rest may be of the same document, and cost minutes
        return work, {}

    def _embed_slice(self, target: Target, work: Work, part: Mapping[bytes, Chunk]) -> tuple[Work, dict[int, Rejection]]:
        """(the work with the vectors of these chunks, rejections by offset)."""
        recent = self._recent.get(target.generation.generation_id, part)
        todo = {digest: found for digest, found in part.items() if digest not in recent}
        if target is work.batch.targets[0]:
            vectors, failed = self._encode(work, todo)
            work = replace(work, embedded=work.embedded | vectors.keys())
        else:
            with self._spared(target):
                vectors, failed = self._encode_chunks(target, todo) if todo else {}, {}
        return replace(work, staging=target, vectors={**recent, **vectors}), failed

    def stage(self, work: Work) -> Work:
        """Insert the new chunks and vectors; nothing of it is visible yet."""
        target = work.staging
        if target is None or not work.vectors:
            return work
        generation = target.generation
        chunks = work.planned.chunks(generation.chunking_id)
        try:
            with self._spared(target) if target is not work.batch.targets[0] else nullcontext():
                staged = self._store.stage(generation, [chunks[digest] for digest in work.vectors], work.vectors)
        except RefusedError as error:

            def rehearse(documents: Sequence[DocumentPlan]) -> None:
                ours = (c for document in documents for c in document.chunks_in(generation.chunking_id))
                own = {c.digest: c for c in ours if c.digest in work.vectors}
                self._store.stage(generation, list(own.values()), work.vectors)

            raise self._poison(work, rehearse) or error from error
        return replace(work, keys=merged(work.keys, {generation.generation_id: staged}), staging=None, vectors={})

    def hold(self, keys: Keys) -> None:
        """Keep staged chunks from the collector while their batch is in work."""
        self._store.hold(keys)

    def apply(self, work: Work) -> Applied:
        """Make the batch searchable."""
        live, claim = work.batch.live, work.batch.claim
        try:
            results = self._store.apply(live, work.advance, work.planned, work.keys)
            self._unstored.passed()
        except UnknownCommitError as error:
            raise UnsettledError(error, self._applied(work, error.results)) from error
        except RefusedError as error:
            poison = self._poison(work, lambda some: self._store.rehearse(live, claim, some, work.keys))
            raise poison or error from error
        return self._applied(work, results)

    def _applied(self, work: Work, results: Mapping[str, DocumentResult]) -> Applied:
        searched = work.batch.generation.chunking_id
        chunks = (found for document in work.planned.documents for found in document.chunks_in(searched))
        return Applied(
            batch=work.batch,
            outcomes=outcomes(work.planned, results),
            reused=sum(1 for found in chunks if found.digest not in work.embedded),
            rejected=work.planned.rejected,
            applied_at=self._clock(),
        )

    def _encode(self, work: Work, todo: Mapping[bytes, Chunk]) -> tuple[dict[bytes, NDArray[np.float32]], dict[int, Rejection]]:
        """(vectors by digest, rejections by offset) for the active generation: all at once, and in ever smaller parts when that
        fails.
        """
        active = work.batch.targets[0]
        chunking = active.generation.chunking_id
        vectors: dict[bytes, NDArray[np.float32]] = {}

        def failure(documents: Sequence[DocumentPlan]) -> Exception | None:
            ours = (c for document in documents for c in document.chunks_in(chunking))
            own = {c.digest: c for c in ours if c.digest in todo and c.digest not in vectors}
            try:
                vectors.update(self._encode_chunks(active, own) if own else {})
            except NOT_THE_TEXT:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the model makes of a text
                if len(documents) == 1 and no_memory(error):
                    self._wait_for_memory(_content(documents[0]), active)
                return error
            if own:
                self._unembedded.passed()
            return None

        asking = [each for each in work.planned.documents if any(c.digest in todo for c in each.chunks_in(chunking))]
        failed: dict[int, Rejection] = {}
        try:
            for document, error in isolate(asking, failure):
                content = _content(document)
                failed[content.place.offset] = self._unembedded.at_fault(content, error)
        except UnavailableError:
            if not failed:  # else those first
                raise
        return vectors, failed

    def _wait_for_memory(self, content: Change, target: Target) -> None:
        """Others may have used it up, so a document is tried again: without end while there is none for a few words either."""
        try:
            target.encoder.encode_documents([FEW_WORDS], stopped=self._stopped)
        except EncodingStopped:
            raise
        except Exception as error:
            raise UnavailableError("embedder", "the encoder has no memory") from error
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
            change.place.offset: self._unstored.at_fault(change, error)
            for document, error in isolate(work.planned.documents, failure)
            for change in blamed(document, failure)
        }
        return PoisonFoundError(refused) if refused else None

    def _encode_chunks(self, target: Target, chunks: Mapping[bytes, Chunk]) -> dict[bytes, NDArray[np.float32]]:
        made = encode(target, chunks, self._stopped)
        self._recent.put(target.generation.generation_id, made)
        self._metrics.chunks.labels(target.generation.collection, "embedded").inc(len(made))
        return made

    @contextmanager
    def _spared(self, target: Target) -> Iterator[None]:
        """A text that a generation beside the active one cannot take ends that generation, and not the collection. What fails
        whatever the text is, is waited for.
        """
        try:
            yield
        except (*NOT_THE_TEXT, ConflictError):
            raise
        except Exception as error:
            if no_memory(error):
                raise UnavailableError("embedder", "the encoder has no memory for a document") from error
            why = detail(error)
            number = target.generation.generation_id
            if self._store.fail_generation(target.generation, why):
                _log.error("index.generation_failed", generation=number, collection=target.generation.collection, why=why)
            raise ConflictError(f"generation {number} is written no more, because of {why}") from error


def _slices(chunks: Mapping[bytes, Chunk]) -> Iterator[dict[bytes, Chunk]]:
    """The chunks in parts that are embedded at once, in their order."""
    items = list(chunks.items())
    for start in range(0, len(items), CHUNKS_PER_SLICE):
        yield dict(items[start : start + CHUNKS_PER_SLICE])


def _found(work: Work) -> PoisonFoundError | None:
    """What was found to be at fault in a batch that has to be begun again: not to be found out again."""
    found = {offset: why for offset, why in work.poisoned.items() if offset not in work.batch.poisoned}
    return PoisonFoundError(found) if found else None


def _content(document: DocumentPlan) -> Change:
    assert document.state.content is not None  # only content has chunks
    return document.state.content
