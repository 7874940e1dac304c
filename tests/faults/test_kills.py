"""Workers that die, or are told to end, at the worst moments: nothing is lost, nothing is done twice."""

from collections.abc import Callable

import pytest

from support.faults import vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.script import Mix

KILLS, MORE_KILLS, FEW_KILLS = 200, 25, 8  # the last in an ordinary run
LONGEST_LIFE = 3.0  # seconds between two kills: half of them come before a dead member's partitions have moved
RATE = 120  # events a second under kills


@pytest.mark.scenario(1, seconds=5)
def test_01_killed_between_embedding_and_the_transaction(arena: Arena) -> None:
    """A worker that dies with a batch staged and not applied leaves the fold to the next one, and at most one batch of vectors
    is made again.
    """
    arena.load(400)
    doomed = arena.worker(at=["staged:3=kill"], wait=False)
    arena.killed_itself(doomed)
    unmapped = "select count(*) from livedex.chunk where chunk_key not in (select chunk_key from livedex.document_chunk)"
    assert arena.rows(unmapped)[0][0] > 0, "it must die with chunks that no document has"
    arena.worker()
    arena.verify(arena.settle())
    assert arena.encoder.wasted_calls() <= 1, f"{arena.encoder.repeated()} chunks were embedded again"


@pytest.mark.scenario(2, seconds=5)
def test_02_killed_between_the_commit_and_the_report_to_kafka(arena: Arena) -> None:
    """A batch that was committed before the worker died, and of which Kafka knows nothing, is not applied again."""
    arena.load(400)
    doomed = arena.worker(at=["applied:3=kill"], wait=False)
    arena.killed_itself(doomed)
    applied = arena.applied()
    assert applied > 0, "it must die with batches applied"
    heir = arena.worker()
    records = arena.settle()
    arena.verify(records)
    assert vitals.gauge(heir, "livedex_events_total") == len(records) - applied, "each event is applied by one of the two"
    assert vitals.gauge(heir, "livedex_events_total", outcome="stale") == 0, "none comes again"


@pytest.mark.scenario(3, seconds=25)
def test_03_killed_at_random_moments(open_arena: Callable[..., Arena], full: bool) -> None:
    """Workers killed at random moments under load, two at a time, lose nothing, and waste at most a batch of vectors each."""
    arena = open_arena(documents=200)
    kills = KILLS if full else FEW_KILLS
    load = arena.load(int(kills * LONGEST_LIFE * RATE), rate=RATE)
    arena.worker()
    arena.worker(wait=False)
    for number in range(kills):
        arena.watch_for(arena.choose.uniform(0, LONGEST_LIFE))
        arena.kill(arena.choose.choice(arena.alive))
        arena.worker(wait=False)
        if number % 20 == 19:
            arena.verify_now()
    load.stop()
    arena.verify(arena.settle())
    wasted = arena.encoder.wasted_calls()
    print(f"{arena.kills} kills: {arena.encoder.repeated()} chunks were embedded again, of {wasted} batches")  # noqa: T201
    assert wasted <= arena.kills


@pytest.mark.scenario(3, seconds=30)
def test_03_killed_while_chunks_are_collected(open_arena: Callable[..., Arena], full: bool) -> None:
    """Where chunks are collected as soon as no document has them, among them those that a dead worker had staged, workers that
    are killed lose nothing all the same: what is gone is embedded again.
    """
    arena = open_arena(documents=100, mix=Mix(replay=0.3), collects=True)
    kills = MORE_KILLS if full else FEW_KILLS
    load = arena.load(int(kills * LONGEST_LIFE * RATE), rate=RATE)
    arena.worker()
    arena.worker(wait=False)
    for _ in range(kills):
        arena.watch_for(arena.choose.uniform(0, LONGEST_LIFE))
        arena.kill(arena.choose.choice(arena.alive))
        arena.worker(wait=False)
    load.stop()
    arena.verify(arena.settle())
    assert arena.collected() > 0
    assert arena.encoder.repeated() > 0, "texts must have come again whose chunks were gone"


@pytest.mark.scenario(4, seconds=7)
def test_04_told_to_stop(arena: Arena) -> None:
    """SIGTERM in the middle of a batch, twice, and while the encoder is waited for: each time exit 0 in time, nothing lost, and
    nothing made again but what was in flight.
    """
    for moments in (["staged:2=term"], ["staged:2=term", "applied:2=term"]):
        arena.load(400).finish()
        arena.ended_itself(arena.worker(at=moments, wait=False), 0)
    assert arena.encoder.wasted_calls() == 0, "what is in flight is finished within the grace"
    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.load(100)
    worker = arena.worker(wait=False)
    arena.wait_for(lambda: vitals.waits_for(worker, "embedder"), what="the worker to wait for the encoder")
    arena.terminate(worker)
    arena.encoder.set(Behaviour())
    arena.worker()
    arena.verify(arena.settle())


@pytest.mark.scenario(9, seconds=10)
@pytest.mark.parametrize("moment", ["assigned", "claimed"])
def test_09_killed_inside_a_rebalance(arena: Arena, moment: str) -> None:
    """A worker that dies when it has just been given partitions, before or after it claimed them, takes nothing along."""
    load = arena.load(800, rate=100)
    arena.worker()
    arena.wait_for(arena.applied, what="the first progress")
    for _ in range(2):
        arena.killed_itself(arena.worker(at=[f"{moment}=kill"], wait=False))
    arena.worker()
    load.finish()
    arena.verify(arena.settle(), counters=True)  # those which died had not read anything
