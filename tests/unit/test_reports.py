"""What is read for many who ask: once while it is good, by one of them, and its failure is everybody's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from livedex.query.reports import SHARE, Kept
from support.waiting import until


class Clock:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


class Reading:
    """Something that is read, slowly where a gate is closed."""

    def __init__(self, clock: Clock, takes: float = 0.0) -> None:
        self.begun = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        self._clock = clock
        self._takes = takes

    def __call__(self) -> int:
        """How often it was read."""
        self.begun += 1
        found = self.begun
        assert self.gate.wait(30)
        self._clock.now += self._takes
        if self.fails:
            raise OSError("away")
        return found


def test_it_is_read_again_when_it_is_old() -> None:
    """Not before; and at once when it is to be forgotten."""
    clock = Clock()
    kept = Kept(reading := Reading(clock), 8.0, clock=clock)
    assert [kept.get(), kept.get()] == [1, 1]
    clock.now += 7.9
    assert kept.get() == 1
    clock.now += 0.1
    assert kept.get() == 2
    kept.forget()
    assert kept.get() == 3
    assert reading.begun == 3


def test_what_takes_long_is_kept_long() -> None:
    """However many look, reading takes a small share of the time."""
    clock = Clock()
    kept = Kept(Reading(clock, takes=5.0), 8.0, clock=clock)
    kept.get()
    clock.now += 5.0 / SHARE - 0.1
    assert kept.get() == 1
    clock.now += 0.1
    assert kept.get() == 2


def test_all_who_ask_meanwhile_wait_for_one_reading() -> None:
    """Nor does anybody begin a second one."""
    clock = Clock()
    reading = Reading(clock)
    kept = Kept(reading, 8.0, clock=clock)
    reading.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(kept.get) for _ in range(8)]
        until(lambda: reading.begun, what="the reading to begin")
        reading.gate.set()
        assert [each.result(30) for each in asked] == [1] * 8
    assert reading.begun == 1


def test_a_failure_is_told_and_not_kept() -> None:
    """The next who asks reads again."""
    clock = Clock()
    kept = Kept(reading := Reading(clock), 8.0, clock=clock)
    reading.fails = True
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            kept.get()
    reading.fails = False
    assert [kept.get(), kept.get()] == [3, 3]
