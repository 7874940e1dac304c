"""How fast chunks and vectors are written: with the vector index in place, and with the index built behind them."""

import random
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from bench.baseline import create_index, create_table, digest, open_database, replace_document
from bench.direct import WORDS, Direct, opened, vectors
from bench.figures import Figure, timed
from bench.fill import fill
from bench.scene import Scene
from livedex.core.chunking import Chunk
from livedex.index.stages import CHUNKS_PER_SLICE

PART = "rows"
PRESENT = 50_000  # rows that are there before, with their index
ROUNDS, UPSERTS = 6, 2 * CHUNKS_PER_SLICE
LOADED = 20_000
EACH = 12  # chunks of a document, which the naive pipeline writes in one transaction, row by row
INSERT = "insert into naive (document_id, ordinal, hash, text, embedding) values (%s, %s, %s, %s, %s)"

Rows = tuple[list[Chunk], NDArray[np.float32]]


def measure(scene: Scene) -> Iterator[Figure]:
    """The same texts and vectors for both, in the same database."""
    choose, make = random.Random(31), vectors(31)

    def rows(count: int) -> Rows:
        return [_chunk(choose) for _ in range(count)], make(count)

    with scene.database() as workers, opened(workers.database_url, 31) as direct:
        yield from _live(direct, rows, scene)
    with scene.database() as workers, opened(workers.database_url, 32) as direct:
        yield from _load(direct, rows(round(LOADED * scene.share)))


def _live(direct: Direct, rows: Callable[[int], Rows], scene: Scene) -> Iterator[Figure]:
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
    ours, alone, grouped = [], [], []
    for _ in range(scene.rounds(ROUNDS)):
        batch = rows(UPSERTS)
        ours.append(UPSERTS / timed(lambda: _stage(direct, batch)))  # noqa: B023
        alone.append(UPSERTS / timed(lambda: _row_by_row(direct.url, batch)))  # noqa: B023
        batch = rows(UPSERTS)  # others: a vector that is there already costs the index next to nothing
        grouped.append(UPSERTS / timed(lambda: _by_document(direct.url, batch)))  # noqa: B023

    def against(theirs: Sequence[float]) -> float:
        return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))

    detail = (
        f"{statistics.median(ours):.0f} against {{:.0f}} rows/s; {present} rows before; staged {CHUNKS_PER_SLICE} at a time"
    )
    yield Figure(
        part=PART, name="live upserts, index present, against naive row by row", value=against(alone), unit="x", aim=2.8,
        detail=detail.format(statistics.median(alone)),
    )  # fmt: skip
    yield Figure(
        part=PART, name=f"live upserts, index present, against a transaction for each {EACH} rows", value=against(grouped),
        unit="x", detail=detail.format(statistics.median(grouped)),
    )  # fmt: skip


def _load(direct: Direct, batch: Rows) -> Iterator[Figure]:
    count = len(batch[0])
    direct.drop_index()
    staged = timed(lambda: _stage(direct, batch))
    built = timed(direct.build_index)
    for name, aim, naive in (
        ("against naive with the index present", 10, _row_by_row),
        (f"against a transaction for each {EACH} rows", None, _by_document),
    ):
        with open_database(direct.url) as connection:
            connection.execute("drop table if exists naive")
            create_table(connection, "naive")
        theirs = timed(lambda: naive(direct.url, batch))  # noqa: B023
        yield Figure(
            part=PART, name=f"load then build, {name}", value=theirs / (staged + built), unit="x", aim=aim,
            detail=f"{count} rows: {staged:.1f} s and {built:.1f} s for the index, against {theirs:.1f} s",
        )  # fmt: skip


def _stage(direct: Direct, rows: Rows) -> None:
    chunks, made = rows
    generation = direct.generation
    for start in range(0, len(chunks), CHUNKS_PER_SLICE):  # as the index worker does
        part = chunks[start : start + CHUNKS_PER_SLICE]
        direct.store.stage(generation, part, {c.digest: made[start + row] for row, c in enumerate(part)})


def _row_by_row(url: str, rows: Rows) -> None:
    """One row, one transaction, the vector as text: how a first version writes them."""
    chunks, made = rows
    with open_database(url) as connection:
        for row, chunk in enumerate(chunks):
            named = digest(chunk.text)
            connection.execute(INSERT, (f"new/{named}", 0, named, chunk.text, str(made[row].tolist())), prepare=False)


def _by_document(url: str, rows: Rows) -> None:
    """As the naive pipeline does: a transaction a document of EACH rows, row by row, prepared, the vectors in binary."""
    chunks, made = rows
    with open_database(url) as connection:
        for start in range(0, len(chunks), EACH):
            name = f"new/{digest(chunks[start].text)}"
            part = chunks[start : start + EACH]
            replace_document(
                connection, "naive", name,
                [(name, row, digest(c.text), c.text, HalfVector(made[start + row])) for row, c in enumerate(part)],
            )  # fmt: skip


def _chunk(choose: random.Random) -> Chunk:
    """About as long as a real one."""
    text = f"{' '.join(choose.choices(WORDS, k=90))} {choose.randrange(10**12)}."
    return Chunk(text=text, context="", digest=bytes.fromhex(digest(text)))
