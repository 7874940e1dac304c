"""Each protection taken away, one at a time: a scenario that passes with it fails without it, by the harness's own verdict.

That proves both: the protection does something, and the harness sees it.
"""

from collections.abc import Callable

import pytest

from livedex.core.record import Record
from livedex.index.batch import BATCH_RECORDS
from support.faults import checks, vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.events import numbered
from support.faults.script import Mix
from support.faults.snapshot import take
from support.waiting import until

NAMES = [f"doc/{number}" for number in range(10)]
UPSERTS = Mix(delete=0, metadata=0, replay=0, late=0, poison=0)
Judge = Callable[..., None]


@pytest.fixture(params=["kept", "removed"])
def judge(request: pytest.FixtureRequest, open_arena: Callable[..., Arena]) -> Judge:
    """Runs a scenario with a protection, where it must pass, or without it, where its verdict must name the invariant."""

    def run(scenario: Callable[[Arena], None], protection: str, *, breaks: str, **options: object) -> None:
        if request.param == "kept":
            scenario(open_arena(without=[], **options))
            return
        arena = open_arena(without=[protection], **options)
        with pytest.raises(AssertionError, match=breaks):
            scenario(arena)

    return run


@pytest.mark.scenario("version-fence", seconds=6)
def test_the_version_fence_is_missed(judge: Judge) -> None:
    """Without the version fence a late event overwrites a newer one."""

    def late_events(arena: Arena) -> None:
        arena.worker()
        for version in (5, 4):
            arena.load([numbered(name, version, "upsert", arena.choose) for name in NAMES])
            arena.settle()
        arena.verify(arena.records())

    judge(late_events, "version-fence", breaks="I5 the index|went back", versions="source")


@pytest.mark.scenario("tombstones", seconds=6)
def test_tombstones_are_missed(judge: Judge) -> None:
    """Without the rows of deleted documents a replay brings them back."""

    def replay_after_a_delete(arena: Arena) -> None:
        arena.worker()
        for version, op in ((1, "upsert"), (2, "delete"), (1, "upsert")):
            arena.load([numbered(name, version, op, arena.choose) for name in NAMES])
            arena.settle()
        arena.verify(arena.records())

    judge(replay_after_a_delete, "tombstones", breaks="I5 the index|are forgotten", versions="source")


@pytest.mark.scenario("progress-cas", seconds=6)
def test_the_compare_and_set_of_the_progress_is_missed(judge: Judge) -> None:
    """Without the compare-and-set, a batch that follows on what the database has lost, as after a failover, is applied without
    it.
    """

    def lost_tail(arena: Arena) -> None:
        arena.wait_for(lambda: arena.reader.searches, what="a first search")
        arena.reader.stop()  # it would rightly say that what it saw is gone
        worker = arena.worker(at=["applying:2=stop"])
        arena.load(1)  # so that it is one batch
        arena.settle()
        arena.load(50).finish()
        arena.stopped_itself(worker)
        with arena.connect() as connection, connection.transaction():  # what a standby has that got nothing of the first batch
            connection.execute("delete from livedex.document_chunk")
            connection.execute("delete from livedex.document")
            connection.execute("update livedex.source_progress set next_offset = 0")
        arena.go_on(worker)
        checks_the_fold(arena, arena.settle())

    judge(lost_tail, "progress-cas", breaks="I5 the index", partitions=1, mix=UPSERTS, documents=10**6)


def checks_the_fold(arena: Arena, records: list[Record]) -> None:
    """I5 alone, where the history is not sound because the database itself went back."""
    checks.fold_equality(take(arena.world.direct.database_url), records, numbered_by=arena.versions)


@pytest.mark.scenario("owner-epoch", seconds=15)
def test_the_owner_epoch_is_missed(judge: Judge) -> None:
    """Without the owner epoch a worker that was stopped for long writes a partition that another has claimed."""

    def zombie(arena: Arena) -> None:
        sleeper = arena.worker(at=["applying:2=stop"])
        for _ in range(2):
            arena.load(1).finish()
            arena.wait_for(lambda: arena.applied() == 1, what="the first event to be applied")
        arena.stopped_itself(sleeper)
        heir = arena.worker(at=["claimed=stop"], wait=False)
        arena.stopped_itself(heir)
        before = arena.applied()
        arena.go_on(sleeper)
        arena.wait_for(
            lambda: vitals.gauge(sleeper, "livedex_fenced_total") or arena.applied() > before, what="the sleeper to be judged"
        )
        arena.go_on(heir)
        arena.load(20)
        arena.verify(arena.settle())

    judge(zombie, "owner-epoch", breaks="I7", partitions=1, max_poll_interval_ms=3_000)


@pytest.mark.scenario("seek", seconds=10)
def test_the_seek_is_missed(judge: Judge) -> None:
    """Without the seek to the stored progress a worker reads on from where Kafka thinks that it was."""

    def unreported(arena: Arena) -> None:
        arena.load(2 * BATCH_RECORDS + 200).finish()  # three batches, however many are joined
        arena.killed_itself(arena.worker(at=["applied:3=kill"], wait=False))
        assert arena.applied() > 0, "it must die with batches applied"
        arena.worker()
        arena.verify(arena.settle())

    judge(unreported, "seek", breaks="I6", partitions=1, mix=Mix(poison=0))


@pytest.mark.scenario("model-check", seconds=8)
def test_the_check_of_the_model_is_missed(judge: Judge) -> None:
    """Without the check that the model is its generation's, a worker with another one mixes its vectors in."""

    def another_model(arena: Arena) -> None:
        arena.load(100).finish()
        arena.encoder.set(Behaviour(revision="2", salt="of another model: "))
        stranger = arena.worker(wait=False)
        until(lambda: stranger.popen.poll() is not None or arena.applied(), what="the worker with another model to end")
        if stranger.popen.poll() is not None:
            arena.ended_itself(stranger, 1)
        arena.encoder.set(Behaviour())
        arena.worker(wait=False)
        arena.verify(arena.settle())

    judge(another_model, "model-check", breaks="vector of another text")


@pytest.mark.scenario("replanning", seconds=10)
def test_planning_again_is_missed(judge: Judge) -> None:
    """Without planning a batch again, documents whose chunks were collected after they were staged are dead letters."""

    def collected(arena: Arena) -> None:
        arena.load([numbered(name, 1, "upsert", arena.choose) for name in NAMES]).finish()
        worker = arena.worker(at=["staged=stop"], wait=False)
        arena.stopped_itself(worker)
        arena.rows(
            "delete from livedex.chunk where chunk_key not in (select chunk_key from livedex.document_chunk) returning 1"
        )
        arena.go_on(worker)
        arena.verify(arena.settle())

    judge(collected, "replanning", breaks="I8", partitions=1, versions="source", session_timeout_ms=20_000)


@pytest.mark.scenario("bisection", seconds=6)
def test_the_bisection_is_missed(judge: Judge) -> None:
    """Without the bisection one text that the encoder fails on takes its whole batch along."""

    def one_at_fault(arena: Arena) -> None:
        arena.encoder.set(Behaviour(fails="raise", mark=f"[{NAMES[5]}#"))
        arena.load([numbered(name, 1, "upsert", arena.choose) for name in NAMES]).finish()
        arena.worker(wait=False)
        records = arena.settle()
        arena.verify(records, may_fail=frozenset(r.place for r in records if r.key == NAMES[5].encode()))

    judge(one_at_fault, "bisection", breaks="I8", partitions=1, versions="source")


@pytest.mark.scenario("retry", seconds=12)
def test_the_retry_is_missed(judge: Judge) -> None:
    """Without the retry a partition on which something failed once is never read again."""

    def outage(arena: Arena) -> None:
        arena.encoder.set(Behaviour(fails="unavailable"))
        worker = arena.worker()
        arena.load(50).finish()
        paused = "livedex_paused_partitions"
        arena.wait_for(
            lambda: vitals.gauge(worker, paused, reason="embedder") + vitals.gauge(worker, paused, reason="stopped") > 0,
            what="the partition to be held",
        )
        arena.encoder.set(Behaviour())
        arena.verify(arena.settle(timeout=8))

    judge(outage, "retry", breaks="I9 all of the log", partitions=1)


@pytest.mark.scenario("polling", seconds=15)
def test_polling_while_work_is_done_is_missed(judge: Judge) -> None:
    """Without polling while a batch is embedded, a worker with a slow encoder loses its membership."""

    def slow(arena: Arena) -> None:
        worker = arena.worker()
        arena.wait_for(lambda: vitals.gauge(worker, "livedex_rebalances_total") == 1, what="the first assignment")
        arena.encoder.set(Behaviour(seconds=4.0))
        arena.load(1).finish()
        arena.wait_for(arena.applied, what="the slow batch to be applied")
        arena.encoder.set(Behaviour())
        arena.load(20)
        arena.verify(arena.settle())
        assert vitals.gauge(worker, "livedex_rebalances_total") == 1, "I9 it must have stayed a member"

    judge(slow, "polling", breaks="I9 it must", partitions=1, max_poll_interval_ms=2_000, mix=UPSERTS)
