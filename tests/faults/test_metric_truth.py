"""What is measured is what the harness's own clock says (I12)."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.faults import vitals
from support.faults.arena import Arena, Ends
from support.faults.encoder import Behaviour
from support.faults.texts import write
from support.waiting import until
from support.workers import Process

ROUNDS = 12
BACKLOG = 1500  # events
MOMENTS = 3  # lags that differ
TOLERANCE, SHARE = 0.05, 0.1  # seconds, and of what is measured: the larger of the two
LOOK = 1.5  # seconds by which staleness may be off: the worker looks around once a second
TAKES_NOTE = 1.0  # seconds within which a worker knows what it committed
STALE, LAG = "livedex_staleness_seconds", "livedex_offset_lag"


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


@pytest.mark.scenario(33, seconds=20)
@pytest.mark.parametrize("late", [0.0, 60.0], ids=["new", "old"])
def test_33_staleness_is_true(arena: Arena, late: float) -> None:
    """I12: in a stall the staleness is the age of the oldest event by its Kafka timestamp, and rises as the harness's clock
    does, though younger events follow; it is 0 when the stall is over.
    """
    worker = arena.worker()
    arena.load(50).finish()
    arena.settle()
    until(lambda: vitals.gauge(worker, STALE) == 0, what="nothing to be stale")
    arena.encoder.set(Behaviour(fails="unavailable"))
    began = time.time() - late
    send(arena, "probe/oldest", began)
    until(lambda: stalest(worker) > late, what="the stall to be told")
    for number in range(ROUNDS):
        earliest = time.time() - began
        told = stalest(worker)
        latest = time.time() - began
        assert earliest - LOOK <= told <= latest + LOOK, f"{told:.2f} s, and {earliest:.2f} to {latest:.2f} s are true"
        send(arena, f"probe/{number}", time.time())
        until(lambda: time.time() - began > latest + 0.5, what="half a second to pass")  # noqa: B023
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())


@pytest.mark.scenario(33, seconds=40)
def test_33_lag_is_true(arena: Arena) -> None:
    """I12: in a stall the lag of each partition is the log's end minus the progress; while the backlog is worked off, too, as
    far as anybody can say at one moment.
    """
    worker = arena.worker()
    arena.load(30).finish()
    arena.settle()
    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.load(BACKLOG).finish()
    ends = {(record.topic, record.partition): record.offset + 1 for record in arena.records()}
    behind = {place: end - arena.progress().get(place, 0) for place, end in ends.items()}
    assert sum(behind.values()) > BACKLOG / 2  # what needs no encoder may be applied
    until(lambda: lags(worker, ends) == behind, timeout=10, what=f"a lag of {behind}")
    for _ in range(3):
        moment = time.monotonic()
        until(lambda: time.monotonic() > moment + TAKES_NOTE, what="another look")  # noqa: B023
        assert lags(worker, ends) == behind, "in a stall it stays"

    arena.encoder.set(Behaviour(seconds=0.5))
    seen = {tuple(behind.values())}
    before = arena.progress()
    while sum(before.values()) < sum(ends.values()):
        moment = time.monotonic()
        until(lambda: time.monotonic() > moment + TAKES_NOTE, what="the worker to have taken note")  # noqa: B023
        told = lags(worker, ends)
        after = arena.progress()
        for place, end in ends.items():
            assert end - after[place] <= told[place] <= end - before[place], f"{place}: {told} at {before} to {after} of {ends}"
        seen.add(tuple(told.values()))
        before = after
    assert len(seen) >= MOMENTS, f"it must have been seen on its way: {seen}"
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())


def stalest(worker: Process) -> float:
    """What it tells of the partition that is the furthest behind."""
    families = text_string_to_metric_families(worker.metrics().text)
    return max(sample.value for family in families for sample in family.samples if sample.name == STALE)


def lags(worker: Process, ends: Ends) -> Ends:
    """What it tells of each partition."""
    metrics = worker.metrics()
    return {(topic, number): int(metrics.value(LAG, topic=topic, partition=str(number))) for topic, number in ends}


def send(arena: Arena, name: str, at: float) -> None:
    """Send a document with this Kafka timestamp, in seconds since 1970."""
    title, text = write(name, 10**6, arena.choose)
    arena.log.send(arena.topic, {"id": name, "title": title, "text": text}, timestamp_ms=int(at * 1000))


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
