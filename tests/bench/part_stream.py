"""The changes of the stream, end to end, through the three pipelines: same topic, same model, same server, in turns."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from bench.baseline import create_index, create_table, open_database
from bench.child import Child
from bench.events import parts
from bench.figures import Figure
from bench.scene import Live, Scene, create_database

PART = "stream"
TURNS = 4  # each pipeline does a quarter of the changes, then the next one does
AIMS = {"bf16": (12.0, 4.0), "f32": (7.0, 2.8)}


@dataclass(slots=True)
class Total:
    """What a pipeline took."""

    seconds: float = 0.0
    embedded: int = 0
    left_out: int = 0  # chunks of changes that were left out, to save time

    @property
    def chunks(self) -> int:
        """That all changes would have had it embed."""
        return self.embedded + self.left_out

    @property
    def whole(self) -> float:
        """Seconds for all changes: in proportion to the chunks, each of which takes the same."""
        return self.seconds * self.chunks / self.embedded if self.left_out else self.seconds


def measure(scene: Scene) -> Iterator[Figure]:
    """First livedex in each turn, because it reads at once what is posted; its time begins before the first event is."""
    live = scene.live
    live.need_index()
    url = create_database(scene, "others")
    totals = {name: Total() for name in ("livedex", "competent", "naive")}
    with open_database(url) as connection:
        for table in ("competent", "naive"):
            create_table(connection, table)
        where = (url, scene.stack.kafka_bootstrap_servers, live.topic)
        every = str(scene.naive_every)
        with (
            Child("bench.baseline", "competent", *where, "1") as competent,
            Child("bench.baseline", "naive", *where, every) as naive,
        ):
            _load(connection, live, competent, naive)
            for part in parts(scene.events.changes, TURNS):
                before = live.embedded()
                totals["livedex"].seconds += live.index_all(part)
                totals["livedex"].embedded += live.embedded() - before
                for name, child in (("competent", competent), ("naive", naive)):
                    answer = child.ask(ends=live.ends)
                    totals[name].seconds += answer["seconds"]
                    totals[name].embedded += answer["embedded"]
                    totals[name].left_out += answer["left_out"]
    live.changed = True
    yield from _figures(totals, live.precision, len(scene.events.changes))


def _load(connection: "psycopg.Connection[tuple[object, ...]]", live: Live, competent: Child, naive: Child) -> None:
    """The snapshot into both tables; embedded once, because both cut alike and it is not timed."""
    competent.ask(ends=live.ends)
    connection.execute("drop index naive_hnsw")
    connection.execute(
        "insert into naive (document_id, ordinal, hash, text, embedding) select document_id, ordinal, hash, text, embedding "
        "from competent order by id"
    )
    create_index(connection, "naive")
    connection.execute("analyze")
    naive.ask(skip=live.ends)


def _figures(totals: dict[str, Total], precision: str, changes: int) -> Iterator[Figure]:
    aims = AIMS.get(precision, AIMS["f32"])
    ours = totals["livedex"]
    for name, aim in zip(("naive", "competent"), aims, strict=True):
        other = totals[name]
        yield Figure(
            part=PART, name=f"the whole stream end to end, against {name}", value=other.whole / ours.seconds, unit="x",
            aim=aim, detail=f"{changes} changes in {ours.seconds:.0f} against {other.whole:.0f} s; {ours.embedded} against "
            f"{other.chunks} chunks embedded" + (f"; {name} did {other.embedded} of them" if other.left_out else ""),
        )  # fmt: skip
    yield Figure(part=PART, name="the whole stream", value=changes / ours.seconds, unit="events/s", detail=precision)
