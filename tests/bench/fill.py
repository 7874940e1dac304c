"""Collections of a chosen size: made-up chunks and documents by SQL, vectors by COPY, the vector index behind them."""

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from bench.direct import Direct
from livedex.database import Connection, connect, prepare

CHUNKS = """
insert into livedex.chunk (collection_id, digest, context, text, tsv)
select %(collection)s, sha256(made.text::bytea), '', made.text, to_tsvector('english', made.text)
  from (select format('Chunk %%s says that %%s is the number of %%s.', i, i::bigint * 7919 %% 104729, md5(i::text)) as text
          from generate_series(1, %(chunks)s::int) i) made"""
DOCUMENTS = """
insert into livedex.document (collection_id, document_id, content_version, metadata_version, deleted, event_time, topic,
                              partition, "offset")
select %(collection)s, 'filled/' || i, array[0, 0, 0], array[0, 0, 0], false, now(), 'none', 0, 0
  from generate_series(1, %(chunks)s::int / %(each)s) i"""
MAP = """
insert into livedex.document_chunk (chunking_id, doc_key, ordinal, chunk_key)
select %(chunking)s, d.doc_key, c.number %% %(each)s, c.chunk_key
  from (select chunk_key, row_number() over (order by chunk_key) - 1 as number from livedex.chunk) c
  join (select doc_key, row_number() over (order by doc_key) - 1 as number from livedex.document) d
    on d.number = c.number / %(each)s"""


def fill(direct: Direct, chunks: int, vectors: NDArray[np.float32], *, each: int = 12) -> None:
    """So many chunks in documents of `each`, into an empty collection, with an index over all."""
    generation = direct.generation
    arguments = {
        "collection": generation.collection_id, "chunking": generation.chunking_id, "chunks": chunks, "each": each,
    }  # fmt: skip
    direct.drop_index()
    with connect(direct.url) as connection:
        prepare(connection)
        for statement in (CHUNKS, DOCUMENTS, MAP):
            connection.execute(statement, arguments)
        keys = [row[0] for row in connection.execute("select chunk_key from livedex.chunk order by chunk_key").fetchall()]
        copy_vectors(connection, sql.Identifier("livedex", generation.embeddings), keys, vectors)
        connection.execute("vacuum analyze")
    direct.build_index()


def copy_vectors(connection: Connection, table: sql.Identifier, keys: list[int], vectors: NDArray[np.float32]) -> None:
    """The vectors of these chunks."""
    statement = sql.SQL("copy {} (chunk_key, embedding) from stdin with (format binary)").format(table)
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["int8", "halfvec"])
        for key, vector in zip(keys, vectors, strict=True):
            copy.write_row((key, HalfVector(vector)))
