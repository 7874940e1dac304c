"""How near the pipeline comes to the encoder alone while a log is read from the beginning, without a vector index."""

import json
from collections.abc import Iterator, Sequence

from bench.child import Child
from bench.events import Event
from bench.figures import Figure
from bench.part_chunks import Cutter
from bench.scene import Scene

PART = "load"
TURNS = 5


def measure(scene: Scene) -> Iterator[Figure]:
    """The snapshot through broker, worker and Postgres, a fifth at a time; each followed by its chunks through the encoder."""
    cutter, snapshot = Cutter(), scene.events.snapshot
    file, seen = scene.folder / "load.json", set[bytes]()
    live, through, alone = scene.empty_live(), [], []
    with Child("bench.encoder", "livedex") as encoder:
        for part in _parts(snapshot):
            texts = {c.digest: c.embedded_text for event in part if event["op"] == "upsert" for c in cutter.cut(event["text"])}
            file.write_text(json.dumps([text for digest, text in texts.items() if digest not in seen]))
            seen |= texts.keys()
            live.drop_index()  # the upkeep has built it meanwhile: the worker was caught up
            through.append(live.index_all(part))
            alone.append(encoder.ask(texts=str(file))["seconds"])
    embedded = live.embedded()
    yield Figure(
        part=PART, name="pipeline against the encoder alone, index deferred", value=100 * sum(alone) / sum(through), unit="%",
        aim=85, detail=f"{embedded} chunks in {sum(through):.1f} against {sum(alone):.1f} s; in {len(through)} turns of "
        f"{', '.join(f'{100 * there / here:.0f}' for here, there in zip(through, alone, strict=True))} %",
    )  # fmt: skip
    yield Figure(
        part=PART, name="load from the log", value=len(snapshot) / sum(through), unit="events/s",
        detail=f"{len(snapshot)} new documents",
    )  # fmt: skip


def _parts(snapshot: Sequence[Event]) -> Iterator[Sequence[Event]]:
    size = -(-len(snapshot) // TURNS)
    return (snapshot[start : start + size] for start in range(0, len(snapshot), size))
