"""How near the pipeline comes to the encoder alone while a log is read from the beginning, without a vector index."""

import json
from collections.abc import Iterator, Sequence

from bench.child import Child
from bench.events import Event, parts
from bench.figures import Figure
from bench.part_chunks import Cutter
from bench.scene import Scene

PART = "load"
TURNS = 6  # the first, in which both sides begin, is not counted


def measure(scene: Scene) -> Iterator[Figure]:
    """The snapshot through broker, worker and Postgres, a part at a time; each followed by its chunks through the encoder."""
    cutter, (first, *others) = Cutter(), parts(scene.events.snapshot, TURNS)
    file, seen, live = scene.folder / "load.json", set[bytes](), scene.empty_live()

    def turn(part: Sequence[Event]) -> tuple[float, float]:
        texts = {c.digest: c.embedded_text for event in part if event["op"] == "upsert" for c in cutter.cut(event["text"])}
        new = [text for digest, text in texts.items() if digest not in seen]
        file.write_text(json.dumps(new))
        seen.update(texts)
        live.drop_index()
        before = live.embedded()
        through = live.index_all(part)
        assert live.embedded() - before == len(new), "both sides have the same chunks"
        live.need_index()  # the upkeep builds it, now that the worker is caught up: not beside the encoder
        return through, encoder.ask(texts=str(file))["seconds"]

    with Child("bench.encoder", "livedex") as encoder:
        turn(first)
        before = live.embedded()
        turns = [turn(part) for part in others]
    through, alone = (sum(side) for side in zip(*turns, strict=True))
    events = sum(map(len, others))
    yield Figure(
        part=PART, name="pipeline against the encoder alone, index deferred", value=100 * alone / through, unit="%", aim=85,
        detail=f"{live.embedded() - before} chunks in {through:.1f} against {alone:.1f} s; in {len(turns)} turns of "
        f"{', '.join(f'{100 * there / here:.0f}' for here, there in turns)} %",
    )  # fmt: skip
    yield Figure(
        part=PART, name="load from the log", value=events / through, unit="events/s", detail=f"{events} new documents",
    )  # fmt: skip
