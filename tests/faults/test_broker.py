"""A broker that goes away, comes back, or has no room: what it acknowledged is in its log, and the index is its fold."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedex.dev.stack import Addresses
from support.faults import vitals
from support.faults.arena import Arena, World
from support.faults.broker import FaultBroker, broker, running
from support.faults.own import restart, with_broker

RECOVERY = 30.0  # seconds from the broker's return to the end of all work


@pytest.fixture
def own(tmp_path: Path, stack: Addresses) -> Iterator[FaultBroker]:
    """A broker that a scenario may do anything to."""
    del stack  # it is started first: it takes longer
    with running(broker(tmp_path / "broker")) as own:
        yield own


@pytest.fixture
def world(world: World, own: FaultBroker) -> World:
    """Everybody uses the scenario's own broker."""
    return with_broker(world, own)


def outage(arena: Arena, own: FaultBroker, end: Callable[[], None]) -> None:
    """Take the broker away under load; I9: nobody ends, it is told, and the work goes on by itself."""
    load = arena.load(6_000, rate=150)
    worker = arena.worker()
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")

    def told() -> None:
        arena.wait_for(lambda: vitals.waits_for(worker, "kafka"), what="the worker to wait for Kafka")

    restart(own, end, told)
    before = arena.applied()
    arena.wait_for(lambda: arena.applied() > before + 100, timeout=RECOVERY, what="I9 the work to go on")
    load.stop()
    assert load.acknowledged, "there must have been events"
    arena.verify(arena.settle(timeout=RECOVERY))


@pytest.mark.scenario(11, seconds=25)
def test_11_a_broker_restarts(arena: Arena, own: FaultBroker) -> None:
    """A broker that is restarted under load keeps what it acknowledged, and the worker goes on when it is back."""
    outage(arena, own, own.stop)


@pytest.mark.scenario(12, seconds=25)
def test_12_a_broker_crashes(arena: Arena, own: FaultBroker) -> None:
    """A broker that is killed under load keeps what it acknowledged, and the worker goes on when it is back."""
    outage(arena, own, own.kill)
