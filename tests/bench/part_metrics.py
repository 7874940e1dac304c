"""What the metrics cost: the same events through a worker that counts and is scraped, and through one that does not count.

The hash encoder, and documents of one chunk: nothing else costs a batch so little, so the share of the metrics is the largest.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import httpx

from bench.figures import Figure
from bench.scene import Scene
from support.kafka import Log
from support.workers import Process, Workers

PART = "metrics"
TURNS = 15
EVENTS = 3_000  # a turn and worker
SCRAPE_EVERY = 1.0  # seconds: Prometheus does so every 15


class Side:
    """A worker on a topic and a database of its own."""

    def __init__(self, workers: Workers, log: Log, module: str) -> None:
        self._workers, self._log, self._topic = workers, log, log.topic()
        config = workers.config(self._topic)
        workers.apply(config)
        workers.execute("update livedex.generation set index_method = 'none'")  # an index build would come in between
        self.process = workers.start("index", config, module=module)

    def turn(self, numbers: Iterator[int]) -> float:
        """Seconds from the first event until all are searchable."""
        started = time.perf_counter()
        posts = [
            self._log.post(self._topic, {"id": f"d{n}", "text": f"Text {n} of a small document."})
            for n, _ in zip(numbers, range(EVENTS), strict=False)
        ]
        self._log.flush()
        self._workers.caught_up(self._topic, {0: posts[-1]().offset + 1})
        return time.perf_counter() - started


def measure(scene: Scene) -> Iterator[Figure]:
    """One after the other, in turns that begin with either."""
    numbers = count()
    with scene.database() as first, scene.database() as second:
        on, off = Side(first, scene.log, "livedex"), Side(second, scene.log, "bench.unmeasured")
        ratios, rates = [], []
        with scraped(on.process):
            on.turn(numbers), off.turn(numbers)
            for turn in range(scene.rounds(TURNS)):
                took = {side: side.turn(numbers) for side in ((on, off) if turn % 2 else (off, on))}
                ratios.append(took[off] / took[on])
                rates.append(EVENTS / took[on])
        assert on.process.metrics().value("livedex_events_total") > 0
        assert off.process.metrics().value("livedex_events_total") == 0, "it must not have counted"
    yield Figure(
        part=PART, name="throughput with metrics and a scrape a second, against without", value=100 * statistics.median(ratios),
        unit="%", aim=98,
        detail=f"median of {len(ratios)} turns, {min(ratios):.0%} to {max(ratios):.0%}; "
        f"{statistics.median(rates):.0f} events/s",
    )  # fmt: skip


@contextmanager
def scraped(worker: Process) -> Iterator[None]:
    """While somebody reads its metrics."""
    done = threading.Event()

    def run() -> None:
        with httpx.Client(trust_env=False) as client:
            while not done.wait(SCRAPE_EVERY):
                client.get(f"{worker.address}/metrics").raise_for_status()

    thread = threading.Thread(target=run, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
