"""How long a look at the log counts: the page must never show the figures of hours ago as those of now."""

import threading

import pytest

from livedex.config import KafkaSettings
from livedex.kafka import LogEnds
from livedex.query.log_watch import KEPT, LOOK_EVERY, NO_KAFKA, LogWatch
from support.waiting import until

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:9")


class Clock:
    """A clock that is set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        """The time, seconds since 1970."""
        return self.now


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Each release lets one look at the log end, with a log that has nothing."""
    gate = threading.Semaphore(0)

    def ask(*_: object) -> LogEnds:
        assert gate.acquire(timeout=30)
        return LogEnds(lag={}, oldest={})

    monkeypatch.setattr(LogEnds, "ask", ask)
    return gate


def test_a_look_is_told_of_only_while_it_is_fresh(answers: threading.Semaphore) -> None:
    """Nothing before the first has ended; afterwards that one for some seconds; then nothing until the next has ended."""
    clock = Clock()
    watch = LogWatch(KAFKA, clock=clock)
    assert watch.ends({}) is None
    answers.release()
    until(lambda: watch.ends({}), what="the first look")
    first = watch.ends({})
    assert first is not None
    assert first.at == clock.now
    clock.now += LOOK_EVERY + 1  # while the next is under way
    assert watch.ends({}) is first
    clock.now = first.at + KEPT + 0.1
    assert watch.ends({}) is None
    clock.now += 15 * 3600
    assert watch.ends({}) is None, "what was true in the evening is no news in the morning"
    answers.release()
    until(lambda: watch.ends({}), what="the next look")
    second = watch.ends({})
    assert second is not None
    assert second.at == clock.now


def test_a_worker_without_kafka_says_so_at_once() -> None:
    """Nobody is asked."""
    found = LogWatch(KafkaSettings()).ends({})
    assert found is not None
    assert found.problem == NO_KAFKA
