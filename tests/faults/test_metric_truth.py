"""What is measured is what the harness's own clock says (I12)."""

import time

import pytest

from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.texts import write
from support.waiting import until
from support.workers import Process

ROUNDS = 12
TOLERANCE, SHARE = 0.05, 0.1  # seconds, and of what is measured: the larger of the two


@pytest.mark.scenario(33, seconds=25)
def test_33_freshness_is_true(arena: Arena) -> None:
    """I12: from the Kafka timestamp until a session sees the document, by the harness's clock, is the freshness that the worker
    tells of the event: where the encoder is quick, where it is slow, and where the record lay in the log before.
    """
    worker = arena.worker()
    arena.load(50).finish()
    arena.settle()
    for number in range(ROUNDS):
        slow, late = (0.0, 0.3, 1.2)[number % 3], (0.0, 2.0)[number % 2]
        arena.encoder.set(Behaviour(seconds=slow))
        before = freshness(worker)
        seen = seconds_until_seen(arena, f"probe/{number}", late=late)
        until(lambda: freshness(worker)[0] == before[0] + 1, what="the event to be measured")  # noqa: B023
        after = freshness(worker)
        told = after[1] - before[1]
        assert seen >= slow + late, "the harness must have waited"
        assert abs(told - seen) <= max(TOLERANCE, SHARE * seen), f"round {number}: {seen:.3f} s was told as {told:.3f} s"
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())


def seconds_until_seen(arena: Arena, name: str, *, late: float) -> float:
    """How old an event is, by its Kafka timestamp `late` seconds ago, when a session first sees its document."""
    title, text = write(name, 10**6, arena.choose)
    with arena.connect() as connection:
        began = time.time() - late
        arena.log.send(arena.topic, {"id": name, "title": title, "text": text}, timestamp_ms=int(began * 1000))
        visible = "select exists (select from livedex.documents where document_id = %s)"
        deadline = time.monotonic() + 30
        while connection.execute(visible, (name,)).fetchone() != (True,):  # as often as it can: each look is a millisecond
            assert time.monotonic() < deadline, f"{name} was never seen"
        return time.time() - began


def freshness(worker: Process) -> tuple[float, float]:
    """(events measured, sum of their seconds)."""
    metrics = worker.metrics()
    return metrics.value("livedex_freshness_seconds_count"), metrics.value("livedex_freshness_seconds_sum")
