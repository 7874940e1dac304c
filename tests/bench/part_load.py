"""How near the pipeline comes to the encoder alone while a log is read from the beginning, without a vector index."""

import json
import random
import statistics
from collections.abc import Iterator, Sequence

from bench.child import Child
from bench.events import Event
from bench.figures import Figure
from bench.part_chunks import Cutter
from bench.scene import Scene

PART = "load"
TURNS = 5
SAMPLE = 600  # chunks that the bare encoder encodes in a turn


def measure(scene: Scene) -> Iterator[Figure]:
    """The snapshot through broker, worker and Postgres, a fifth at a time; chunks through the encoder alone in between."""
    cutter, snapshot = Cutter(), scene.events.snapshot
    texts = [found.embedded_text for event in snapshot if event["op"] == "upsert" for found in cutter.cut(event["text"])]
    sample = random.Random(7).sample(texts, min(SAMPLE, len(texts)))
    file = scene.folder / "load.json"
    file.write_text(json.dumps(sample))
    live, through, alone, seconds = scene.empty_live(), [], [], 0.0
    with Child("bench.encoder", "livedex") as encoder:
        encoder.ask(texts=str(file))
        for part in _parts(snapshot):
            live.drop_index()  # the upkeep has built it meanwhile: the worker was caught up
            before = live.embedded()
            took = live.index_all(part)
            seconds += took
            through.append((live.embedded() - before) / took)
            alone.append(len(sample) / encoder.ask(texts=str(file))["seconds"])
    ratio = statistics.median(here / there for here, there in zip(through, alone, strict=True))
    yield Figure(
        part=PART, name="pipeline against the encoder alone, index deferred", value=100 * ratio, unit="%", aim=85,
        detail=f"{live.embedded()} chunks at {statistics.median(through):.1f} against {statistics.median(alone):.1f} chunks/s; "
        f"median of {len(through)} turns",
    )  # fmt: skip
    yield Figure(
        part=PART, name="load from the log", value=len(snapshot) / seconds, unit="events/s",
        detail=f"{len(snapshot)} new documents",
    )  # fmt: skip


def _parts(snapshot: Sequence[Event]) -> Iterator[Sequence[Event]]:
    size = -(-len(snapshot) // TURNS)
    return (snapshot[start : start + size] for start in range(0, len(snapshot), size))
