"""Logs that change under a running worker: what can be followed is followed, what cannot stops its source loudly."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from livedex.kafka import open_admin
from support.faults import vitals
from support.faults.arena import Arena
from support.faults.lives import shows_the_fold
from support.faults.script import Event, Mix
from support.faults.texts import write
from support.faults.topics import make_again, reset, state, stopped
from support.waiting import until
from support.workers import Process


@pytest.fixture
def admin(open_arena: Callable[..., Arena], stack: Any) -> Iterator[KafkaAdminClient]:
    """An admin client."""
    del open_arena
    client = KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap_servers)
    yield client
    client.close()


@pytest.mark.scenario(24, seconds=15)
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
    """The source stops with a reason that names the remedy; the log and the gauge tell it, nothing more is applied."""
    arena.wait_for(stopped(arena, *words), timeout=20, what="the source to be stopped")
    arena.wait_for(lambda: "index.source_stopped" in worker.log(), what="the log to say that the source stopped")
    arena.wait_for(lambda: vitals.gauge(worker, "livedex_paused_partitions", reason="stopped") >= 1, what="the gauge")
    before = arena.progress()
    vitals.stall_is_told(worker, seconds=1.0)
    assert arena.progress() == before, "I6 nothing moves on a stopped source"


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
    load.stop()
    arena.verify_now()
