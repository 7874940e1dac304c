"""Logs that change under a running worker: what can be followed is followed, what cannot stops its source loudly."""

import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from support.faults import audit, checks, vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.events import numbered, tombstone
from support.faults.lives import shows_the_fold
from support.faults.script import Event
from support.faults.topics import make_again, reset, stopped
from support.waiting import until
from support.workers import Process


@pytest.fixture
def admin(open_arena: Callable[..., Arena], stack: Any) -> Iterator[KafkaAdminClient]:
    """An admin client."""
    del open_arena
    client = KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap_servers)
    yield client
    client.close()


@pytest.mark.scenario(24, seconds=25)
def test_24_partitions_are_added_where_producers_count(open_arena: Callable[..., Arena], admin: KafkaAdminClient) -> None:
    """With versions from the source, documents whose events move to another partition under load keep the newest version."""
    arena = open_arena(partitions=2, versions="source", metadata_max_age_ms=500)
    load = arena.load(6_000, rate=100)
    arena.worker()
    arena.worker(wait=False)
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")
    admin.create_partitions({arena.topic: 5})
    until(lambda: len(admin.describe_topics([arena.topic])[0]["partitions"]) == 5, what="the new partitions")
    arena.load(400, rate=100)  # by producers that know them; the others go on with the old ones
    arena.wait_for(lambda: len(arena.progress()) == 5, what="all partitions to be read")
    load.stop()
    records = arena.settle()
    moved = {record.key for record in records if record.partition >= 2} & {r.key for r in records if r.partition < 2}
    assert moved, "documents must have moved"
    arena.verify(records)


def assert_stopped(arena: Arena, worker: Process, *words: str) -> None:
    """The source stops with a reason that names the remedy, and the log and the gauge tell it."""
    arena.wait_for(stopped(arena, *words), timeout=20, what="the source to be stopped")
    arena.wait_for(lambda: "index.source_stopped" in worker.log(), what="the log to say that the source stopped")
    arena.wait_for(lambda: vitals.gauge(worker, "livedex_paused_partitions", reason="stopped") >= 1, what="the gauge")


@pytest.mark.scenario(24, seconds=15)
def test_24_partitions_are_added_where_the_log_counts(arena: Arena, admin: KafkaAdminClient) -> None:
    """With versions from the log, offsets of two partitions do not compare: the source stops, and the index stays the fold of
    what was read.
    """
    load = arena.load(6_000, rate=100)
    worker = arena.worker()
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")
    admin.create_partitions({arena.topic: 5})
    assert_stopped(arena, worker, "5 partitions", "made from 3")
    before = arena.progress()
    vitals.stall_is_told(worker, seconds=1.0)
    assert arena.progress() == before, "I6 nothing moves on a stopped source"
    load.stop()
    arena.verify_now()


def assert_begins_anew(arena: Arena, worker: Process) -> None:
    """After a reset the index is the fold of the log as it is now; I6: nothing but the reset has ever set the progress back."""
    epoch = reset(arena)
    assert epoch == 1
    records = arena.settle()
    shows_the_fold(arena, records, epoch=epoch)
    with arena.connect() as connection:
        steps = audit.progress(connection)
    checks.single_writer([step for step in steps if step.writer])
    last: dict[tuple[str, int], int] = {}
    for step in steps:
        back = step.next_offset < last.get((step.topic, step.partition), 0)
        assert not back or step.owner == "livedex source reset", f"I6 {step} fell"
        last[step.topic, step.partition] = step.next_offset
    vitals.gauges_are_at_rest(worker)
    arena.watch()


@pytest.mark.scenario(25, seconds=15)
def test_25_a_topic_is_made_anew(arena: Arena, admin: KafkaAdminClient) -> None:
    """A topic that is deleted and made again under a running worker stops the source; what is indexed stays until the reset,
    and then the index is the fold of the new log.
    """
    worker = arena.worker()
    arena.load(300)
    arena.settle()
    before = arena.rows("select count(*) from livedex.documents")
    make_again(admin, arena, partitions=3)
    arena.load(150).finish()
    assert_stopped(arena, worker)
    assert arena.rows("select count(*) from livedex.documents") == before, "nothing is forgotten before the reset"
    assert_begins_anew(arena, worker)


@pytest.mark.scenario(25, seconds=15)
def test_25_a_topic_is_replaced_before_the_client_looks(open_arena: Callable[..., Arena], admin: KafkaAdminClient) -> None:
    """A topic that was replaced, with more events than before, while the worker could not look, stops the source all the same:
    the client reads on from the old offsets and notices nothing, and the comparison of the topics' ids does.
    """
    arena = open_arena(partitions=1, session_timeout_ms=30_000, max_poll_interval_ms=60_000)
    worker = arena.worker()
    arena.load(100)
    arena.settle()
    worker.popen.send_signal(signal.SIGSTOP)
    make_again(admin, arena, partitions=1)
    arena.load(300).finish()
    arena.go_on(worker)
    assert_stopped(arena, worker, "deleted and made anew")
    assert arena.applied() >= 100, "I6 no silent reset"
    assert_begins_anew(arena, worker)


@pytest.mark.scenario(25, seconds=15)
def test_25_retention_passes_the_progress(arena: Arena, admin: KafkaAdminClient) -> None:
    """Events that the log lost before they were applied stop the source; after the reset the index is the fold of the rest."""
    worker = arena.worker()
    arena.load(200)
    arena.settle()
    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.load(200).finish()
    arena.wait_for(lambda: vitals.waits_for(worker, "embedder"), what="the worker to wait for the encoder")
    ends: dict[int, int] = {}
    for record in arena.records():
        ends[record.partition] = record.offset + 1
    admin.delete_records({TopicPartition(arena.topic, number): end - 10 for number, end in ends.items()})
    arena.encoder.set(Behaviour())
    assert_stopped(arena, worker, "begins at offset")
    vitals.stall_is_told(worker, seconds=1.0)
    assert_begins_anew(arena, worker)


def captured(choose: random.Random) -> Iterator[Event]:
    """What a capture of a database's changes sends of one run of its transactions."""
    serial = iter(range(1, 10**6))
    for number in range(25):
        a, b, c, d = (f"row/{letter}{number}" for letter in "abcd")
        one, two, three = (numbered(a, version, "upsert", choose, serial=next(serial)) for version in (1, 2, 3))
        yield from (one, two, three, two)  # the capture crashed and repeats: 1 2 3 2
        # the key changes from b to c, in one transaction: both events have its version, and the old key's tombstone follows
        yield numbered(b, 10, "upsert", choose, serial=next(serial))
        yield from (numbered(b, 11, "delete", choose), tombstone(b, 11), numbered(c, 11, "upsert", choose, serial=next(serial)))
        # several changes in one transaction, and so of one version: the later one in the log wins
        for _ in range(3):
            yield numbered(d, 20, "upsert", choose, serial=next(serial))
        if number % 3 == 0:  # deleted, written and deleted again within one version
            yield from (
                numbered(d, 20, "delete", choose),
                numbered(d, 20, "upsert", choose, serial=next(serial)),
                numbered(d, 20, "delete", choose),
            )
            yield tombstone(d, 20)


@pytest.mark.scenario(28, seconds=15)
def test_28_a_captured_database(open_arena: Callable[..., Arena]) -> None:
    """A stream of captured changes, with changed keys, repeats, tombstones, several changes of one version, and a producer that
    starts again in the middle, ends as the fold; what was deleted or renamed stays away.
    """
    arena = open_arena(partitions=2, versions="source")
    events = list(captured(arena.choose))
    middle = arena.choose.randrange(len(events) // 4, len(events) // 2)
    arena.load(events[: middle * 2], producers=1, rate=300).finish()  # it ends here, before it had noted how far it was
    arena.worker(wait=False)
    arena.worker(wait=False)
    arena.load(events[middle:], producers=1, rate=300)
    records = arena.settle()
    arena.verify(records)
    visible = {row[0] for row in arena.rows("select document_id from livedex.documents")}
    assert not [name for name in visible if name.startswith("row/b")], "the old keys are gone"
    assert len([name for name in visible if name.startswith("row/c")]) == 25, "the new keys are there"
    assert len([name for name in visible if name.startswith("row/d")]) == 16, "the last change of a version wins"
