"""A broker that goes away, comes back, or has no room: what it acknowledged is in its log, and the index is its fold."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ConfigResource, ResourcePattern, ResourceType

from livedex.core.record import Record
from livedex.dev.stack import Addresses
from livedex.kafka import open_admin
from support.faults import audit, checks, vitals
from support.faults.arena import Arena, World
from support.faults.broker import FaultBroker, broker, running
from support.faults.disk import fill, small_disk
from support.faults.encoder import Behaviour
from support.faults.events import tombstone
from support.faults.lives import shows_the_fold
from support.faults.own import restart, with_broker
from support.faults.script import Mix, Script
from support.waiting import until
from support.workers import Process

RECOVERY = 30.0  # seconds from the broker's return to the end of all work


@pytest.fixture
def own(request: pytest.FixtureRequest, tmp_path: Path, stack: Addresses) -> Iterator[FaultBroker]:
    """A broker that a scenario may do anything to; as a parameter: its properties, and how many bytes its disk has."""
    del stack  # it is started first: it takes longer
    properties = dict(getattr(request, "param", {}))
    size = properties.pop("disk", None)
    folder = tmp_path / "broker"
    with ExitStack() as held:
        if size is not None:
            held.enter_context(small_disk(folder / "kafka", size))
        yield held.enter_context(running(broker(folder, **properties)))


@pytest.fixture
def world(world: World, own: FaultBroker) -> World:
    """Everybody uses the scenario's own broker."""
    return with_broker(world, own)


def outage(arena: Arena, own: FaultBroker, end: Callable[[], None]) -> None:
    """Take the broker away under load; I9: nobody ends, it is told, and the work goes on by itself."""
    load = arena.load(6_000, rate=150)
    worker = arena.worker()
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")

    def told() -> None:
        arena.wait_for(lambda: vitals.waits_for(worker, "kafka"), what="the worker to wait for Kafka")

    restart(own, end, told)
    before = arena.applied()
    arena.wait_for(lambda: arena.applied() > before + 100, timeout=RECOVERY, what="I9 the work to go on")
    load.stop()
    assert load.acknowledged, "there must have been events"
    arena.verify(arena.settle(timeout=RECOVERY))


@pytest.mark.scenario(11, seconds=25)
def test_11_a_broker_restarts(arena: Arena, own: FaultBroker) -> None:
    """A broker that is restarted under load keeps what it acknowledged, and the worker goes on when it is back."""
    outage(arena, own, own.stop)


@pytest.mark.scenario(12, seconds=25)
def test_12_a_broker_crashes(arena: Arena, own: FaultBroker) -> None:
    """A broker that is killed under load keeps what it acknowledged, and the worker goes on when it is back."""
    outage(arena, own, own.kill)


COMPACTING = {"log_segment_bytes": "1048576", "log_roll_ms": "300", "log_cleaner_backoff_ms": "200"}
COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "100"}
WHOLE = Mix(delete=0.3, metadata=0, late=0, poison=0, most_paragraphs=3)  # compaction keeps the last event: it must say all
KEPT = Mix(delete=0, metadata=0, late=0, poison=0, most_paragraphs=3)


@pytest.mark.scenario(29, seconds=40)
@pytest.mark.parametrize("own", [COMPACTING], indirect=True, ids=["compacting"])
def test_29_the_log_is_compacted_during_a_scan(open_arena: Callable[..., Arena], own: FaultBroker) -> None:
    """While a worker that scans from the beginning stands still, the log ahead of it is compacted until its tombstones have
    expired: it goes on through the gaps, and ends as the fold of the log as it is, and as it was.
    """
    arena = open_arena(partitions=1, mix=KEPT)
    arena.encoder.set(Behaviour(fails="unavailable", mark="[gone/"))
    gone = Script(seed=arena.world.seed, numbered_by="log", documents=20, mix=WHOLE, prefix="gone")
    arena.load(300).finish()
    deleted = {f"gone/{number}" for number in range(10)}
    ends = [tombstone(name, 1) for name in sorted(deleted)]
    arena.load([*gone.events(300), *ends, *arena.script.events(300)], producers=1, rate=400).finish()
    whole = arena.records()
    worker = arena.worker(wait=False)  # it may stand still before anybody sees that it is ready
    arena.wait_for(lambda: arena.applied() and vitals.waits_for(worker, "embedder"), what="the worker to stand still")
    assert 0 < arena.applied() <= 300, "it must stand in the middle"

    with closing(open_admin(own.settings)) as admin:
        admin.alter_configs([ConfigResource("TOPIC", arena.topic, configs=COMPACTED)])
    nudges = Script(seed=arena.world.seed, numbered_by="log", documents=10**6, mix=replace(KEPT, replay=0), prefix="nudge")

    def compacted() -> bool:
        """Whether nothing of a deleted document is left. New events make segments end, and the cleaner clean."""
        event = next(nudges.events(1))
        place = arena.log.send(arena.topic, event.value, key=event.key)
        whole.append(
            Record(topic=place.topic, partition=0, offset=place.offset, timestamp_ms=0, key=event.key, value=event.value)
        )
        arena.watch()
        return not {(record.key or b"").decode() for record in arena.records()} & deleted

    until(compacted, timeout=60, what="the tombstones to expire")
    arena.encoder.set(Behaviour())
    records = arena.settle()
    assert len(records) < len(whole) / 2, "there must be gaps"
    vitals.gauges_are_at_rest(worker)
    shows_the_fold(arena, records)
    shows_the_fold(arena, whole)
    checks.no_resurrection(arena.reader, whole, numbered_by="log")
    assert_history_is_sound(arena, records)
    assert_passes_the_end(arena, own, worker)


def assert_history_is_sound(arena: Arena, records: list[Record]) -> None:
    """I3 I6 I7, for a log that lost events."""
    with arena.connect() as connection:
        changes, steps = audit.documents(connection), audit.progress(connection)
    checks.versions_rise(changes)
    checks.progress_is_safe(steps, changes, records, numbered_by="log")
    checks.single_writer(steps)


def assert_passes_the_end(arena: Arena, own: FaultBroker, worker: Process) -> None:
    """A log whose end no reader gets to see, here a transaction that was taken back, leaves no lag."""
    before = arena.applied()
    producer = KafkaProducer(bootstrap_servers=own.bootstrap_servers, transactional_id="taken-back")
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        place = producer.send(arena.topic, key=b"never", value=b'{"text": "A text."}').get(timeout=20)
        producer.abort_transaction()
    arena.wait_for(lambda: arena.applied() == place.offset + 2, what="the gap at the end to be passed")  # and the marker
    assert place.offset >= before
    vitals.gauges_are_at_rest(worker)
    assert not arena.rows("select 1 from livedex.document where document_id = 'never'")


@pytest.mark.scenario(32, seconds=30)
@pytest.mark.parametrize("own", [{"disk": "64m"}], indirect=True, ids=["64m"])
def test_32_the_disk_of_the_broker_is_full(arena: Arena, own: FaultBroker) -> None:
    """A broker that ends because it cannot write is waited for, and goes on with what it had acknowledged once it has room."""
    load = arena.load(20_000, rate=150)
    worker = arena.worker()
    arena.wait_for(lambda: arena.applied() > 100, what="the work to be under way")
    filler = own.data.parent / "filler"
    fill(filler)

    def told() -> None:
        arena.wait_for(lambda: own.daemon.pid is None, what="the broker to end")
        arena.wait_for(lambda: vitals.waits_for(worker, "kafka"), what="the worker to wait for Kafka")
        filler.unlink()

    restart(own, lambda: None, told)
    before = arena.applied()
    arena.wait_for(lambda: arena.applied() > before + 100, timeout=RECOVERY, what="I9 the work to go on")
    load.stop()
    arena.verify(arena.settle(timeout=RECOVERY))


DENIED = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
          "allow.everyone.if.no.acl.found": "true"}  # fmt: skip
ANYBODY = "User:ANONYMOUS"


@pytest.mark.scenario(36, seconds=25)
@pytest.mark.parametrize("own", [DENIED], indirect=True)
@pytest.mark.parametrize("kind", [ResourceType.GROUP, ResourceType.TOPIC])
def test_36_a_right_is_taken_away_for_a_while(arena: Arena, kind: ResourceType) -> None:
    """A worker that may not join its group, or not read its topic, any more says so and outlives it; with the right given back
    it goes on by itself.
    """
    arena.load(200)
    worker = arena.worker()
    arena.settle()
    name = arena.workers.settings(arena.config).kafka.client["group_id"] if kind is ResourceType.GROUP else arena.topic
    pattern = ResourcePattern(kind, name)
    rights = [ACL(ANYBODY, "*", ACLOperation.READ, ACLPermissionType.DENY, pattern)]
    if kind is ResourceType.TOPIC:  # everything else stays allowed; of the group nothing
        rights.append(ACL(ANYBODY, "*", ACLOperation.ALL, ACLPermissionType.ALLOW, pattern))
    with closing(open_admin(arena.settings)) as admin:
        admin.create_acls(rights)
        late = arena.worker(wait=False)
        arena.wait_for(lambda: not worker.ready(), what="a worker to say it")
        arena.watch_for(3)
        for found in (worker, late):
            assert found.popen.poll() is None, found.log()[-2000:]
        admin.delete_acls(rights)
    arena.load(200)
    arena.verify(arena.settle())
    for found in (worker, late):
        arena.ready(found)
