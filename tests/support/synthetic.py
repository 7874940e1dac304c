"""Collections that are filled by SQL with vectors of a test's choice, where thousands of rows or exact distances are needed."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector, Vector
from psycopg import sql
from psycopg.types.json import Jsonb

from livedex import apply, catalogue
from livedex.catalogue import Generation
from livedex.config import Settings
from livedex.database import Connection, connect, prepare

WORDS = ("anchor", "bridge", "canyon", "dragon", "ember", "falcon", "garden", "harbor", "island", "jungle", "kernel", "lantern")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk."""

    text: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document with its chunks; equal texts are one chunk."""

    name: str
    pieces: Sequence[Piece]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    event_time: datetime = EPOCH
    deleted: bool = False


def connection_to(url: str) -> Connection:
    """A connection that knows pgvector's types."""
    connection = connect(url)
    prepare(connection)
    return connection


def create_collection(connection: Connection, name: str, **collection: Any) -> Generation:
    """A collection as `livedex apply` makes it, of the hash encoder, without a source; `model` is hash-N for N dimensions."""
    settings = Settings(embedder="hash", collections={name: collection}, sources={})
    apply.run(apply.plan(settings, connection, topics=False))
    return next(found for found in catalogue.generations(connection).values() if found.collection == name)


def fill(connection: Connection, generation: Generation, documents: Sequence[Document], *, analyze: bool = True) -> None:
    """Insert documents with all that makes them searchable; the vector index is built once, behind the rows."""
    pieces = {piece.text: piece for document in documents for piece in document.pieces}
    with connection.transaction():
        keys = stage(connection, generation, list(pieces.values()))
        doc_keys = _insert_documents(connection, generation, documents)
        with connection.cursor().copy(
            "copy livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key) from stdin"
        ) as copy:
            for document in documents:
                for ordinal, piece in enumerate(document.pieces):
                    copy.write_row((generation.chunking_id, doc_keys[document.name], ordinal, keys[piece.text]))
    if analyze:
        connection.execute("analyze")


def stage(connection: Connection, generation: Generation, pieces: Sequence[Piece]) -> dict[str, int]:
    """Insert chunks with vectors that no document has, as the index worker stages them; their keys by text."""
    statement = """
        insert into livedex.chunk (collection_id, digest, context, text, tsv)
        select %s, decode(digest, 'hex'), '', text, to_tsvector(%s::regconfig, text)
          from unnest(%s::text[], %s::text[]) as t(digest, text)
        returning text, chunk_key"""
    texts = [piece.text for piece in pieces]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    arguments = (generation.collection_id, generation.text_config, digests, texts)
    keys: dict[str, int] = dict(connection.execute(statement, arguments).fetchall())
    table, index = sql.Identifier("livedex", generation.embeddings), sql.Identifier("livedex", f"{generation.embeddings}_hnsw")
    connection.execute(sql.SQL("drop index if exists {}").format(index))
    wrap = HalfVector if generation.vector_type == "halfvec" else Vector
    with connection.cursor().copy(
        sql.SQL("copy {} (chunk_key, embedding) from stdin with (format binary)").format(table)
    ) as copy:
        copy.set_types(["int8", generation.vector_type])
        for piece in pieces:
            copy.write_row((keys[piece.text], wrap(piece.vector)))
    build_index(connection, generation)
    return keys


def build_index(connection: Connection, generation: Generation) -> None:
    """The vector index, as the upkeep builds it, but within a transaction if there is one."""
    signs = sql.SQL("(binary_quantize(embedding)::bit({})) bit_hamming_ops").format(generation.identity.dimension)
    operators = f"{generation.storage}_{ {'dot': 'ip'}.get(generation.metric, generation.metric) }_ops"
    vectors = sql.SQL("embedding {}").format(sql.Identifier(operators))
    names = map(sql.Identifier, (f"{generation.embeddings}_hnsw", generation.embeddings))
    statement = sql.SQL("create index {} on livedex.{} using hnsw ({})")
    connection.execute(statement.format(*names, signs if generation.storage == "bit" else vectors))


def _insert_documents(connection: Connection, generation: Generation, documents: Sequence[Document]) -> dict[str, int]:
    columns = sql.SQL(
        "copy livedex.document (collection_id, document_id, content_version, metadata_version, deleted, metadata, event_time, "
        'topic, partition, "offset") from stdin'
    )
    with connection.cursor().copy(columns) as copy:
        for number, document in enumerate(documents):
            version = [0, number, number]
            copy.write_row((generation.collection_id, document.name, version, version, document.deleted,
                            Jsonb(dict(document.metadata)), document.event_time, "none", 0, number))  # fmt: skip
    rows = connection.execute(
        "select document_id, doc_key from livedex.document where collection_id = %s", (generation.collection_id,)
    )
    return dict(rows.fetchall())


def sentence(generator: random.Random, name: str) -> str:
    """A text of its own for each name."""
    return f"{' '.join(generator.choices(WORDS, k=6))} {name}."


def gaussian(seed: int, count: int, dimension: int) -> NDArray[np.float32]:
    """Vectors in all directions, rounded to what halfvec holds, so that distances can be compared exactly."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return drawn.astype(np.float16).astype(np.float32)
