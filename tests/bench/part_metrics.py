"""What the metrics cost: the same events through a worker that counts and is scraped, and through one that does not count.

The hash encoder, and documents of one chunk: nothing else costs a batch so little, so the share of the metrics is the largest.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice

import httpx
import psutil

from bench.figures import Figure
from bench.scene import Scene
from support.kafka import Log
from support.workers import Process, Workers

PART = "metrics"
TURNS = 9
EVENTS = 10_000  # a turn and worker: some five seconds
SCRAPE_EVERY = 1.0  # seconds, so that each turn has some
PROMETHEUS = 15.0  # seconds: how often Prometheus scrapes
SCRAPES = 100  # that are timed


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds that a worker took for the events of a turn, by the clock and of a processor."""

    wall: float
    cpu: float


class Side:
    """A worker on a topic and a database of its own."""

    def __init__(self, workers: Workers, log: Log, module: str, **environment: str) -> None:
        self._workers, self._log, self._topic = workers, log, log.topic()
        config = workers.config(self._topic)
        workers.apply(config)
        workers.execute("update livedex.generation set index_method = 'none'")  # an index build would come in between
        self.process = workers.start("index", config, wait=True, module=module, **environment)
        self._used = psutil.Process(self.process.popen.pid)

    def turn(self, numbers: Iterator[int]) -> Turn:
        """From the moment at which all events can be read until all are searchable: the producer has no part in it."""
        events = [{"id": f"d{n}", "text": f"Text {n} of a small document."} for n in islice(numbers, EVENTS)]
        before = self._cpu()
        end = self._log.send_together(self._topic, events)
        started = time.perf_counter()
        self._workers.caught_up(self._topic, {0: end})
        return Turn(time.perf_counter() - started, self._cpu() - before)

    def scrape(self) -> float:
        """Seconds of a processor that a scrape takes."""
        with httpx.Client(trust_env=False) as client:
            before = self._cpu()
            for _ in range(SCRAPES):
                client.get(f"{self.process.address}/metrics").raise_for_status()
            return (self._cpu() - before) / SCRAPES

    def _cpu(self) -> float:
        times = self._used.cpu_times()
        return float(times.user + times.system)


def measure(scene: Scene) -> Iterator[Figure]:
    """One after the other, in turns that begin with either."""
    numbers = count()
    with scene.database() as first, scene.database() as second:
        on, off = Side(first, scene.log, "livedex"), Side(second, scene.log, "bench.unmeasured")
        with scraped(on.process):
            on.turn(numbers), off.turn(numbers)
            turns = [
                {side: side.turn(numbers) for side in ((on, off) if number % 2 else (off, on))}
                for number in range(scene.rounds(TURNS))
            ]
        assert on.process.metrics().value("livedex_events_total") > 0
        assert off.process.metrics().value("livedex_events_total") == 0, "it must not have counted"
    ratios = [turn[off].wall / turn[on].wall for turn in turns]
    cpu = {side: 1000 * sum(turn[side].cpu for turn in turns) / (EVENTS * len(turns)) for side in (on, off)}
    yield Figure(
        part=PART, name="throughput with metrics and a scrape a second, against without", value=100 * statistics.median(ratios),
        unit="%", aim=98,
        detail=f"median of {len(ratios)} turns, {min(ratios):.0%} to {max(ratios):.0%}; "
        f"{EVENTS / statistics.median(turn[on].wall for turn in turns):.0f} events/s; "
        f"processor time of the worker {cpu[on]:.3f} against {cpu[off]:.3f} ms an event; two workers that both count differ as "
        "much from turn to turn, so that the next figure says more",
    )  # fmt: skip
    yield from _clocked(scene)


def _clocked(scene: Scene) -> Iterator[Figure]:
    """What goes into updates, by the clock of the threads that make them, and into a scrape, by that of the worker."""
    told = scene.folder / "clock"
    numbers = count()
    with scene.database() as workers:
        side = Side(workers, scene.log, "bench.clocked", BENCH_CLOCK=str(told))
        cpu = sum(side.turn(numbers).cpu for _ in range(scene.rounds(TURNS)))
        scrape = side.scrape()  # longer than TOLD_EVERY
        spent, events = float(told.read_text()), next(numbers)
    yield Figure(
        part=PART, name="processor time of the worker that goes into its metrics, with a scrape every 15 s",
        value=100 * (spent / cpu + scrape / PROMETHEUS), unit="%", aim=2, better="less",
        detail=f"at most: {1e6 * spent / events:.1f} of {1e6 * cpu / events:.0f} \N{MICRO SIGN}s an event, with the clock; "
        f"a scrape {1000 * scrape:.1f} ms",
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
