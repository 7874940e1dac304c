"""How near the pipeline comes to the encoder alone while a log is read from the beginning, without a vector index."""

import json
import statistics
from collections.abc import Iterator

from bench.child import Child
from bench.figures import Figure
from bench.scene import Scene

PART = "load"
ROUNDS = 3
SAMPLE = 1500  # chunks that the bare encoder encodes in a round


def measure(scene: Scene) -> Iterator[Figure]:
    """The snapshot through broker, worker and Postgres; then its chunks through the encoder in a process of its own."""
    loaded, workers = scene.loaded, scene.live.workers
    rows = workers.rows(
        "select concat_ws(e'\\n\\n', nullif(context, ''), text) from livedex.chunk order by md5(text) limit %s", SAMPLE
    )
    file = scene.folder / "load.json"
    file.write_text(json.dumps([row[0] for row in rows]))
    with Child("bench.encoder", "livedex") as encoder:
        encoder.ask(texts=str(file))
        seconds = statistics.median(encoder.ask(texts=str(file))["seconds"] for _ in range(ROUNDS))
    alone, through = len(rows) / seconds, loaded.embedded / loaded.seconds
    events = len(scene.events.snapshot)
    yield Figure(
        part=PART, name="pipeline against the encoder alone, index deferred", value=100 * through / alone, unit="%", aim=85,
        detail=f"{loaded.embedded} chunks at {through:.1f} against {alone:.1f} chunks/s",
    )  # fmt: skip
    yield Figure(
        part=PART, name="load from the log", value=events / loaded.seconds, unit="events/s", detail=f"{events} new documents"
    )
