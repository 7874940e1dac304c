"""A log that is known is read again: nothing of it is chunked or embedded. And the same as a new life of the source."""

import time
from collections.abc import Callable, Iterator

from bench.figures import Figure
from bench.scene import Live, Scene

PART = "replay"


def measure(scene: Scene) -> Iterator[Figure]:
    """All events that the topic has by now, from the first offset on."""
    live = scene.live
    if not live.changed:
        live.index_all(scene.events.changes)
    events = sum(live.ends.values())
    before = live.embedded()
    scene.note(live.index, "index")
    known = _again(live, lambda: live.workers.execute("update livedex.source_progress set next_offset = 0"))
    anew = _again(live, lambda: _reset(live))
    embedded = live.embedded()  # of the worker that began for the second reading
    yield Figure(
        part=PART, name="replay of a known log", value=events / known, unit="events/s", aim=2000,
        detail=f"{events} events in {known:.2f} s, none embedded ({before} were before)",
    )  # fmt: skip
    yield Figure(
        part=PART, name="replay after a reset of the source", value=events / anew, unit="events/s",
        detail=f"every document is chunked and written again; {embedded} chunks embedded",
    )  # fmt: skip


def _again(live: Live, rewind: Callable[[], None]) -> float:
    """Seconds of a worker that reads from the beginning, from its first claim on."""
    assert live.index.stop() == 0
    rewind()
    live.index = live.workers.start("index", live.config, wait=False, LIVEDEX_EMBEDDER="auto")
    statement = "select count(*) from livedex.source_progress where owner like %s"
    while live.workers.rows(statement, f"%-{live.index.popen.pid}-%") == [(0,)]:
        time.sleep(0.005)
    started = time.perf_counter()
    live.workers.caught_up(live.topic, live.ends, timeout=3600)
    return time.perf_counter() - started


def _reset(live: Live) -> None:
    done = live.workers.run("source", "reset", live.topic, config=live.config, LIVEDEX_EMBEDDER="auto")
    assert done.returncode == 0, done.stderr
