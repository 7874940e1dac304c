"""A Postgres that restarts, fails over, fills up or has others at work in it: nothing is lost, nothing is written twice."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedex.dev.stack import Addresses
from support.database import create_template, fresh_database
from support.faults import servers, vitals
from support.faults.arena import Arena, World
from support.faults.failover import TEMPLATE, replicated
from support.faults.interference import deadlock, end_a_writer, serialization_failures
from support.faults.proxy import Proxy
from support.faults.reader import Reader
from support.faults.servers import Server, port_of, through
from support.waiting import until
from support.workers import Process

OUTAGE, LONG_OUTAGE = 15.0, 120.0  # seconds
CAUGHT_UP = 30.0  # seconds from the end of a fault to the end of all work
TERMINATIONS = 15
CUTS = 6
DISK_MB = 64
LOCKED = 7.0  # seconds: longer than a writer waits for a lock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Postgres of these scenarios' own, with a migrated database to copy."""
    with servers.server(tmp_path_factory.mktemp("server")) as own:
        create_template(own.url, TEMPLATE)
        yield own


@pytest.fixture
def own_url(server: Server) -> Iterator[str]:
    """A database in it."""
    with fresh_database(server.url, TEMPLATE) as url:
        yield url
        server.up()  # to drop it


@pytest.fixture
def proxy(own_url: str, seed: int) -> Iterator[Proxy]:
    """Between the workers and that server."""
    with Proxy(port_of(own_url), seed=seed) as own:
        yield own


@pytest.fixture
def world(stack: Addresses, own_url: str, proxy: Proxy, tmp_path: Path, seed: int) -> World:
    """The session's broker and the scenarios' own Postgres, which workers see through a proxy."""
    kafka = stack.kafka_bootstrap_servers
    return World(
        direct=Addresses(kafka_bootstrap_servers=kafka, database_url=own_url),
        seen=Addresses(kafka_bootstrap_servers=kafka, database_url=through(own_url, proxy)),
        folder=tmp_path,
        seed=seed,
    )


def letters_are_poison(arena: Arena) -> None:
    """No dead letter came because of a fault, while it lasts."""
    reasons = {row[0] for row in arena.rows("select distinct reason from livedex.dead_letter")}
    assert not reasons & {"embedding-failed", "storing-failed"}, reasons


def caught_up(arena: Arena, *, since: float | None = None) -> None:
    """I9: all that was sent is applied within CAUGHT_UP seconds (of the healing), and then everything is as it should be."""
    began = since or time.monotonic()
    records = arena.settle(timeout=CAUGHT_UP)
    took = time.monotonic() - began
    arena.oplog.note("scenario", "caught up", seconds=round(took, 1))
    assert took < CAUGHT_UP, f"I9 it took {took:.1f} s to catch up"
    arena.verify(records)


# away


@pytest.mark.scenario(13, seconds=40)
@pytest.mark.parametrize("seconds", [OUTAGE, pytest.param(LONG_OUTAGE, marks=pytest.mark.scenario(13, seconds=170))])
@pytest.mark.parametrize("when", ["at-start", "in-the-middle"])
def test_13_postgres_is_away(open_arena: Callable[..., Arena], server: Server, when: str, seconds: float) -> None:
    """A Postgres that is away for long ends no worker and makes no dead letter; staleness tells of it, at the start of the
    topics that the settings name; and half a minute after it is back everything is applied.
    """
    arena = open_arena()
    load = arena.load(8_000, rate=40)
    if when == "in-the-middle":
        arena.worker()
        arena.wait_for(arena.applied, what="the first progress")
    with arena.reader.excused():
        server.stop()
        worker = arena.worker(wait=False) if when == "at-start" else arena.alive[0]
        began = time.monotonic()
        arena.wait_for(lambda: vitals.waits_for(worker, "postgres"), what="the worker to wait for Postgres")
        vitals.stall_is_told(worker, seconds=seconds / 2, timeout=seconds)
        assert vitals.gauge(worker, "livedex_dependency_up", dependency="postgres") == 0
        arena.watch_for(max(0.0, seconds - (time.monotonic() - began)))
        server.up()
    healed = time.monotonic()
    load.stop()
    caught_up(arena, since=healed)
    letters_are_poison(arena)


# ended


@pytest.mark.scenario(16, seconds=30)
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_16_postgres_restarts(arena: Arena, server: Server, how: str) -> None:
    """Restarts under load, orderly or by a crash, tear no document and move no progress back."""
    arena.worker()
    arena.worker(wait=False)
    load = arena.load(4_000, rate=80)
    for _ in range(3):
        before = arena.applied()
        arena.wait_for(lambda: arena.applied() > before + 50, what="the work to go on")  # noqa: B023
        with arena.reader.excused():
            server.stop() if how == "fast" else server.crash()
            server.up()
    load.stop()
    caught_up(arena)


@pytest.mark.scenario(16, seconds=25)
def test_16_sessions_are_ended_inside_transactions(arena: Arena) -> None:
    """Sessions that an operator ends while they have written and not committed leave nothing behind, and the work goes on."""
    arena.worker()
    load = arena.load(4_000, rate=120)
    with arena.connect() as connection:
        for _ in range(TERMINATIONS):
            until(lambda: end_a_writer(connection), what="a session with a transaction to end")
            before = arena.applied()
            arena.wait_for(lambda: arena.applied() > before, what="the work to go on")  # noqa: B023
    load.stop()
    caught_up(arena)


@pytest.mark.scenario(17, seconds=25)
def test_17_the_answer_to_a_commit_is_lost(arena: Arena, proxy: Proxy) -> None:
    """Batches whose commit nobody heard of are found to be applied: nothing is applied or counted twice."""
    arena.worker()
    proxy.cut_reply_of(b"COMMIT", after=b"update livedex.source_progress", times=CUTS)
    arena.load(1_000, rate=100)
    arena.wait_for(lambda: proxy.cut_replies == CUTS, what="the answers to be cut off")
    caught_up(arena)


# failing over


@pytest.mark.scenario(18, seconds=60)
@pytest.mark.parametrize("load", ["at-rest", "busy"])
def test_18_failover_to_a_standby_that_lost_the_tail(
    stack: Addresses, nursery: Any, tmp_path: Path, seed: int, load: str
) -> None:
    """After a failover that lost acknowledged commits a worker notices that progress went back, also one with nothing to do,
    and what was lost is applied again.
    """
    with replicated(tmp_path, stack.kafka_bootstrap_servers, seed) as (pair, world), Arena(world, nursery=nursery) as arena:
        worker = arena.worker()
        arena.load(400)
        arena.settle()
        at_standby = pair.replayed(world.direct.database_url)
        until(lambda: at_standby() == arena.progress(), what="the standby to have it all")
        kept = arena.applied()
        pair.lose_what_comes()
        if load == "busy":
            arena.load(3_000, rate=100)
            arena.wait_for(lambda: arena.applied() > kept + 100, what="a tail that will be lost")
        else:
            arena.load(300)
            arena.settle()
        lost = arena.applied()
        arena.reader.stop()  # what it saw of the tail is gone: that is the fault, not a fault of livedex
        pair.fail_over()
        assert sum(at_standby().values()) < lost, "the standby must lack the tail"
        arena.reader = Reader(arena.connect, arena.oplog, seed=seed).start()
        arena.wait_for(lambda: arena.applied() > kept, what="the lost tail to be read again")
        for sent in arena.loads:
            sent.stop()
        arena.settle(timeout=CAUGHT_UP)
        assert vitals.gauge(worker, "livedex_events_total") >= lost, "it counts what it did, twice where it was done twice"
        arena.load(50)
        arena.terminate(worker)  # so that the counters are not compared: what was lost was counted before
        arena.worker()
        caught_up(arena)


# without room


@pytest.mark.scenario(19, seconds=35)
def test_19_the_disk_is_full(stack: Addresses, server: Server, nursery: Any, tmp_path: Path, seed: int) -> None:
    """While a database has no room the worker waits and skips nothing, and searches are answered; with room it goes on."""
    with (
        servers.small_disk(DISK_MB) as disk,
        servers.in_tablespace(server, TEMPLATE, disk) as url,
        Proxy(port_of(url), seed=seed) as proxy,
    ):
        kafka = stack.kafka_bootstrap_servers
        world = World(
            direct=Addresses(kafka_bootstrap_servers=kafka, database_url=url),
            seen=Addresses(kafka_bootstrap_servers=kafka, database_url=through(url, proxy)),
            folder=tmp_path,
            seed=seed,
        )
        with Arena(world, nursery=nursery) as arena:
            worker = arena.worker()
            load = arena.load(4_000, rate=100)
            arena.wait_for(lambda: arena.applied() > 100, what="the first progress")
            ballast = servers.fill(disk)
            arena.wait_for(lambda: vitals.gauge(worker, "livedex_paused_partitions", reason="postgres"),
                           what="partitions to be held because Postgres has no room")  # fmt: skip
            waits_and_reads(arena, worker)
            ballast.unlink()
            load.stop()
            caught_up(arena)


def waits_and_reads(arena: Arena, worker: Process) -> None:
    """While nothing can be written: staleness tells it, searches go on, and nothing is skipped."""
    searches, applied = arena.reader.searches, arena.applied()
    vitals.stall_is_told(worker, seconds=3)
    arena.wait_for(lambda: arena.reader.searches > searches + 10, what="I10 searches to be answered")
    assert arena.applied() == applied, "nothing can be written"
    letters_are_poison(arena)


@pytest.mark.scenario(19, seconds=30)
def test_19_the_database_is_read_only(arena: Arena, server: Server) -> None:
    """While a database takes no writes the worker waits and skips nothing, and searches are answered; then it goes on."""
    worker = arena.worker()
    load = arena.load(4_000, rate=80)
    arena.wait_for(lambda: arena.applied() > 100, what="the first progress")
    set_read_only(server, True)
    try:
        arena.wait_for(lambda: vitals.gauge(worker, "livedex_paused_partitions", reason="postgres"),
                       what="partitions to be held because Postgres is read only")  # fmt: skip
        waits_and_reads(arena, worker)
    finally:
        set_read_only(server, False)
    load.stop()
    caught_up(arena)


def set_read_only(server: Server, on: bool) -> None:
    """For sessions that are open too."""
    server.execute(f"alter system set default_transaction_read_only = {'on' if on else 'off'}", "select pg_reload_conf()")


# with others at work in it


@pytest.mark.scenario(20, seconds=40)
def test_20_locks_deadlocks_and_serialization_failures(open_arena: Callable[..., Arena]) -> None:
    """Two pipelines on the same documents, with others who lock these in another order or for too long, and transactions that
    Postgres asks to begin again: all of it is begun again, nothing is a dead letter, and nobody says that Postgres is down.
    """
    arena = open_arena(topics=2, partitions=2, versions="source", documents=10, collects=True)
    workers = [arena.worker(), arena.worker()]
    load = arena.load(8_000, rate=100)
    arena.wait_for(lambda: arena.applied() > 100, what="the first progress")
    before = arena.applied()
    with serialization_failures(arena, of=4):
        arena.wait_for(lambda: arena.applied() > before + 100, what="the work to go on")
    for _ in range(4):
        assert deadlock(arena), "the worker must have been the victim"
    assert conflicts(workers) >= 4
    with arena.connect() as blocker, blocker.transaction():
        blocker.execute("select from livedex.document for update")
        arena.wait_for(lambda: held_by_conflict(workers), what="a partition to be held because of a lock")
        arena.watch_for(LOCKED)
    load.stop()
    caught_up(arena)
    letters_are_poison(arena)
    assert not any("dependency=postgres" in line for worker in workers for line in told_down(worker)), "nothing was down"


def told_down(worker: Process) -> list[str]:
    """What it said to be down."""
    return [line for line in worker.log().splitlines() if "dependency.down" in line]


def conflicts(workers: list[Process]) -> float:
    """How often work was begun again because of Postgres."""
    return sum(vitals.gauge(worker, "livedex_retries_total", dependency="postgres") for worker in workers)


def held_by_conflict(workers: list[Process]) -> float:
    """How many partitions are held because another transaction is in the way."""
    return sum(vitals.gauge(worker, "livedex_paused_partitions", reason="conflict") for worker in workers)
