"""An encoder that is away, slow, broken or another one: outages are waited for, and what is broken stops the work, loudly."""

import pytest

from livedex.core.record import Place
from support.faults import oracle, vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.workers import Process

PARTITIONS = 3  # of the arena's topic
IN_A_ROW = 20  # records that fail one after another are not at fault
SLOW = 2.0  # seconds that an encoding takes where it is slow
MARK_OF_SOME = "3 1/"  # the first paragraph of each writing whose number ends so


def held(worker: Process, reason: str) -> float:
    """How many partitions wait for this."""
    return vitals.gauge(worker, "livedex_paused_partitions", reason=reason)


def all_held(worker: Process, reason: str) -> bool:
    """Whether all of them do at this moment: until then a partition may still apply what needs no vector, or has one."""
    return held(worker, reason) == PARTITIONS


def under_way(arena: Arena) -> Process:
    """A worker that has applied something."""
    worker = arena.worker()
    arena.load(3_000, rate=60)
    arena.wait_for(lambda: arena.applied() > 50, what="the first progress")
    return worker


def nothing_is_skipped(arena: Arena, worker: Process) -> None:
    """Staleness tells of the stall, and no event becomes a dead letter; what needs no vector may still be applied."""
    before = not_embedded(arena)
    vitals.stall_is_told(worker, seconds=3)
    assert not_embedded(arena) == before, "an event was skipped"


def heals(arena: Arena, worker: Process, *, letters: int = 0) -> None:
    """By itself; then everything is as it should be, with at most so many dead letters."""
    arena.encoder.set(Behaviour())
    arena.ready(worker)
    arena.loads[0].stop()
    records = arena.settle()
    failed = not_embedded(arena)
    assert len(failed) <= letters, "events were skipped"
    arena.verify(records, may_fail=failed)
    assert worker.popen.poll() is None


def not_embedded(arena: Arena) -> frozenset[Place]:
    """The records that became dead letters because of the encoder."""
    rows = arena.rows("select topic, partition, \"offset\" from livedex.dead_letter where reason = 'embedding-failed'")
    return frozenset(Place(*row) for row in rows)


@pytest.mark.scenario(21, seconds=20)
def test_21_an_encoder_that_is_away(arena: Arena) -> None:
    """It is waited for by name: no dead letter, no end, and the work goes on by itself."""
    worker = under_way(arena)
    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.wait_for(lambda: all_held(worker, "embedder"), what="partitions to be held until the encoder answers")
    arena.wait_for(lambda: vitals.waits_for(worker, "embedder"), what="the worker to say that it waits for the encoder")
    assert vitals.gauge(worker, "livedex_dependency_up", dependency="embedder") == 0
    nothing_is_skipped(arena, worker)
    heals(arena, worker)
    assert held(worker, "embedder") == 0


@pytest.mark.scenario(21, seconds=25)
def test_21_an_encoder_that_is_slow(arena: Arena) -> None:
    """Slowness is no failure: staleness tells of it, the worker stays ready, and searches see whole documents all the time."""
    worker = under_way(arena)
    arena.encoder.set(Behaviour(seconds=SLOW))
    vitals.stall_is_told(worker, seconds=SLOW)
    assert worker.ready()
    assert vitals.gauge(worker, "livedex_retries_total") == 0, "nothing is begun again"
    heals(arena, worker)


@pytest.mark.scenario(21, seconds=25)
@pytest.mark.parametrize("fault", ["raise", "nan", "zero", "dimension", "memory"])
def test_21_an_encoder_that_is_broken(arena: Arena, fault: str) -> None:
    """One that fails on every text stops the work before twenty records in a row are blamed, at once when its vectors have
    another dimension; readiness and a gauge say so, and once it is mended the work goes on by itself.
    """
    worker = under_way(arena)
    arena.encoder.set(Behaviour(fails=fault))
    arena.wait_for(lambda: all_held(worker, "embedder" if fault == "memory" else "systemic"), what="partitions to be held")
    arena.wait_for(lambda: not worker.ready(), what="the worker to be not ready")
    nothing_is_skipped(arena, worker)
    heals(arena, worker, letters=0 if fault in ("dimension", "memory") else IN_A_ROW - 1)


@pytest.mark.scenario(21, seconds=15)
def test_21_an_encoder_that_cannot_read_some_texts(arena: Arena) -> None:
    """Records that the encoder fails on become dead letters each, and their neighbours are applied, in the same batch too."""
    arena.encoder.set(Behaviour(fails="raise", mark=MARK_OF_SOME))
    arena.load(600)
    arena.worker()
    records = arena.settle()
    failing = frozenset(
        one.record.place for one in oracle.good(records, numbered_by=arena.versions) if MARK_OF_SOME in str(one.event)
    )
    letters = not_embedded(arena)
    assert letters, "some must fail"
    assert letters <= failing, "only these may"
    arena.verify(records, may_fail=letters)


@pytest.mark.scenario(21, seconds=15)
def test_21_no_memory_for_a_moment(arena: Arena) -> None:
    """An encoder that once has no memory, for a batch of a single record, makes no dead letter: the batch is tried again."""
    worker = arena.worker()
    texts = [event for event in arena.script.events(50) if event.kind == "upsert" and b" 1/" in (event.value or b"")]
    arena.load(texts[:1]).finish()
    arena.wait_for(lambda: arena.applied() == 1, what="the first event to be applied")
    arena.encoder.set(Behaviour(fails="memory"))
    arena.load(texts[1:2]).finish()
    arena.wait_for(lambda: vitals.gauge(worker, "livedex_retries_total"), what="the worker to try again")
    arena.encoder.set(Behaviour())
    arena.load(200)
    arena.verify(arena.settle())


@pytest.mark.scenario(21, seconds=25)
def test_21_another_model(arena: Arena) -> None:
    """A worker that comes with another model than the generation's is refused and says which, and the others work on."""
    load = arena.load(2_000, rate=60)
    worker = arena.worker()
    arena.wait_for(arena.applied, what="the first progress")
    arena.encoder.set(Behaviour(revision="2"))
    other = arena.worker(wait=False)
    arena.ended_itself(other, 1)
    assert "revision" in other.log()
    del worker
    load.stop()
    arena.verify(arena.settle())
