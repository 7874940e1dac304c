"""What can be searched: the active generation of each collection, and the encoders of all that are live, once their models are
loaded: one that is built, or kept, may become the active one at any moment.

The worker's main thread loads; searches only look up, so that a collection whose model is being loaded delays no other.
"""

import time
from collections.abc import Callable, Iterable
from math import inf

from psycopg_pool import ConnectionPool

from livedex import catalogue
from livedex.catalogue import Generation, Live
from livedex.config import EmbedderName
from livedex.database import Connection, translated
from livedex.encoders import Encoder
from livedex.encoders.reranker import Reranker, open_reranker
from livedex.encoders.shelf import Shelf
from livedex.errors import LivedexError, UnavailableError

CATALOGUE_AGE = 2.0  # seconds until a change by `livedex apply` is noticed
RETRY_AFTER = 30.0  # seconds until a model that did not load is tried again: each try may read gigabytes
OpenEncoder = Callable[[EmbedderName, Generation], Encoder]


class NotLoadedError(UnavailableError):
    """A collection's model is not loaded; the others can be searched."""

    def __init__(self, message: str) -> None:
        super().__init__("embedder", message)


class Encoders:
    """The encoders of the active generations."""

    def __init__(
        self, embedder: EmbedderName, pool: ConnectionPool[Connection], open_encoder: OpenEncoder, *, only: int | None = None
    ) -> None:
        """`only`: a generation that is searched in the place of its collection's active one."""
        self._only = only
        self._embedder: EmbedderName = embedder
        self._shelf = Shelf(embedder, open_encoder)
        self._pool = pool
        self._generations: dict[str, Generation] = {}  # the active ones
        self._live: list[Generation] = []
        self._loaded: dict[int, Encoder] = {}
        self._refused: dict[int, tuple[float, str]] = {}  # when, and why
        self._rerankers: dict[str, Reranker] = {}
        self._tried: dict[str, float] = {}  # when each was loaded, or was not
        self._seen_at = -inf

    def generation(self, collection: str, *, timeout: float) -> Generation | None:
        """The active generation of a collection, at most CATALOGUE_AGE old; None when there is no such collection. One that is
        not known is looked for: it may have been made just now.
        """
        if collection not in self._generations or time.monotonic() - self._seen_at > CATALOGUE_AGE:
            self.refresh(timeout=timeout)
        return self._generations.get(collection)

    def encoder(self, generation: Generation) -> Encoder:
        """Its encoder; NotLoadedError when there is none (yet)."""
        found = self._loaded.get(generation.generation_id)
        if found is not None:
            return found
        why = self._refused.get(generation.generation_id, (0.0, "it is being loaded: ask again in some seconds"))[1]
        raise NotLoadedError(
            f"the model {generation.identity.model!r} of collection {generation.collection} is not ready: {why}"
        )

    def with_id(self, generation_id: int) -> Generation | None:
        """The live generation of this number."""
        return next((each for each in self._live if each.generation_id == generation_id), None)

    def loaded(self) -> set[int]:
        """The generations whose texts can be embedded now."""
        return {each.generation_id for each in self._live if each.generation_id in self._loaded}

    def served(self) -> dict[str, Generation]:
        """The generation that is searched, by collection."""
        return dict(self._generations)

    def refresh(self, *, timeout: float | None = None) -> list[Generation]:
        """Look again what there is, and return the active generations; a connection is waited for at most `timeout` seconds."""
        with translated(), self._pool.connection(timeout) as connection:
            self.follow(catalogue.live(connection).values())
        return list(self._generations.values())

    def follow(self, live: Iterable[Live]) -> None:
        """Take these for what is live now, collection by collection."""
        found = list(live)
        self._live = [generation for of in found for generation in of]
        served = [self._served(of) for of in found]
        chosen = [each for each in self._live if each.generation_id == self._only]
        self._generations = {each.collection: each for each in [*served, *chosen]}
        self._seen_at = time.monotonic()

    def reranker(self, generation: Generation) -> Reranker:
        """The reranker of its collection; NotLoadedError when it is not loaded (yet)."""
        found = self._rerankers.get(generation.reranker)
        if found is None:
            raise NotLoadedError(f"the reranker {generation.reranker!r} of collection {generation.collection} is not loaded")
        return found

    def missing_rerankers(self, now: float) -> list[str]:
        """The rerankers that are to be loaded; what did not load is left alone for a while."""
        wanted = dict.fromkeys(each.reranker for each in self._generations.values() if each.reranker)
        return [name for name in wanted if name not in self._rerankers and now - self._tried.get(name, -inf) > RETRY_AFTER]

    def load_reranker(self, name: str, now: float) -> None:
        """Load one; for one thread only. ConfigError when it cannot be had."""
        self._tried[name] = now
        self._rerankers = {**self._rerankers, name: open_reranker(self._embedder, name)}

    def _served(self, live: Live) -> Generation:
        """The active generation; while its model is not loaded, the one that was searched before, if that is still written."""
        active = live[0]
        before = self._generations.get(active.collection)
        if before is None or active.generation_id in self._loaded:
            return active
        return next((each for each in live if each.generation_id == before.generation_id), active)

    def missing(self, now: float) -> list[Generation]:
        """The live generations whose encoder is to be loaded; what did not load is left alone for a while."""
        return [
            generation
            for generation in self._live
            if generation.generation_id not in self._loaded
            and now - self._refused.get(generation.generation_id, (-inf, ""))[0] > RETRY_AFTER
        ]

    def load(self, generation: Generation) -> None:
        """Load its encoder and let it run once. Seconds, for a real one; for one thread only."""
        encoder = self._shelf.open(generation)
        encoder.encode_queries(["warm up"])
        self._loaded = {**self._loaded, generation.generation_id: encoder}
        self._refused.pop(generation.generation_id, None)

    def refuse(self, generation: Generation, error: Exception, now: float) -> None:
        """Remember that it did not load, to tell who searches there."""
        why = str(error) if isinstance(error, LivedexError) else f"loading it failed: {type(error).__name__}"
        self._refused[generation.generation_id] = (now, why)

    def drop_unused(self) -> None:
        """Let go of the encoders that no live generation has."""
        live = self._live
        wanted = {generation.generation_id for generation in live}
        if not self._loaded.keys() <= wanted:
            self._loaded = {number: encoder for number, encoder in self._loaded.items() if number in wanted}
            self._shelf.keep(live)
        names = {generation.reranker for generation in live}
        self._rerankers = {name: found for name, found in self._rerankers.items() if name in names}
