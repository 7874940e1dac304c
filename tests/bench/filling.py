"""Texts as a collection: by SQL and COPY, with marks to filter by and the vector index behind the rows."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from bench.corpus import Text
from bench.fill import copy_vectors
from livedex.catalogue import Generation
from livedex.database import Connection
from support.synthetic import build_index

SHARES = {"permille": 1000, "percent": 100, "tenth": 10, "half": 2}  # one document in so many has the mark
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = 5_000

CHUNKS = """
insert into livedex.chunk (collection_id, digest, context, text, tsv)
select %(collection)s, sha256(convert_to(t.text, 'UTF8')), '', t.text, to_tsvector(%(config)s::regconfig, t.text)
  from unnest(%(texts)s::text[]) with ordinality t(text, number) order by t.number
returning chunk_key"""
MAP = "copy livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key) from stdin"
DOCUMENTS = """
copy livedex.document (collection_id, document_id, content_version, metadata_version, deleted, metadata, event_time, topic,
                       partition, "offset") from stdin"""


def fill(connection: Connection, generation: Generation, texts: list[Text], vectors: NDArray[np.float32]) -> list[set[str]]:
    """Put texts whose chunks are all different into an empty collection, and make it ready; the marks of each document."""
    draw = random.Random(11)
    marks = [{mark for mark, every in SHARES.items() if draw.randrange(every) == 0} for _ in texts]
    connection.execute(sql.SQL("drop index if exists livedex.{}").format(sql.Identifier(f"{generation.embeddings}_hnsw")))
    with connection.transaction():
        keys = _chunks(connection, generation, [chunk for text in texts for chunk in text.chunks])
        _documents(connection, generation, texts, marks)
        statement = "select document_id, doc_key from livedex.document where collection_id = %s"
        doc_keys: dict[str, int] = dict(connection.execute(statement, (generation.collection_id,)).fetchall())
        remaining = iter(keys)
        with connection.cursor().copy(MAP) as copy:
            for text in texts:
                for ordinal in range(len(text.chunks)):
                    copy.write_row((generation.chunking_id, doc_keys[text.name], ordinal, next(remaining)))
        copy_vectors(connection, sql.Identifier("livedex", generation.embeddings), keys, vectors)
    connection.execute("vacuum analyze")
    connection.execute("select livedex.note_frequent_words()")
    build_index(connection, generation)
    return marks


def _documents(connection: Connection, generation: Generation, texts: list[Text], marks: list[set[str]]) -> None:
    with connection.cursor().copy(DOCUMENTS) as copy:
        for number, (text, own) in enumerate(zip(texts, marks, strict=True)):
            version, metadata = [0, number, number], Jsonb({"package": text.package, **dict.fromkeys(sorted(own), True)})
            copy.write_row((generation.collection_id, text.name, version, version, False, metadata,
                            EPOCH + timedelta(minutes=number), "none", 0, number))  # fmt: skip


def _chunks(connection: Connection, generation: Generation, texts: list[str]) -> list[int]:
    keys = []
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        arguments = {"collection": generation.collection_id, "config": generation.text_config, "texts": some}
        keys += [row[0] for row in connection.execute(CHUNKS, arguments).fetchall()]
    return sorted(keys)
