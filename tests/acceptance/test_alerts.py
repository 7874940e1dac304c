"""Faults of real workers raise exactly the alerts that the runbooks name, in time, and these resolve after healing.

A real Prometheus scrapes the workers and evaluates the rules of ops/prometheus, a real Alertmanager routes what they raise, and
all times are divided by FASTER. The table in docs/alerts.md is what these tests print.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from livedex.dev.stack import Addresses
from support.alarms import Alarms, Asking, Raised, Resolved, alarms
from support.database import create_template, fresh_database
from support.faults import servers
from support.faults.arena import Arena, World
from support.faults.broker import FaultBroker, broker, running
from support.faults.encoder import Behaviour
from support.faults.failover import TEMPLATE
from support.faults.nursery import Nursery
from support.faults.own import with_broker
from support.faults.poison import poisons
from support.faults.script import Event, Mix
from support.faults.servers import Server
from support.workers import Process

pytestmark = pytest.mark.accept

SEED = 8
CLEAN = Mix(poison=0, late=0, replay=0, most_paragraphs=2)
RATE = 5  # events a second
OUTAGE = 60.0  # seconds that a dependency is away: a quarter of an hour where nothing is faster
SLOW = 35.0  # seconds that an encoding takes: more than the objective's 30
BURST = 60  # dead letters
CATCHING_UP = frozenset({"LivedexStale", "LivedexFreshnessBudgetBurn"})  # what may follow until what waited is applied


class Watched:
    """Index workers and a query worker under load, with Prometheus and Alertmanager beside them."""

    def __init__(self, arena: Arena, workers: int, held: ExitStack) -> None:
        self.arena = arena
        self.workers = [arena.worker() for _ in range(workers)]
        self.serve: Process = arena.workers.start("serve", arena.config)
        self.load = arena.load(20_000, rate=RATE)
        held.callback(self.load.give_up)
        held.enter_context(Asking(self.serve.address))
        arena.wait_for(lambda: arena.applied() > 10, what="the work to be under way")
        targets = {"livedex-index": [each.address for each in self.workers], "livedex-serve": [self.serve.address]}
        self.alarms: Alarms = held.enter_context(alarms(arena.world.folder, targets, without=frozenset({"livedex.canary.yml"})))
        self.alarms.calm()

    def rest(self) -> None:
        """No more load."""
        self.load.stop()


@pytest.fixture
def world(stack: Addresses, database_url: str, tmp_path: Path) -> World:
    """The session's servers, with a database of the test's own."""
    addresses = Addresses(kafka_bootstrap_servers=stack.kafka_bootstrap_servers, database_url=database_url)
    return World(direct=addresses, seen=addresses, folder=tmp_path, seed=SEED)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server to kill, and a migrated database in it. Asked for before `watched`, it outlives what uses it."""
    with servers.server(tmp_path / "server") as server:
        create_template(server.url, TEMPLATE)
        with fresh_database(server.url, TEMPLATE) as url:
            yield server, url
            server.up()  # to drop it


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[FaultBroker]:
    """A broker to kill; see `own_postgres`."""
    with running(broker(tmp_path / "broker")) as own:
        yield own


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    """Opens an arena in a world, with its alarms."""
    with ExitStack() as held:
        nursery = held.enter_context(Nursery())

        def enter(world: World, *, workers: int = 1, **options: Any) -> Watched:
            arena = held.enter_context(Arena(world, nursery=nursery, **{"mix": CLEAN, **options}))
            return Watched(arena, workers, held)

        yield enter


def row(fault: str, raised: list[Raised], resolved: Resolved) -> None:
    """A row of the table in the documentation."""
    told = "; ".join(each.told for each in raised)
    print(f"| {fault} | {told} | {resolved.told} |")  # noqa: T201


def test_postgres_is_killed(own_postgres: tuple[Server, str], watched: Callable[..., Watched], world: World) -> None:
    """While Postgres is away one page names it; it resolves when Postgres is back."""
    server, url = own_postgres
    addresses = Addresses(kafka_bootstrap_servers=world.direct.kafka_bootstrap_servers, database_url=url)
    scene = watched(World(direct=addresses, seen=addresses, folder=world.folder, seed=SEED))
    with scene.arena.reader.excused():
        server.crash()
        raised = scene.alarms.fire({"LivedexDependencyDown": 3.0}, hold=OUTAGE)
        server.up()
    scene.alarms.healed()
    spent = {"LivedexSearchErrorBudgetBurn", "LivedexSearchLatencyBudgetBurn"}
    row("Postgres killed", raised, scene.alarms.resolve(minutes=10, aftermath=CATCHING_UP | spent))
    scene.rest()
    scene.arena.settle()


def test_the_broker_is_killed(own_broker: FaultBroker, watched: Callable[..., Watched], world: World) -> None:
    """While the broker is away one page names it; it resolves when the broker is back."""
    scene = watched(with_broker(world, own_broker))
    own_broker.kill()
    raised = scene.alarms.fire({"LivedexDependencyDown": 3.5}, hold=OUTAGE)
    own_broker.start()
    own_broker.wait_ready()
    scene.alarms.healed()
    row("broker killed", raised, scene.alarms.resolve(minutes=10, aftermath=CATCHING_UP))
    scene.rest()
    scene.arena.settle()


def test_a_worker_stands_still(watched: Callable[..., Watched], world: World) -> None:
    """Where another worker goes on, one that hangs is a ticket; it resolves when it goes on itself."""
    scene = watched(world, workers=2)
    scene.workers[0].popen.send_signal(signal.SIGSTOP)
    raised = scene.alarms.fire({"LivedexWorkerDown": 3.0}, hold=OUTAGE)
    scene.arena.go_on(scene.workers[0])
    scene.alarms.healed()
    row("one of two index workers stopped", raised, scene.alarms.resolve(minutes=3))
    scene.rest()
    scene.arena.settle()


def test_the_only_worker_stands_still(watched: Callable[..., Watched], world: World) -> None:
    """Where nobody is left to index, that is a page, and the only one."""
    scene = watched(world)
    scene.workers[0].popen.send_signal(signal.SIGSTOP)
    raised = scene.alarms.fire({"LivedexNoIndexWorker": 2.0}, hold=OUTAGE)
    scene.arena.go_on(scene.workers[0])
    scene.alarms.healed()
    row("the only index worker stopped", raised, scene.alarms.resolve(minutes=10, aftermath=CATCHING_UP))
    scene.rest()
    scene.arena.settle()


def test_a_burst_of_poison(watched: Callable[..., Watched], world: World) -> None:
    """Many dead letters at once are a page; those that lie there are a ticket, until they are discarded."""
    scene = watched(world)
    arena = scene.arena
    sorts = poisons("doc/1", numbered_by="log")
    events = [sorts[number % len(sorts)] for number in range(BURST)]
    arena.load([Event(name="doc/1", kind="poison", key=each.key, value=each.value) for each in events]).finish()
    raised = scene.alarms.fire({"LivedexDeadLetterBurst": 2.5, "LivedexDeadLettersOpen": 17.0})
    scene.alarms.healed()  # now: the command may take longer to end than the alerts to resolve
    done = arena.workers.run("dead-letters", "discard", "--all", config=arena.config)
    assert done.returncode == 0, done.stderr
    row("burst of poison records", raised, scene.alarms.resolve(minutes=3))


def test_the_encoder_is_slow(watched: Callable[..., Watched], world: World) -> None:
    """Where embedding takes long, staleness and the freshness objective are pages, and nothing says that something is down."""
    scene = watched(world)
    scene.arena.encoder.set(Behaviour(seconds=SLOW))
    raised = scene.alarms.fire({"LivedexStale": 7.0, "LivedexFreshnessBudgetBurn": 50.0})
    scene.arena.encoder.set(Behaviour())
    scene.alarms.healed()
    row("encoder slow", raised, scene.alarms.resolve(minutes=20))
    scene.rest()
    scene.arena.settle()
