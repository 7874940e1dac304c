"""Who is worked on, who waits, who is refused, and who has waited too long."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry, Gauge

from livedex.errors import TimedOutError
from livedex.query.admission import Admission, BusyError

LONG = 60.0  # seconds: no deadline of interest


class Hall:
    """An admission and those who come to it."""

    def __init__(self, slots: int, queue: int) -> None:
        self._registry = CollectorRegistry()
        self.admission = Admission(slots, queue, Gauge("waiting", "waiting", registry=self._registry))
        self.served: list[str] = []
        self.go_on = asyncio.Event()

    def come(self, name: str, *, size: int = 1, within: float = LONG) -> "asyncio.Task[None]":
        """Ask for a slot, and keep it until all may go on."""

        async def ask() -> None:
            async with self.admission.slot(time.perf_counter() + within, size):
                self.served.append(name)
                await self.go_on.wait()

        return asyncio.ensure_future(ask())

    @property
    def queued(self) -> int:
        """Searches that wait, as the gauge says."""
        return int(self._registry.get_sample_value("waiting") or 0)


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """In an event loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(LONG):
            await scenario()

    asyncio.run(bounded())


def test_as_many_as_there_are_slots_are_served_the_others_in_order() -> None:
    """Who comes first is served first, also past one that is smaller."""

    async def scenario() -> None:
        hall = Hall(2, 10)
        tasks = [hall.come("a"), hall.come("b"), hall.come("c", size=5), hall.come("d")]
        await settled()
        assert (hall.served, hall.queued) == (["a", "b"], 6)
        hall.go_on.set()
        await asyncio.gather(*tasks)
        assert (hall.served, hall.queued) == (["a", "b", "c", "d"], 0)
        await hall.come("e")

    run(scenario)


def test_a_full_queue_refuses() -> None:
    """At once, and says how many wait; searches of one request count each; where nobody may wait, nobody does."""

    async def scenario() -> None:
        hall = Hall(1, 3)
        tasks = [hall.come("a"), hall.come("b", size=2)]
        await settled()
        with pytest.raises(BusyError, match="2 searches wait already and at most 3 may"):
            await hall.come("too many", size=2)
        tasks.append(hall.come("c"))
        await settled()
        with pytest.raises(BusyError):
            await hall.come("d")
        hall.go_on.set()
        await asyncio.gather(*tasks)
        none = Hall(1, 0)
        first = none.come("a")
        await settled()
        with pytest.raises(BusyError):
            await none.come("b")
        none.go_on.set()
        await first

    run(scenario)


def test_a_request_that_is_larger_than_the_queue_waits_in_an_empty_one() -> None:
    """It could never be served otherwise."""

    async def scenario() -> None:
        hall = Hall(1, 3)
        tasks = [hall.come("a"), hall.come("large", size=32)]
        await settled()
        assert hall.queued == 3
        hall.go_on.set()
        await asyncio.gather(*tasks)
        assert hall.served == ["a", "large"]

    run(scenario)


def test_who_is_late_is_dropped_unserved() -> None:
    """Its place is free again, and its turn never comes."""

    async def scenario() -> None:
        hall = Hall(1, 1)
        first = hall.come("a")
        await settled()
        for _ in range(3):
            with pytest.raises(TimedOutError, match="turn"):
                await hall.come("late", within=0.01)
        kept = hall.come("kept")
        await settled()
        hall.go_on.set()
        await asyncio.gather(first, kept)
        assert hall.served == ["a", "kept"]

    run(scenario)


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "just granted"])
def test_who_goes_away_leaves_no_slot_behind(*, granted: bool) -> None:
    """A request that is given up while it waits, or in the moment when its turn comes, takes nothing along."""

    async def scenario() -> None:
        hall = Hall(1, 5)
        async with AsyncExitStack() as held:
            await held.enter_async_context(hall.admission.slot(time.perf_counter() + LONG))
            gone, kept = hall.come("gone"), hall.come("kept")
            await settled()
            if not granted:
                gone.cancel()
        gone.cancel()
        await settled()
        assert gone.cancelled()
        assert hall.served == ["kept"]
        hall.go_on.set()
        await kept
        await hall.come("next")

    run(scenario)
