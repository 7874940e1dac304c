"""Builds a generation beside the active one, from the texts that its chunks tile: Kafka is not read again.

A thread of the worker that does the upkeep. Batches are written to the generation meanwhile, so only documents that no batch
has touched since it began are left to it, and what it has done stays done: after a kill the next worker goes on. It holds back
while batches are in work: what changes now is more urgent than what did not change for long.
"""

import threading
import time
from collections.abc import Callable, Sequence

from livedex.catalogue import Catalogue, Target
from livedex.core.chunking import Chunk
from livedex.core.upkeep import HOLD_EVERY
from livedex.encoders.port import EncodingStopped, no_memory
from livedex.errors import ConflictError, UnavailableError
from livedex.index.blame import detail
from livedex.index.building import BuildStore, Unbuilt
from livedex.index.encoding import NOT_THE_TEXT, cut, encode
from livedex.index.maintain_notes import Notes
from livedex.lifecycle import Stop
from livedex.observe import logger

CHUNKS = 64  # that are embedded at once: less than a second
YIELD = 0.1  # seconds that a slice waits at most for the batches in work
TOLD_EVERY = 5.0  # seconds between estimates of the end

_log = logger("upkeep")


class GenerationBuilder:
    """A thread of the index worker. It works while `elected` says that the upkeep is this worker's."""

    def __init__(
        self, *, store: BuildStore, catalogue: Callable[[], Catalogue], busy: Callable[[], bool], name: str, stop: Stop,
        look: float, notes: Notes, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._store = store
        self._catalogue = catalogue
        self._busy = busy
        self._name = name
        self._stop = stop
        self._look_every = look
        self._notes = notes
        self._clock = clock
        self._complete: dict[int, float] = {}  # generations that lacked nothing, and when to look again
        self.elected = False
        self._thread = threading.Thread(target=self._run, name="upkeep-build", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.asked:
            for active, target in self._unfinished() if self.elected else ():
                made = target.generation
                if self._clock() < self._complete.get(made.generation_id, 0.0):
                    continue
                with self._notes.noting(f"building {made.collection}", made.generation_id):
                    self._build(active, target)
            self._stop.wait(min(1.0, self._look_every))

    def _unfinished(self) -> list[tuple[Target, Target]]:
        """The active generation and one that is built beside it, of each collection that has such."""
        live = self._catalogue().targets.values()
        return [(active, other) for active, *others in live for other in others if other.generation.state == "building"]

    def _build(self, active: Target, target: Target) -> None:
        """Go through all documents once, from the first."""
        made, after = target.generation, 0
        left_out = self._store.begin_pass(made, self._name)
        pace = _Estimate(self._clock)
        while self._goes_on(active, target):
            documents = self._store.unbuilt(active.generation, made, after)
            if not documents:
                if not after:  # what batches left out since then is seen by the next pass
                    self._store.end_pass(made, left_out)
                    self._complete[made.generation_id] = self._clock() + self._look_every
                return
            if not after:
                _log.info("upkeep.generation_building", collection=made.collection, generation=made.generation_id)
            after = documents[-1].doc_key
            self._build_part(active, target, documents)
            if pace.due():
                built, wanted = self._store.extent(active.generation, made)
                seconds = pace.left(built, wanted)
                if seconds is not None:
                    self._store.note_end(made, seconds)

    def _goes_on(self, active: Target, target: Target) -> bool:
        """Whether this worker may still build this generation from that one."""
        if self._stop.asked or not self.elected:
            return False
        live = self._catalogue().targets.get(target.generation.collection_id, ())
        numbers = [each.generation.generation_id for each in live]
        return numbers[:1] == [active.generation.generation_id] and target.generation.generation_id in numbers

    def _build_part(self, active: Target, target: Target, documents: Sequence[Unbuilt]) -> None:
        made = target.generation
        texts = self._store.texts(active.generation, documents)
        try:
            chunks = {
                each.doc_key: cut(
                    texts[each.doc_key], title=each.title, markdown=each.markdown, target=target, stopped=self._stopped
                )
                for each in documents
                if each.doc_key in texts
            }
            keys = self._embedded(target, {found.digest: found for of in chunks.values() for found in of})
            self._store.map_built(active.generation, made, documents, chunks, keys)
        except EncodingStopped:
            return
        except (*NOT_THE_TEXT, ConflictError):
            raise
        except Exception as error:
            if no_memory(error):
                raise UnavailableError("embedder", "the encoder has no memory for a document") from error
            why = detail(error)
            if not self._store.fail_generation(made, why):
                raise ConflictError(f"generation {made.generation_id} is written no more") from error
            _log.error("upkeep.generation_failed", collection=made.collection, generation=made.generation_id, why=why)
            raise

    def _embedded(self, target: Target, chunks: dict[bytes, Chunk]) -> dict[bytes, int]:
        """The keys of all these chunks, by digest, once all have their vectors."""
        keys = self._store.known_chunks(target.generation, chunks)
        missing, held_at = [digest for digest in chunks if digest not in keys], self._clock()
        for start in range(0, len(missing), CHUNKS):
            self._give_way()
            if self._clock() - held_at >= HOLD_EVERY:  # a large document takes longer than a grace
                self._store.hold({target.generation.generation_id: keys})
                held_at = self._clock()
            part = {digest: chunks[digest] for digest in missing[start : start + CHUNKS]}
            vectors = encode(target, part, self._stopped)
            keys |= self._store.stage(target.generation, list(part.values()), vectors)
        return keys

    def _give_way(self) -> None:
        end = self._clock() + YIELD
        while self._busy() and self._clock() < end and not self._stop.asked:
            time.sleep(0.01)

    def _stopped(self) -> bool:
        return self._stop.asked or not self.elected


class _Estimate:
    """When a build will end, by how fast it went since it began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told_at = clock()
        self._first: tuple[float, int] | None = None  # a moment, and the documents that were there then

    def due(self) -> bool:
        """Whether it is time to tell."""
        if self._clock() - self._told_at < TOLD_EVERY and self._first is not None:
            return False
        self._told_at = self._clock()
        return True

    def left(self, built: int, wanted: int) -> float | None:
        """Seconds until all are there; None while nobody knows."""
        if self._first is None:
            self._first = (self._clock(), built)
            return None
        began, before = self._first
        rate = (built - before) / max(self._clock() - began, 0.001)
        return max(0, wanted - built) / rate if rate > 0 else None
