"""Records that no index can take: one dead letter each, their neighbours applied, and no core burnt on them afterwards."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import psutil
import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource

from livedex.core.change import MAX_TEXT_BYTES
from livedex.core.record import Place, Record
from livedex.kafka import MAX_REQUEST_BYTES, open_admin, open_client
from support.faults import checks, segments, vitals
from support.faults.arena import Arena, World
from support.faults.broker import FaultBroker, broker, running
from support.faults.nursery import Nursery
from support.faults.own import with_broker
from support.faults.poison import MARK, poisons
from support.faults.script import Event, Mix
from support.faults.snapshot import take
from support.workers import Process

IDLE = 3.0  # seconds for which the worker is watched when all is done
IDLE_CPU = 0.4  # of a core
CLEAN = Mix(poison=0)
UPSERTS = Mix(poison=0, delete=0, metadata=0, replay=0, late=0)


def assert_idles(arena: Arena, worker: Process) -> None:
    """Nothing is left to do, so hardly anything is done."""

    def used() -> float:
        times = psutil.Process(worker.popen.pid).cpu_times()
        return times.user + times.system

    before = used()
    arena.watch_for(IDLE)
    assert used() - before < IDLE_CPU * IDLE, f"a worker with nothing to do used {used() - before:.2f} s of {IDLE} s"


def marked(name: str, reason: str, value: bytes | None, key: bytes | None) -> Event:
    """A record that must become a dead letter, for this reason."""
    return Event(name=name, kind="poison", key=key, value=value, headers=((MARK, reason.encode()), ("origin", b"\x00\xff")))


def too_large(name: str) -> Event:
    """One byte more of text than is taken."""
    value = json.dumps({"id": name, "version": 2, "text": "x" * (MAX_TEXT_BYTES + 1)}).encode()
    return marked(name, "too-large", value, name.encode())


def empty(name: str) -> Event:
    """A good event whose text is empty."""
    version = 10**6
    value = json.dumps({"id": name, "version": version, "title": f"[{name}#{version} 0/0]", "text": ""}).encode()
    return Event(name=name, kind="upsert", key=name.encode(), value=value, version=version)


@pytest.mark.scenario(26, seconds=15)
@pytest.mark.parametrize("mode", ["log", "source"])
def test_26_poison_of_every_sort(open_arena: Callable[..., Arena], mode: str) -> None:
    """Each sort of poison is one dead letter with its own reason and bytes, the events around it are applied, and an empty text
    is none.
    """
    arena = open_arena(versions=mode, mix=CLEAN)
    name = "doc/1"
    sorts = [marked(name, sort.reason, sort.value, sort.key) for sort in poisons(name, numbered_by=mode)]
    framed = b"\x00" + (7).to_bytes(4) + b'{"id": "doc/1", "version": 2, "text": "x"}'  # as a schema registry frames values
    sorts += [marked(name, "invalid-json", framed, name.encode()), too_large(name)]
    good = list(arena.script.events(3 * len(sorts)))
    mixed = chain.from_iterable((*good[3 * n : 3 * n + 3], sort) for n, sort in enumerate(sorts))
    arena.load([*mixed, empty("doc/empty")])
    worker = arena.worker()
    arena.verify(arena.settle())
    letters = take(arena.world.direct.database_url, vectors=False).dead_letters
    assert sorted(letter[3] for letter in letters.values()) == sorted(dict(event.headers)[MARK].decode() for event in sorts)
    assert arena.rows("select 1 from livedex.documents where document_id = 'doc/empty'")
    assert_idles(arena, worker)


HUGE = 50 * 10**6  # characters of a text
ROOM = 64 * 2**20  # bytes that its topic takes in one batch
FETCH_MEMORY = 6 * HUGE  # bytes above what a worker has anyhow: some copies of the record


@pytest.mark.scenario(26, seconds=25)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_26_a_text_of_fifty_megabytes(open_arena: Callable[..., Arena], compression: str | None) -> None:
    """A record far beyond any limit of livedex, in a topic that takes it, is one dead letter with its bytes; the events before
    and behind it, and in other partitions, are applied, in bounded memory, and the worker idles afterwards.
    """
    arena = open_arena(partitions=2, mix=UPSERTS)
    with closing(open_admin(arena.settings)) as admin:
        admin.alter_configs([ConfigResource("TOPIC", arena.topic, configs={"max.message.bytes": str(ROOM)})])
    worker = arena.worker()
    arena.load(50).finish()
    arena.settle()
    arena.reader.stop()  # what is measured is the worker
    with vitals.Peak(worker) as peak:
        before = peak.bytes
        good = list(arena.script.events(6))
        value = json.dumps({"id": "huge", "version": 2, "text": "x" * HUGE}).encode()
        in_one_batch(arena, [*good[:3], marked("huge", "too-large", value, b"huge"), *good[3:]], compression=compression)
        arena.load(50).finish()
        records = arena.settle()
    print(f"{before / 2**20:.0f} MB before, at most {peak.bytes / 2**20:.0f} MB")  # noqa: T201
    letters = take(arena.world.direct.database_url, vectors=False).dead_letters
    assert [letter[3] for letter in letters.values()] == ["too-large"]
    assert peak.bytes - before < FETCH_MEMORY
    arena.verify(records)
    assert_idles(arena, worker)


class Raw(str):
    """A header's name of bytes that are no UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """As other producers write it."""
        del encoding, errors
        return b"\xff\xfe"


def in_one_batch(arena: Arena, events: Sequence[Event], *, compression: str | None = None) -> list[Place]:
    """Send records as one batch; their places."""
    options = {"enable_idempotence": False, "acks": "all", "linger_ms": 5_000, "batch_size": ROOM, "max_request_size": ROOM,
               "compression_type": compression}  # fmt: skip
    producer = open_client(KafkaProducer, arena.settings, "one-batch", **options)
    try:
        futures = [
            producer.send(arena.topic, key=event.key, value=event.value, headers=list(event.headers), partition=0)
            for event in events
        ]
        producer.flush(timeout=60)
        found = [future.get(timeout=30) for future in futures]
    finally:
        producer.close(timeout=5)
    return [Place(place.topic, place.partition, place.offset) for place in found]


def plain(name: str, value: bytes | None) -> Event:
    """An event of which only its bytes matter."""
    return Event(name=name, kind="upsert", key=name.encode(), value=value)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[FaultBroker]:
    """A broker whose files a scenario may damage."""
    with running(broker(tmp_path / "broker")) as own:
        yield own


# What is done to one batch of five records each.
DAMAGES: Mapping[str, Callable[[segments.Stored], None]] = {
    "a wrong checksum": segments.Stored.corrupt,
    "a codec that nobody knows": lambda stored: stored.recode(segments.NO_CODEC),
    "a last offset that is too low": lambda stored: stored.flip(segments.LAST_OFFSET, 2),
    "a last offset in the next batch": lambda stored: stored.flip(segments.LAST_OFFSET, 1),
    "an older format": lambda stored: stored.flip(segments.FORMAT, 1, size=1),
    "a negative length": lambda stored: stored.flip(segments.LENGTH, 31),
    "a last offset far beyond the log": lambda stored: stored.flip(segments.LAST_OFFSET, 28),
}


@pytest.mark.scenario(26, seconds=30)
def test_26_batches_that_cannot_be_read(world: World, own: FaultBroker, nursery: Nursery) -> None:
    """A batch that is damaged, in its body or in its head, one with a codec that nobody knows, and one with a broken header are
    one dead letter each; what stands around them is applied, and nothing spins.
    """
    with Arena(with_broker(world, own), partitions=1, mix=UPSERTS, documents=10**6, nursery=nursery) as arena:
        events = arena.script.events(10**6)
        good: list[Event] = []
        bad: dict[Place, str] = {}

        def send_good(number: int) -> int:
            some = list(islice(events, number))
            good.extend(some)
            return [arena.log.send(arena.topic, event.value, key=event.key, partition=0) for event in some][-1].offset + 1

        send_good(3)
        for kind in DAMAGES:
            bad[in_one_batch(arena, list(islice(events, 5)))[0]] = kind
            send_good(3)
        event = next(events)
        raw = arena.log.send(arena.topic, event.value, key=event.key, partition=0, headers=[(Raw("x"), b"1")])
        end = send_good(3)
        stored = {kind: segments.batch_of(own, arena.topic, 0, place.offset) for place, kind in bad.items()}
        for kind, batch in stored.items():
            DAMAGES[kind](batch)

        worker = arena.worker()
        arena.wait_for(lambda: arena.applied() >= end, what="I9 everything to be applied, or a dead letter")
        letters = take(arena.world.direct.database_url).dead_letters
        expected = {**dict.fromkeys(bad, "unreadable"), raw: "unreadable"}
        assert {Place(*place): letter[3] for place, letter in letters.items()} == expected, "I8 one dead letter for each batch"
        found = {row[0] for row in arena.rows("select document_id from livedex.documents")}
        assert found == {event.name for event in good}, "the neighbours are applied, nothing else"
        assert arena.applied() == end
        vitals.gauges_are_at_rest(worker)
        assert_idles(arena, worker)


def ballast(event: Event, size: int) -> bytes:
    """The same event with a field that livedex does not know, so that the value has this size."""
    assert event.value is not None
    return event.value[:-1] + b', "ballast": "' + b"x" * (size - len(event.value) - 15) + b'"}'


def largest_text(name: str, bytes_of_text: int) -> bytes:
    """An upsert whose text has so many bytes as UTF-8, three times as many in JSON."""
    word = "é" * 44 + " "
    text = word * (bytes_of_text // len(word.encode()))
    text += "x" * (bytes_of_text - len(text.encode()))
    return json.dumps({"id": name, "text": text}).encode()


@pytest.mark.scenario(27, seconds=30)
def test_27_records_and_batches_of_the_largest_sizes(open_arena: Callable[..., Arena]) -> None:
    """A record of the largest size, the longest text in its longest writing, and a batch larger than a fetch are applied; a
    text that is one byte longer is a dead letter.
    """
    arena = open_arena(partitions=1, mix=UPSERTS)
    worker = arena.worker()
    arena.wait_for(lambda: arena.reader.searches, what="a first search")
    arena.reader.stop()  # it would read all of these documents in each round
    events = list(arena.script.events(30))
    largest = MAX_REQUEST_BYTES - 2**10
    in_one_batch(arena, [plain(events[0].name, ballast(events[0], largest))])
    in_one_batch(arena, [plain("long", largest_text("long", MAX_TEXT_BYTES))])
    in_one_batch(arena, [plain(event.name, ballast(event, 2**20)) for event in events[1:13]])
    beyond = in_one_batch(arena, [plain("longer", largest_text("longer", MAX_TEXT_BYTES + 1))])
    in_one_batch(arena, events[13:])
    records = arena.settle()
    assert len(next(record.value or b"" for record in records)) == largest
    batch = [record for record in records if len(record.value or b"") == 2**20]
    assert len(batch) == 12, "there must be a batch beyond a fetch"
    letters = take(arena.world.direct.database_url, vectors=False).dead_letters
    assert {Place(*place): letter[3] for place, letter in letters.items()} == {beyond[0]: "too-large"}
    marks = [
        Record(**{**{name: getattr(r, name) for name in Record.__slots__}, "headers": ((MARK, b"too-large"),)})
        if r.place == beyond[0]
        else r
        for r in records
    ]
    checks.fold_equality(take(arena.world.direct.database_url), marks, numbered_by="log")
    vitals.gauges_are_at_rest(worker)
    assert vitals.gauge(worker, "livedex_events_total") == len(records), "I8 every event is counted once"
    arena.watch()
