"""From one index worker to four and back under load, as many as Kubernetes would run by KEDA's scaler on staleness."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.deploy.autoscaler import Autoscaler, Rules
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.script import Mix

PARTITIONS = 4
EACH = 0.1  # seconds that a text takes to embed, on no core: one worker makes ten vectors a second
BUSY, QUIET = 24, 3  # events a second: twice what one worker can, and much less; hardly work for this machine
STALENESS = 4.0  # seconds for each replica
# As in the chart, where everything takes fifteen times as long or more.
UP = Rules(window=2, pods=2, period=4)
DOWN = Rules(window=10, pods=1, period=4)
LOOK = 1.0  # seconds between two decisions; Kubernetes: 15


@dataclass(slots=True)
class Cluster:
    """Does what the autoscaler says, and writes down what came of it."""

    arena: Arena
    scaler: Autoscaler = field(default_factory=lambda: Autoscaler(least=1, most=PARTITIONS, up=UP, down=DOWN))
    began: float = field(default_factory=time.monotonic)
    history: list[tuple[float, int, float, int]] = field(default_factory=list)  # second, workers, staleness, applied
    _next: float = 0.0

    def step(self) -> None:
        """Scrape, decide, and start or end workers; at most once in LOOK seconds."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK
        current = len(self.arena.alive)
        staleness = max(self._scraped(), default=0.0)
        self.history.append((now - self.began, current, staleness, self.arena.applied()))
        wanted = self.scaler.replicas(current, {STALENESS: staleness}, now=now)
        for _ in range(current, wanted):
            self.arena.worker(wait=False)
        for _ in range(wanted, current):
            self.arena.terminate(self.arena.alive[-1])

    def until(self, condition: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Go on until the condition holds."""

        def there() -> bool:
            self.step()
            return condition()

        self.arena.wait_for(there, timeout=timeout, what=what)

    @property
    def staleness(self) -> float:
        """At the last scrape."""
        return self.history[-1][2]

    def table(self) -> str:
        """The history for people, by seconds."""
        lines = ["second  workers  staleness s  applied"]
        lines += [f"{second:6.0f}  {count:7}  {stale:11.1f}  {done:7}" for second, count, stale, done in self.history]
        return "\n".join(lines)

    def _scraped(self) -> Iterator[float]:
        """Staleness by partition; a worker that only begins has nothing to say."""
        for worker in self.arena.alive:
            try:
                answer = httpx.get(f"{worker.address}/metrics", timeout=2, trust_env=False)
            except httpx.HTTPError:
                continue
            for family in text_string_to_metric_families(answer.text):
                if family.name == "livedex_staleness_seconds":
                    yield from (sample.value for sample in family.samples)


@pytest.mark.accept
def test_from_one_worker_to_four_and_back(open_arena: Callable[..., Arena]) -> None:
    """Under more events than one worker can embed, staleness starts three more and falls again while the events go on; with
    fewer events they end one by one, none is lost, and the index is the fold of the log.
    """
    arena = open_arena(partitions=PARTITIONS, documents=2_000, mix=Mix(poison=0.01, most_paragraphs=4))
    arena.encoder.set(Behaviour(each=EACH))
    arena.worker()
    cluster = Cluster(arena)
    try:
        busy = arena.load(BUSY * 600, rate=BUSY)
        cluster.until(lambda: len(arena.alive) == PARTITIONS, timeout=300, what="staleness to start all four workers")
        worst = cluster.staleness
        pids = {worker.popen.pid for worker in arena.alive}
        cluster.until(lambda: arena.owners() == pids, timeout=180, what="each to own something")
        cluster.until(lambda: cluster.staleness < STALENESS, timeout=300, what=f"staleness to recover from {worst:.1f} s")
        assert busy.running, "staleness must recover under the load, not because it is over"
        busy.stop()
        quiet = arena.load(QUIET * 600, rate=QUIET)
        cluster.until(lambda: len(arena.alive) == 1, timeout=300, what="three workers to end")
        cluster.until(lambda: cluster.staleness < STALENESS, timeout=180, what="the last one to keep up")
        assert quiet.running, "the workers must go under the load, not because it is over"
        quiet.stop()
        arena.verify(arena.settle())
    finally:
        print(cluster.table())  # noqa: T201
    assert {count for _, count, _, _ in cluster.history} >= {1, 3, 4}
