"""How fast chunks and vectors are written: with the vector index in place, and with the index built behind them."""

import random
import statistics
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from bench.baseline import create_index, create_table, digest, open_database, replace_document
from bench.direct import WORDS, Direct, opened, vectors
from bench.figures import Figure, timed
from bench.fill import fill
from bench.scene import Scene
from livedex.core.chunking import Chunk

PART = "rows"
PRESENT = 50_000  # rows that are there before, with their index
ROUNDS, UPSERTS = 6, 300
LOADED = 20_000
BATCH = 100  # chunks that are staged at once, as in a batch of the index worker
EACH = 12  # chunks of a document, which the naive pipeline writes in one transaction, row by row

Rows = tuple[list[Chunk], NDArray[np.float32]]


def measure(scene: Scene) -> Iterator[Figure]:
    """The same texts and vectors for both, in the same database."""
    choose, make = random.Random(31), vectors(31)

    def rows(count: int) -> Rows:
        return [_chunk(choose) for _ in range(count)], make(count)

    with scene.database() as workers, opened(workers.database_url, 31) as direct:
        yield _live(direct, rows, scene)
    with scene.database() as workers, opened(workers.database_url, 32) as direct:
        yield _load(direct, rows(round(LOADED * scene.share)))


def _live(direct: Direct, rows: Callable[[int], Rows], scene: Scene) -> Figure:
    present = round(PRESENT * scene.share)
    there = vectors(33)(present)
    fill(direct, present, there)
    with open_database(direct.url) as connection:
        create_table(connection, "naive")
        connection.execute("drop index naive_hnsw")
        with (
            connection.cursor() as cursor,
            cursor.copy("copy naive (document_id, ordinal, hash, text, embedding) from stdin") as copy,
        ):
            for number, vector in enumerate(there):
                copy.write_row((f"filled/{number // EACH}", number % EACH, str(number), f"Chunk {number}.", HalfVector(vector)))
        create_index(connection, "naive")
        connection.execute("vacuum analyze naive")
    ours, theirs, alone = [], [], []
    for _ in range(scene.rounds(ROUNDS)):
        batch = rows(UPSERTS)
        ours.append(UPSERTS / timed(lambda: _stage(direct, batch)))  # noqa: B023
        theirs.append(UPSERTS / timed(lambda: _naive(direct.url, batch)))  # noqa: B023
        alone.append(UPSERTS / timed(lambda: _naive(direct.url, batch, each=1)))  # noqa: B023
    return Figure(
        part=PART, name="live upserts, index present, against naive row by row",
        value=statistics.median(our / their for our, their in zip(ours, theirs, strict=True)), unit="x", aim=2.8,
        detail=f"{statistics.median(ours):.0f} rows/s against {statistics.median(theirs):.0f} with a transaction a document of "
        f"{EACH}, and {statistics.median(alone):.0f} with one a row; {present} rows before",
    )  # fmt: skip


def _load(direct: Direct, batch: Rows) -> Figure:
    count = len(batch[0])
    direct.drop_index()
    staged = timed(lambda: _stage(direct, batch))
    built = timed(direct.build_index)
    with open_database(direct.url) as connection:
        create_table(connection, "naive")
    theirs = timed(lambda: _naive(direct.url, batch))
    return Figure(
        part=PART, name="load then build, against naive with the index present", value=theirs / (staged + built), unit="x",
        aim=10, detail=f"{count} rows: {staged:.1f} s and {built:.1f} s for the index, against {theirs:.1f} s",
    )  # fmt: skip


def _stage(direct: Direct, rows: Rows) -> None:
    chunks, made = rows
    generation = direct.generation
    for start in range(0, len(chunks), BATCH):
        part = chunks[start : start + BATCH]
        direct.store.stage(generation, part, {c.digest: made[start + row] for row, c in enumerate(part)})


def _naive(url: str, rows: Rows, each: int = EACH) -> None:
    """A document of `each` rows at a time."""
    chunks, made = rows
    with open_database(url) as connection:
        for start in range(0, len(chunks), each):
            name = f"new/{digest(chunks[start].text)}"
            part = chunks[start : start + each]
            replace_document(
                connection, "naive", name,
                [(name, row, digest(c.text), c.text, HalfVector(made[start + row])) for row, c in enumerate(part)],
            )  # fmt: skip


def _chunk(choose: random.Random) -> Chunk:
    """About as long as a real one."""
    text = f"{' '.join(choose.choices(WORDS, k=90))} {choose.randrange(10**12)}."
    return Chunk(text=text, context="", digest=bytes.fromhex(digest(text)))
