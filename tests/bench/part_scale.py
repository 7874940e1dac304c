"""What one edit takes and writes in collections of three sizes, which differ by fifty."""

import random
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.direct import Direct, Document, opened, vectors
from bench.figures import Figure
from bench.fill import fill
from bench.scene import Scene
from livedex.database import connect

PART = "scale"
SIZES = (10_000, 100_000, 500_000)
ROUNDS = 100
WARM = 10  # edits that are not counted: they bring the collection's rows into memory
WRITTEN = """
select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables
 where schemaname = 'livedex' and relname <> 'source_progress'"""


@dataclass(slots=True)
class Collection:
    """One of the three."""

    direct: Direct
    document: Document
    seconds: list[float] = field(default_factory=list)
    rows: float = 0.0  # written by an edit


def measure(scene: Scene) -> Iterator[Figure]:
    """One sentence of one document of twelve chunks, in each collection in turn."""
    rounds = scene.rounds(ROUNDS, 5)
    sizes = [max(240, round(size * scene.share)) for size in SIZES]
    with ExitStack() as stack:
        found = {size: _collection(scene, stack, size) for size in sizes}
        for number in range(WARM + rounds):
            if number == WARM:
                before = {size: _written(collection.direct) for size, collection in found.items()}
            for collection in found.values():
                spent = collection.direct.write([collection.document.edit()])
                if number >= WARM:
                    collection.seconds.append(spent.whole)
        for size, collection in found.items():
            collection.rows = (_written(collection.direct) - before[size]) / rounds
    medians = {size: statistics.median(collection.seconds) * 1000 for size, collection in found.items()}
    names = " / ".join(f"{size:,}" for size in sizes)
    yield _spread(f"time of one edit at {names} chunks, slowest against fastest", list(medians.values()), "ms", rounds)
    yield _spread("rows written by it, most against fewest", [c.rows for c in found.values()], "rows", rounds)


def _collection(scene: Scene, stack: ExitStack, size: int) -> Collection:
    workers = stack.enter_context(scene.database())
    direct = stack.enter_context(opened(workers.database_url, size))
    fill(direct, size, vectors(size + 1)(size))
    document = Document("edited", random.Random(size))
    direct.write([document.event()])
    return Collection(direct, document)


def _written(direct: Direct) -> float:
    """Rows that were inserted, updated or deleted so far. Sessions report late, at their end at the latest: so they end."""
    direct.reconnect()
    with connect(direct.url) as connection:
        connection.execute("select pg_stat_clear_snapshot()")
        return float(sum(row[1] for row in connection.execute(WRITTEN).fetchall()))


def _spread(name: str, values: list[float], unit: str, rounds: int) -> Figure:
    return Figure(
        part=PART, name=name, value=max(values) / max(min(values), 1e-9), unit="x", aim=1.5, better="less",
        detail=f"{' / '.join(f'{value:.1f}' for value in values)} {unit}, {rounds} edits each, without the model",
    )  # fmt: skip
