"""What the database says of collections: read by both workers and by `livedex apply`, never decided here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from psycopg.rows import class_row, dict_row

from livedex.config import EmbedderName, Settings
from livedex.core.change import VersionMode
from livedex.core.chunking import VERSION as CHUNKING_VERSION
from livedex.core.chunking import ChunkingSpec
from livedex.core.continuity import KnownTopic
from livedex.database import Connection, query
from livedex.encoders import Encoder, Identity, ModelSpec, open_encoder, server_of
from livedex.encoders.models import digest_of, find_model
from livedex.encoders.port import Precision
from livedex.encoders.probe import TOLERANCE, agreement, probe, to_vectors
from livedex.encoders.remote import Server
from livedex.errors import ConfigError

# The class of the advisory locks that keep a collection's generation: shared by who applies a batch, alone by who replaces it.
COLLECTION_LOCK = 0x6C697665


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One way of turning a collection's documents into chunks and these into vectors. It has a chunking of its own."""

    generation_id: int
    collection_id: int
    collection: str
    version_mode: VersionMode
    chunking_id: int
    spec: ChunkingSpec
    text_config: str
    metric: str
    storage: str
    identity: Identity
    probe: bytes | None  # the vectors of the encoder that made it, see encoders/probe.py; None: it kept none
    state: str = "active"  # or building, kept: live as well, but not searched
    reranker: str = ""  # of the collection; empty: none

    @property
    def embeddings(self) -> str:
        """The name of the table of its vectors, in the schema livedex."""
        return f"embedding_{self.generation_id}"

    @property
    def vector_type(self) -> str:
        """The type of the vectors in that table; see the function of this name in the database."""
        return "halfvec" if self.storage == "bit" else self.storage

    @property
    def model_spec(self) -> ModelSpec:
        """What to open to get its encoder."""
        return ModelSpec(
            model=self.identity.model,
            query_prompt=self.identity.query_prompt,
            document_prompt=self.identity.document_prompt,
            normalise=self.metric == "cosine",
            dimension=self.identity.dimension,
            precision=self.precision,
        )

    @property
    def precision(self) -> Precision:
        """What to ask an encoder for: those that give the same vectors may differ."""
        return "int8" if self.identity.precision == "int8" else "auto"

    def check(self, encoder: Encoder) -> None:
        """ConfigError unless the encoder gives the vectors that this generation is made of."""
        if self.spec.version != CHUNKING_VERSION:
            raise ConfigError(
                f"collection {self.collection} is chunked by version {self.spec.version} of the chunker, and this livedex has "
                f"version {CHUNKING_VERSION}: run the livedex that made it"
            )
        found, pinned = encoder.identity, self.identity
        for what in ("revision", "dimension", "max_tokens", "query_prompt", "document_prompt"):
            if not _same(what, found, pinned):
                raise self._another_model(what, getattr(found, what))

    def check_files(self) -> None:
        """ConfigError when the model on this machine has other files: told before it is loaded, which may take minutes."""
        revision = digest_of(find_model(self.identity.model))
        if revision != self.identity.revision:
            raise self._another_model("revision", revision)

    def _another_model(self, what: str, found: object) -> ConfigError:
        return ConfigError(
            f"the model {self.identity.model!r} on this machine is not that of generation {self.generation_id} of collection "
            f"{self.collection}: its {what} is {found!r}, the generation has {getattr(self.identity, what)!r}. "
            "Install the model that the generation was made with: two mixed would spoil every search"
        )

    def check_probe(self, encoder: Encoder) -> None:
        """ConfigError unless the encoder, whatever adapter it is, gives the vectors of the one that made this."""
        if self.probe is None:
            if encoder.identity.encoder == "http":
                raise ConfigError(
                    f"generation {self.generation_id} of collection {self.collection} kept no vectors that those of an "
                    f"embedding server could be compared with: set LIVEDEX_EMBEDDER={self.identity.encoder}"
                )
            return
        found = agreement(probe(encoder), to_vectors(self.probe, self.identity.dimension))
        if found < TOLERANCE:
            raise ConfigError(
                f"generation {self.generation_id} of collection {self.collection} was written by {_adapter(self.identity)}, "
                f"and {_adapter(encoder.identity)} gives other vectors: cosine {found:.5f}, at least {TOLERANCE} was "
                f"expected. Set LIVEDEX_EMBEDDER={self.identity.encoder}: two mixed would spoil every search"
            )

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Generation":
        """From a row of the query `generations`."""
        return cls(
            generation_id=row["generation_id"],
            collection_id=row["collection_id"],
            collection=row["collection"],
            version_mode=VersionMode(row["version_mode"]),
            chunking_id=row["chunking_id"],
            spec=ChunkingSpec(**row["parameters"]),
            text_config=row["text_config"],
            metric=row["metric"],
            storage=row["storage"],
            identity=Identity(
                encoder=row["encoder"],
                model=row["model"],
                revision=row["model_revision"],
                dimension=row["dimension"],
                max_tokens=row["max_tokens"],
                query_prompt=row["query_prompt"],
                document_prompt=row["document_prompt"],
                precision=row["precision"],
            ),
            probe=row["probe"],
            state=row["state"],
            reranker=row["reranker"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A topic that a collection follows."""

    topic: str
    collection_id: int
    epoch: int
    state: str  # live, rebuilding, stopped
    reason: str | None
    topic_id: str | None  # of the topic as it was first read; None: not read yet
    partitions: int | None

    def known(self, version_mode: VersionMode) -> KnownTopic:
        """The topic as the index remembers it."""
        return KnownTopic(name=self.topic, topic_id=self.topic_id, partitions=self.partitions, version_mode=version_mode)


#: The generations of a collection that every batch is written to: the active one first.
Live = tuple[Generation, ...]


LIVE = ("building", "active", "kept")


def live(connection: Connection, *, states: Sequence[str] = LIVE) -> dict[int, Live]:
    """The live generations of each collection that has an active one, by collection id; or those in other states, with the
    active one.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("catalogue", "generations"), {"states": list(states)}).fetchall()
    found: dict[int, Live] = {}
    for row in rows:
        found[row["collection_id"]] = (*found.get(row["collection_id"], ()), Generation.from_row(row))
    return found


def generations(connection: Connection) -> dict[int, Generation]:
    """The active generation of each collection, by collection id."""
    return {collection_id: of[0] for collection_id, of in live(connection).items()}


def sources(connection: Connection) -> dict[str, Source]:
    """Every source by its topic."""
    with connection.cursor(row_factory=class_row(Source)) as cursor:
        return {source.topic: source for source in cursor.execute(query("catalogue", "sources")).fetchall()}


def open_checked(embedder: EmbedderName, generation: Generation, *, server: Server | None = None) -> Encoder:
    """The encoder of a generation, checked to be the one that it was made with."""
    made_by_hash = generation.identity.encoder == "hash"
    if made_by_hash and embedder != "hash":
        raise ConfigError(
            f"generation {generation.generation_id} of collection {generation.collection} was written by the hash encoder, "
            f"which is for tests, and the embedder is {embedder}: set LIVEDEX_EMBEDDER=hash, or apply a real model"
        )
    if embedder == "hash" and not made_by_hash:
        raise ConfigError(
            f"generation {generation.generation_id} of collection {generation.collection} was written by the model "
            f"{generation.identity.model!r}, and the embedder is hash, which is for tests: unset LIVEDEX_EMBEDDER"
        )

    remote = embedder == "http" or (embedder == "auto" and server is not None) or generation.identity.encoder == "http"
    if not (made_by_hash or remote):
        generation.check_files()

    def check(encoder: Encoder) -> None:
        generation.check(encoder)
        generation.check_probe(encoder)

    return open_encoder(embedder, generation.model_spec, server=server, check=check)


def opener(settings: Settings) -> Callable[[EmbedderName, Generation], Encoder]:
    """`open_checked` with the embedding server of the settings."""
    return partial(open_checked, server=server_of(settings))


def _same(what: str, found: Identity, pinned: Identity) -> bool:
    """Whether this of an encoder is as a generation pins it. Of a model behind a server its files are not seen, and its window
    may be larger: there the probe decides.
    """
    if "http" in (found.encoder, pinned.encoder):
        if what == "revision":
            return True
        if what == "max_tokens":
            return found.max_tokens >= pinned.max_tokens
    return bool(getattr(found, what) == getattr(pinned, what))


def _adapter(identity: Identity) -> str:
    return f"{identity.encoder} ({identity.precision})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A live generation that batches are written to, and its encoder."""

    generation: Generation
    encoder: Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What to follow, and what to write it to."""

    sources: Mapping[str, Source]  # by topic
    targets: Mapping[int, tuple[Target, ...]]  # by collection id; the active generation first

    @property
    def generations(self) -> Mapping[int, Generation]:
        """The active generation of each collection, by collection id."""
        return {collection_id: of[0].generation for collection_id, of in self.targets.items()}
