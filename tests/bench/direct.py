"""The write path without broker and model: plan, stage and apply of one batch after another, each step timed."""

import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.events import Event
from livedex import apply as provisioning
from livedex.catalogue import Generation
from livedex.config import Settings
from livedex.core.change import Change
from livedex.core.chunking import Chunk, chunk
from livedex.core.continuity import Topic
from livedex.core.plan import Chunks, plan, read
from livedex.core.record import Record
from livedex.database import WRITER_SETTINGS, connect, open_pool
from livedex.encoders import ModelSpec, open_encoder
from livedex.index.applying import Advance
from livedex.index.store import STAGING_CONNECTIONS, Store

TOPIC = "bench.direct"
DIMENSION = 384
LATENT = 32  # directions in which the vectors differ much: those of real texts are no noise in 384 dimensions either
SECTIONS = 12
WORDS = ("offset", "fence", "vector", "commit", "partition", "reader", "index", "chunk", "table", "log", "order", "lock")

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of each step of a batch."""

    plan: float
    stage: float
    apply: float

    @property
    def whole(self) -> float:
        """All of it, without making vectors."""
        return self.plan + self.stage + self.apply


def vectors(seed: int) -> Callable[[int], Vectors]:
    """Makes so many unit vectors, spread like those of texts."""
    spread = np.random.default_rng(1).standard_normal((LATENT, DIMENSION)).astype(np.float32)
    source = np.random.default_rng(seed)

    def make(count: int) -> Vectors:
        noise = 0.3 * source.standard_normal((count, DIMENSION), np.float32)
        made = source.standard_normal((count, LATENT), np.float32) @ spread + noise
        found: Vectors = made / np.linalg.norm(made, axis=1, keepdims=True)
        return found

    return make


class Direct:
    """A collection that one thread writes, as the stages of the index worker do."""

    def __init__(self, url: str, seed: int) -> None:
        settings = Settings(embedder="hash", collections={"default": {}}, sources={TOPIC: {"collection": "default"}})
        with connect(url) as connection:
            provisioning.run(provisioning.plan(settings, connection, topics=False))
        self.url = url
        self.store = _store(url)
        self.generation: Generation = next(iter(self.store.catalogue()[1].values()))[0]
        self._vectors = vectors(seed)
        self._encoder = open_encoder("hash", ModelSpec(model="hash-384"))  # counts tokens
        found = Topic(topic_id=str(uuid.uuid4()), partitions=1)
        self._claim = self.store.claim(TOPIC, 0, found=found, start=0, owner="bench")
        self._offset = 0

    def reconnect(self) -> None:
        """End the sessions, which makes them report what they wrote, and begin new ones."""
        self.store.close()
        self.store = _store(self.url)

    def drop_index(self) -> None:
        """The vector index, if there is one."""
        with connect(self.url) as connection:
            connection.execute("drop index if exists livedex.embedding_1_hnsw")

    def build_index(self) -> None:
        """The vector index, beside writers, as the upkeep builds it."""
        with connect(self.url) as connection:
            connection.execute("set maintenance_work_mem = '2GB'")
            connection.execute(
                "create index concurrently embedding_1_hnsw on livedex.embedding_1 using hnsw (embedding halfvec_cosine_ops)"
            )

    def write(self, events: Sequence[Event]) -> Spent:
        """One batch."""
        now = datetime.now(UTC)
        records = [
            Record(
                topic=TOPIC, partition=0, offset=self._offset + number, timestamp_ms=int(now.timestamp() * 1000),
                key=event["id"].encode(), value=json.dumps(event).encode(),
            )
            for number, event in enumerate(events)
        ]  # fmt: skip
        generation, times = self.generation, [perf_counter()]
        reading = read(records, mode=generation.version_mode, epoch=self._claim.epoch)
        stored = self.store.stored_versions(generation, sorted({change.document_id for change in reading.changes}))
        planned = plan(reading, stored, self._chunks)
        chunks = planned.chunks(generation.chunking_id)
        keys = self.store.known_chunks(generation, chunks)
        times.append(perf_counter())
        new = [found for digest, found in chunks.items() if digest not in keys]
        made = self.vectors_of(new)
        begun = perf_counter()
        staged = self.store.stage(generation, new, made) if new else {}
        times.append(perf_counter())
        advance = Advance(
            claim=self._claim, expected_offset=self._offset, next_offset=self._offset + len(events), event_time=now
        )
        self.store.apply((generation,), advance, planned, {generation.generation_id: {**keys, **staged}})
        applied = perf_counter() - times[-1]
        self._offset += len(events)
        return Spent(plan=times[1] - times[0], stage=times[2] - begun, apply=applied)

    def vectors_of(self, chunks: Sequence[Chunk]) -> dict[bytes, NDArray[np.float32]]:
        """Any vectors."""
        return dict(zip([found.digest for found in chunks], self._vectors(len(chunks)), strict=True))

    def _chunks(self, change: Change) -> Chunks:
        chunks = chunk(
            change.text, title=None, markdown=True, spec=self.generation.spec, count_tokens=self._encoder.count_tokens,
            max_tokens=self._encoder.identity.max_tokens,
        )  # fmt: skip
        return {self.generation.chunking_id: chunks}


def _store(url: str) -> Store:
    return Store(open_pool(url, size=1 + STAGING_CONNECTIONS, name="bench", settings=WRITER_SETTINGS))


@contextmanager
def opened(url: str, seed: int) -> Iterator[Direct]:
    """A collection in a fresh database."""
    direct = Direct(url, seed)
    try:
        yield direct
    finally:
        direct.store.close()


class Document:
    """A text of twelve sections, each of which is one chunk."""

    def __init__(self, name: str, choose: random.Random) -> None:
        self.name = name
        self._choose = choose
        self._sections = [self._section(number) for number in range(SECTIONS)]

    def event(self) -> Event:
        """As it is now."""
        return {"op": "upsert", "id": self.name, "text": "".join(self._sections)}

    def edit(self) -> Event:
        """With another sentence in one of its sections."""
        number = self._choose.randrange(SECTIONS)
        self._sections[number] = self._section(number)
        return self.event()

    def _section(self, number: int) -> str:
        words = " ".join(self._choose.choices(WORDS, k=80))
        return f"# Section {number}\n\n{words[:500]}. {self._choose.randrange(10**9):09}.\n\n"
