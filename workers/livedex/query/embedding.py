"""From the text of a query to its vector, for every route: searches that come at once share one call of the model.

One thread encodes: as soon as somebody comes, his text and those of all that wait for the same generation. Who comes meanwhile
waits, and the one that waited longest is next. So an idle worker delays nothing, a busy one encodes in batches, one call at a
time has all the cores, and whoever asks waits no longer than its own deadline, however long the model takes.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Generation
from livedex.encoders import Encoder
from livedex.encoders.remote import InputRefusedError
from livedex.errors import ConfigError, SystemicError, TimedOutError, UnavailableError
from livedex.observe import QueryMetrics

Vector = NDArray[np.float32]

BATCH = 64  # texts of one call; a caller that brings more has them encoded together
CACHE_BYTES = 32 * 2**20  # of vectors and their texts
CACHED_CHARACTERS = 512  # of the longest text that is kept: longer ones hardly come twice
IDLE_SECONDS = 10.0  # that the thread waits for more; the next text after them starts another


class Loaded(Protocol):
    """What is asked for the encoder of a generation."""

    def encoder(self, generation: Generation) -> Encoder:
        """Its encoder; NotLoadedError when there is none (yet)."""
        ...


class VectorCache:
    """The vectors that were used last, by generation and text; what was not used for longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._size = 0
        self._kept: OrderedDict[tuple[int, str], Vector] = OrderedDict()

    def found(self, generation_id: int, texts: Iterable[str]) -> dict[str, Vector]:
        """Those of these texts that are kept, each of shape (dimension,)."""
        there = {text: self._kept[generation_id, text] for text in texts if (generation_id, text) in self._kept}
        for text in there:
            self._kept.move_to_end((generation_id, text))
        return there

    def keep(self, generation_id: int, vectors: dict[str, Vector]) -> None:
        """Keep them, as far as they are worth it."""
        for text, vector in vectors.items():
            if len(text) <= CACHED_CHARACTERS and (generation_id, text) not in self._kept:
                self._kept[generation_id, text] = vector
                self._size += _weight(text, vector)
        while self._size > self._limit:
            (_, text), vector = self._kept.popitem(last=False)
            self._size -= _weight(text, vector)


def _weight(text: str, vector: Vector) -> int:
    return vector.nbytes + 4 * len(text) + 300  # bytes; the objects around them take some 300


class _Waiter:
    """One call that needs vectors. Its last fields change before `answered` is set."""

    def __init__(self, generation: Generation, texts: Sequence[str], deadline: float) -> None:
        self.generation = generation
        self.texts = texts
        self.deadline = deadline
        self.answered = threading.Event()
        self.vectors: dict[str, Vector] = {}
        self.error: Exception | None = None

    @property
    def late(self) -> bool:
        return time.perf_counter() >= self.deadline

    def answer(self) -> dict[str, Vector]:
        if self.error is not None:
            raise self.error
        return self.vectors


class QueryEmbedder:
    """Embeds queries; any number of threads may ask."""

    def __init__(
        self, encoders: Loaded, metrics: QueryMetrics, *, batch: int = BATCH, cache_bytes: int = CACHE_BYTES,
        told: Callable[[UnavailableError | None], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`told` learns of each call of a model whether it was answered (None), or why it was not; an answer that is of no use
        for one generation, another model's or a refusal, is an answer: others may be of use.
        """
        self._encoders = encoders
        self._metrics = metrics
        self._told = told
        self._batch = batch
        self._lock = threading.Condition()  # never held while a model runs; notified of those who begin to wait
        self._cache = VectorCache(cache_bytes)
        self._waiting: deque[_Waiter] = deque()
        self._running = False  # the thread that encodes

    def vectors(self, generation: Generation, texts: Sequence[str], *, deadline: float) -> Vector:
        """The vectors of texts that search, float32 of shape (len(texts), dimension), in their order.

        `deadline` is a time of time.perf_counter(): TimedOutError once it has passed. A call of the model that has begun is not
        broken off, but not waited for either. NotLoadedError while the generation has no encoder; else what the encoder raises,
        for the texts of this call only.
        """
        self._encoders.encoder(generation)
        with self._lock:
            found = self._cache.found(generation.generation_id, texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        self._metrics.cache.labels("hit").inc(len(found))
        self._metrics.cache.labels("miss").inc(len(missing))
        if missing:
            found |= self._embedded(_Waiter(generation, missing, deadline))
        return np.stack([found[text] for text in texts]) if texts else np.empty((0, generation.identity.dimension), np.float32)

    def _embedded(self, waiter: _Waiter) -> dict[str, Vector]:
        if waiter.late:
            raise _too_late()
        with self._lock:
            self._waiting.append(waiter)
            self._lock.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="query-encoder", daemon=True).start()
        if not waiter.answered.wait(max(0.0, waiter.deadline - time.perf_counter())):
            self._give_up(waiter)
        return waiter.answer()

    def _give_up(self, waiter: _Waiter) -> None:
        """TimedOutError, unless its answer came this moment."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if not waiter.answered.is_set():
            raise _too_late()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._encode(batch)

    def _next_batch(self) -> list[_Waiter]:
        """The one that waited longest with all that can join; nobody when none came for a while, and the thread ends."""
        with self._lock:
            while self._lock.wait_for(lambda: self._waiting, IDLE_SECONDS):
                first = self._waiting.popleft()
                if not first.late:  # else its own thread tells so
                    return [first, *self._joining(first)]
            self._running = False
            return []

    def _joining(self, first: _Waiter) -> list[_Waiter]:
        """Take those out of the queue that wait for the same generation, as far as a batch holds them."""
        room = self._batch - len(first.texts)
        joining: list[_Waiter] = []
        for waiter in list(self._waiting):
            fits = waiter.generation.generation_id == first.generation.generation_id and len(waiter.texts) <= room
            if waiter.late:  # its own thread tells so
                self._waiting.remove(waiter)
            elif fits:
                self._waiting.remove(waiter)
                joining.append(waiter)
                room -= len(waiter.texts)
        return joining

    def _encode(self, batch: Sequence[_Waiter]) -> None:
        """Give each of the batch its vectors or its error."""
        generation = batch[0].generation
        try:
            vectors = self._encoded(generation, dict.fromkeys(text for waiter in batch for text in waiter.texts))
        except Exception as error:  # noqa: BLE001 - raised again by each that asked
            if len(batch) > 1 and not isinstance(error, UnavailableError | SystemicError):
                for waiter in batch:  # a text that the model refuses must fail its own search only
                    self._encode([waiter])
                return
            for waiter in batch:
                waiter.error = error
                waiter.answered.set()
            return
        for waiter in batch:
            waiter.vectors = {text: vectors[text] for text in waiter.texts}
            waiter.answered.set()

    def _encoded(self, generation: Generation, texts: Iterable[str]) -> dict[str, Vector]:
        with self._lock:  # looked up again: the batch before may have had the same text
            vectors = self._cache.found(generation.generation_id, texts)
        missing = [text for text in texts if text not in vectors]
        if missing:
            made = self._asked(generation, missing)
            # copies: a row that is kept would keep its whole batch
            new = {text: np.array(vector, np.float32) for text, vector in zip(missing, made, strict=True)}
            with self._lock:
                self._cache.keep(generation.generation_id, new)
            vectors |= new
        return vectors

    def _asked(self, generation: Generation, texts: Sequence[str]) -> Vector:
        encoder = self._encoders.encoder(generation)
        try:
            made = encoder.encode_queries(texts)
        except UnavailableError as error:
            self._told(error)
            raise
        except (SystemicError, InputRefusedError):
            self._told(None)
            raise
        self._told(None)
        if not np.isfinite(made).all():  # neither searched for nor kept
            raise ConfigError(
                f"the model {generation.identity.model!r} gave a vector with a number that is none: try "
                "LIVEDEX_EMBEDDER=torch, or another model"
            )
        return made

    def probe(self, generation: Generation) -> None:
        """Ask the model for a vector that nobody needs, to see whether it answers."""
        with suppress(UnavailableError, SystemicError):
            self._asked(generation, ["does it answer"])


def _too_late() -> TimedOutError:
    return TimedOutError("the deadline passed before the query was embedded: give it a longer timeout, or ask less at a time")
