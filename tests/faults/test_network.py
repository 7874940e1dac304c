"""Networks that are slow, tear or swallow: whoever cannot be reached is waited for by name, and nothing is lost or skipped."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from livedex.dev.stack import Addresses
from support.faults import broker, oracle, plugin, vitals
from support.faults.arena import Arena, World
from support.faults.broker import Behind
from support.faults.own import restart
from support.faults.proxy import Proxy
from support.faults.servers import port_of, through
from support.workers import Process, free_port

OUTAGE, LONG_OUTAGE = 15.0, 120.0  # seconds
CAUGHT_UP = 30.0  # seconds after healing
NOTICED = 30.0  # seconds until a worker says that something is down


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The proxies between workers and the two servers."""

    kafka: Proxy
    postgres: Proxy

    def of(self, dependency: str) -> Proxy:
        """By the name that workers give it."""
        return self.kafka if dependency == "kafka" else self.postgres


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Behind]:
    """A broker with a proxy before it."""
    with broker.behind_proxy(tmp_path_factory.mktemp("broker"), seed=plugin.seed_of(request.config)) as own:
        yield own


@pytest.fixture
def links(behind: Behind, database_url: str, seed: int) -> Iterator[Links]:
    """Both proxies, without a fault."""
    behind.proxy.heal()
    with Proxy(port_of(database_url), seed=seed) as postgres:
        yield Links(kafka=behind.proxy, postgres=postgres)
        behind.proxy.heal()


@pytest.fixture
def world(behind: Behind, links: Links, database_url: str, tmp_path: Path, seed: int) -> World:
    """Workers see both servers through proxies; the harness does not."""
    return World(
        direct=Addresses(kafka_bootstrap_servers=behind.broker.bootstrap_servers, database_url=database_url),
        seen=Addresses(kafka_bootstrap_servers=behind.bootstrap_servers, database_url=through(database_url, links.postgres)),
        folder=tmp_path,
        seed=seed,
    )


def up(worker: Process, dependency: str) -> float:
    """What the gauge says of a dependency."""
    return vitals.gauge(worker, "livedex_dependency_up", dependency=dependency)


def held(worker: Process, reason: str) -> float:
    """How many partitions wait for this."""
    return vitals.gauge(worker, "livedex_paused_partitions", reason=reason)


def is_told(arena: Arena, worker: Process, down: str, answers: str) -> None:
    """I12: gauges and readiness name the one dependency that does not answer, and staleness rises."""
    arena.wait_for(lambda: not up(worker, down), timeout=NOTICED, what=f"the worker to say that {down} is down")
    arena.wait_for(lambda: vitals.waits_for(worker, down), what=f"the worker to be not ready because of {down}")
    assert up(worker, answers), f"{answers} answers"
    vitals.stall_is_told(worker, seconds=3)


def nothing_is_skipped(arena: Arena) -> None:
    """No dead letter came because of a fault."""
    records = {(record.topic, record.partition, record.offset) for record in arena.records() if oracle.is_poison(record)}
    rows = arena.rows('select topic, partition, "offset" from livedex.dead_letter')
    assert {tuple(row) for row in rows} <= records, "a good record became a dead letter"


def caught_up(arena: Arena) -> None:
    """I9: all that was sent is applied within CAUGHT_UP seconds, and then everything is as it should be."""
    arena.verify(arena.settle(timeout=CAUGHT_UP))


@pytest.mark.scenario(13, seconds=50)
@pytest.mark.parametrize("seconds", [OUTAGE, pytest.param(LONG_OUTAGE, marks=pytest.mark.scenario(13, seconds=170))])
@pytest.mark.parametrize("when", ["at-start", "in-the-middle"])
def test_13_the_broker_is_away(open_arena: Callable[..., Arena], behind: Behind, when: str, seconds: float) -> None:
    """A broker that is away for long ends no worker and makes no dead letter; staleness tells of it, and half a minute after it
    is back everything is applied.
    """
    arena = open_arena()
    load = arena.load(8_000, rate=40)
    arena.wait_for(lambda: len(load.acknowledged) > 50, what="events in the log")
    if when == "in-the-middle":
        arena.worker()
        arena.wait_for(arena.applied, what="the first progress")

    def meanwhile() -> None:
        worker = arena.worker(wait=False) if when == "at-start" else arena.alive[0]
        began = time.monotonic()
        arena.wait_for(lambda: vitals.waits_for(worker, "kafka"), what="the worker to wait for Kafka")
        vitals.stall_is_told(worker, seconds=seconds / 2, timeout=seconds)
        arena.watch_for(max(0.0, seconds - (time.monotonic() - began)))

    restart(behind.broker, behind.broker.stop, meanwhile)
    healed = time.monotonic()
    load.stop()
    records = arena.settle(timeout=CAUGHT_UP)
    took = time.monotonic() - healed
    arena.oplog.note("scenario", "caught up", seconds=round(took, 1))
    assert took < CAUGHT_UP, f"I9 it took {took:.1f} s to catch up"
    arena.verify(records)
    nothing_is_skipped(arena)


@pytest.mark.scenario(13, seconds=15)
def test_13_a_worker_starts_where_the_broker_is_out_of_its_reach(arena: Arena) -> None:
    """It tells no staleness of partitions that another worker serves, and rising staleness once nobody does."""
    serving = arena.worker()
    arena.load(100)
    arena.settle()
    alone = arena.worker(wait=False, LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    arena.wait_for(lambda: vitals.waits_for(alone, "kafka") and not vitals.waits_for(alone, "postgres"), what="it to start")
    arena.watch_for(3)
    assert vitals.gauge(alone, "livedex_staleness_seconds") == 0
    arena.terminate(serving)
    vitals.stall_is_told(alone, seconds=3)
    arena.worker()
    arena.wait_for(lambda: vitals.gauge(alone, "livedex_staleness_seconds") == 0, what="the partitions to be served again")


@pytest.mark.scenario(14, seconds=30)
@pytest.mark.parametrize("fault", ["slow", "torn"])
def test_14_a_bad_network_to_the_broker(open_arena: Callable[..., Arena], links: Links, fault: str) -> None:
    """With half a second of delay and jitter, or connections that are reset, the work goes on, by one owner a partition."""
    arena = open_arena()
    worker = arena.worker()
    links.kafka.set(**({"latency": 0.4, "jitter": 0.2} if fault == "slow" else {"resets": 0.01}))
    load = arena.load(800, rate=60)
    arena.worker(wait=False)
    arena.wait_for(lambda: arena.applied() > 200, what="the work to go on")
    arena.watch_for(5)
    links.kafka.heal()
    assert (links.kafka.delayed if fault == "slow" else links.kafka.torn) > 0, "the network must have been bad"
    load.stop()
    del worker
    caught_up(arena)


@pytest.mark.scenario(14, seconds=40)
def test_14_a_black_hole_before_the_broker(open_arena: Callable[..., Arena], links: Links) -> None:
    """A network that takes bytes and delivers none is an outage like any other: named, waited for, and over when it is over."""
    arena = open_arena()
    worker = arena.worker()
    load = arena.load(800, rate=40)
    arena.wait_for(arena.applied, what="the first progress")
    links.kafka.blackhole()
    is_told(arena, worker, "kafka", "postgres")
    links.kafka.heal()
    load.stop()
    caught_up(arena)


@pytest.mark.scenario(15, seconds=35)
@pytest.mark.parametrize(("down", "answers"), [("postgres", "kafka"), ("kafka", "postgres")])
@pytest.mark.parametrize("fault", ["refused", "swallowed"])
def test_15_one_of_two_servers_is_out_of_reach(
    open_arena: Callable[..., Arena], links: Links, down: str, answers: str, fault: str
) -> None:
    """While a worker reaches one server and not the other, it says which, holds its partitions, and skips nothing."""
    arena = open_arena()
    worker = arena.worker()
    load = arena.load(2_000, rate=40)
    arena.wait_for(arena.applied, what="the first progress")
    proxy = links.of(down)
    proxy.cut() if fault == "refused" else proxy.blackhole()
    is_told(arena, worker, down, answers)
    if (down, fault) == ("postgres", "refused"):  # whose statement is swallowed waits for its answer, as far as TCP lives
        arena.wait_for(lambda: held(worker, "postgres"), what="partitions to be held until Postgres answers")
    nothing_is_skipped(arena)
    proxy.heal()
    load.stop()
    caught_up(arena)
    assert held(worker, down) == 0
