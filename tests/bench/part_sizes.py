"""Bytes that Postgres keeps for each chunk: texts of real documentation, vectors of 384 dimensions in halfvec, spread like
those of texts. What a table has beside its rows, its indexes and long values, is counted with it.
"""

from collections.abc import Iterator

from bench.corpus import load
from bench.direct import vectors
from bench.figures import Figure
from bench.filling import fill
from bench.scene import Scene
from livedex.catalogue import Generation
from support.synthetic import connection_to, create_collection

PART = "sizes"
WHOLE = "select pg_total_relation_size(to_regclass(%s)), pg_table_size(to_regclass(%s))"
TABLES = ("document", "document_chunk", "chunk")


def measure(scene: Scene) -> Iterator[Figure]:
    """Fill a collection, and ask Postgres."""
    corpus = load(scene.share)
    chunks = len(corpus.chunks)
    made_of = f"{chunks:,} chunks of {sum(map(len, corpus.chunks)) / chunks:.0f} characters"
    with scene.database() as workers, connection_to(workers.database_url) as connection:
        generation = create_collection(connection, "sizes", model="hash-384")
        fill(connection, generation, corpus.texts, vectors(1)(chunks))
        found = {name: connection.execute(WHOLE, (f"livedex.{name}",) * 2).fetchone() or (0, 0) for name in _tables(generation)}
        (database,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
        (graph,) = connection.execute(
            "select pg_relation_size(to_regclass(%s))", (f"livedex.{generation.embeddings}_hnsw",)
        ).fetchone() or (0,)
    for name, (whole, rows) in found.items():
        yield Figure(
            part=PART, name=f"{name}, for each chunk", value=whole / chunks, unit="bytes",
            detail=f"rows {rows / chunks:.0f}, indexes {(whole - rows) / chunks:.0f}; {made_of}",
        )  # fmt: skip
    yield Figure(
        part=PART, name="the vector index, for each chunk", value=graph / chunks, unit="bytes", detail="of the last line"
    )
    yield Figure(
        part=PART, name="the whole database, a million chunks", value=database / chunks * 1e6 / 2**30, unit="GB",
        detail=f"{database / 2**20:.0f} MB at {chunks:,} chunks in {len(corpus.texts):,} documents",
    )  # fmt: skip


def _tables(generation: Generation) -> tuple[str, ...]:
    return (*TABLES, generation.embeddings)
