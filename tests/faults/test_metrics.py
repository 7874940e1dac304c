"""Clocks, hot partitions and scrapers: what is measured is true, memory is bounded, and nobody who looks disturbs the work."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from livedex.index.flow import PARTITION_HIGH
from support.faults import checks, snapshot, vitals
from support.faults.arena import Arena
from support.faults.encoder import Behaviour
from support.faults.script import Event, Mix
from support.faults.texts import write
from support.waiting import until
from support.workers import Process

HOUR = 3600.0
SKEWS = {"future": 59 * 60.0, "past": -HOUR}  # Kafka refuses records that are more than an hour ahead
SERVED = 15.0  # seconds within which a partition that is not hot is served
HANGING = 50  # scrapers
SERIALS = itertools.count(10**6)  # of writings that are not the script's


# clocks


@pytest.mark.scenario(30, seconds=20)
def test_30_clocks_that_are_wrong(arena: Arena) -> None:
    """Event times and producers' clocks an hour ahead or behind change no order, and make neither freshness nor staleness
    negative.
    """
    worker = arena.worker()
    now = time.time()
    for number, event in enumerate(arena.script.events(600)):
        at = now + arena.choose.choice([*SKEWS.values(), 0.0])
        value = event.value
        if event.kind != "poison" and value is not None and number % 2:
            value = json.dumps({**json.loads(value), "time": written(now + arena.choose.choice([HOUR, -HOUR]))}).encode()
        arena.log.post(arena.topic, value, key=event.key, headers=list(event.headers), timestamp_ms=int(at * 1000))
        if number % 100 == 0:
            arena.watch()
            assert min(series(worker, "livedex_staleness_seconds"), default=0.0) >= 0
    arena.log.flush()
    records = arena.settle()
    assert min(record.timestamp_ms for record in records) < (now - HOUR / 2) * 1000, "clocks must have been wrong"
    arena.verify(records)
    metrics = worker.metrics()
    accepted = metrics.value("livedex_freshness_seconds_count")
    assert accepted > 0
    assert 0 <= metrics.value("livedex_freshness_seconds_sum") <= accepted * 1.1 * HOUR, "no event is fresher than at once"
    assert 0 < metrics.value("livedex_clock_skew_total") < accepted, "those from later are counted"


@pytest.mark.scenario(30, seconds=15)
@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_30_a_worker_whose_clock_is_wrong(arena: Arena, ahead: float) -> None:
    """A worker whose own clock is an hour off orders nothing by it: beside one whose clock is right the index is the fold.
    Freshness is never negative, what it would have been is counted, and staleness rises in a stall all the same.
    """
    wrong = arena.worker(clock=ahead)
    arena.load(300, rate=100)
    arena.settle()
    measured, sum_of = (wrong.metrics().value(f"livedex_freshness_seconds_{part}") for part in ("count", "sum"))
    assert measured > 0
    assert 0 <= sum_of <= measured * (max(ahead, 0.0) + SERVED)
    assert sum_of >= measured * (ahead - SERVED), "its clock must have been wrong"
    assert vitals.gauge(wrong, "livedex_clock_skew_total") == (measured if ahead < 0 else 0)

    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.load(100).finish()
    vitals.stall_is_told(wrong, seconds=3)
    assert vitals.gauge(wrong, "livedex_staleness_seconds") < 3 * (max(ahead, 0.0) + 60), "of three partitions"
    arena.encoder.set(Behaviour())

    right = arena.worker()
    arena.wait_for(lambda: arena.owners() == {wrong.popen.pid, right.popen.pid}, what="both to own something")
    arena.load(600, rate=150)
    arena.verify(arena.settle())


def written(moment: float) -> str:
    """As events carry it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def series(worker: Process, name: str) -> list[float]:
    """The values of a metric's series now."""
    families = text_string_to_metric_families(worker.metrics().text)
    return [sample.value for family in families for sample in family.samples if sample.name == name]


# load that is not even


@pytest.mark.scenario(31, seconds=45)
def test_31_a_hot_partition(open_arena: Callable[..., Arena]) -> None:
    """While one partition gets fifty times what it got, from few documents, and the encoder is slow, the others are served
    within a bound, and what is in flight is bounded.
    """
    arena = open_arena(documents=30, mix=Mix(poison=0))
    worker = arena.worker()
    arena.load(200, rate=40)
    arena.settle()
    arena.encoder.set(Behaviour(seconds=0.5))
    largest = flood(arena, partition=0, count=3_000)
    bound = PARTITION_HIGH + 3 * 100 * largest  # a poll more than the watermark, and what the others have
    for number in range(4):
        probe = arena.log.send(arena.topic, event_of(arena, f"probe/{number}").value, partition=1 + number % 2)
        arena.wait_for(lambda: arena.progress()[arena.topic, probe.partition] > probe.offset, timeout=SERVED,  # noqa: B023
                       what="a record beside the hot partition to be applied")  # fmt: skip
        assert vitals.gauge(worker, "livedex_offset_lag", partition="0") > 0, "the hot partition must still be behind"
        assert vitals.gauge(worker, "livedex_inflight_bytes") <= bound
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())


def flood(arena: Arena, *, partition: int, count: int) -> int:
    """Updates of a few documents, all in one partition, as fast as they can be sent; the size of the largest."""
    largest = 0
    for number in range(count):
        value = event_of(arena, f"hot/{number % 40}").value or b""
        largest = max(largest, len(value))
        arena.log.post(arena.topic, value, partition=partition)
    arena.log.flush()
    return largest


def event_of(arena: Arena, name: str) -> Event:
    """An upsert of a document that the script does not have."""
    title, text = write(name, next(SERIALS), arena.choose)
    value = json.dumps({"op": "upsert", "id": name, "title": title, "text": text}).encode()
    return Event(name=name, kind="upsert", key=name.encode(), value=value)


# scrapers


class Scraper:
    """Reads a worker's metrics all the time, from before it listens until after it has ended."""

    def __init__(self, worker: Process) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                answer = httpx.get(f"{self._worker.address}/metrics", timeout=5, trust_env=False)
            except httpx.TimeoutException:
                self.wrong.append("no answer within 5 s")
            except httpx.HTTPError:
                continue  # it does not listen yet, or any more
            else:
                self._judge(answer)

    def _judge(self, answer: httpx.Response) -> None:
        self.answers += 1
        families = {family.name for family in text_string_to_metric_families(answer.text)}
        if answer.status_code != httpx.codes.OK or "livedex_dependency_up" not in families:
            self.wrong.append(f"{answer.status_code}: {answer.text[:200]}")


@contextmanager
def hanging(worker: Process, count: int) -> Iterator[None]:
    """Scrapers that stop in the middle: half of them of their request, half of them of reading the answers to many."""
    address = urlsplit(worker.address)
    assert address.port
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    with ExitStack() as held:
        for number in range(count):
            scraper = held.enter_context(socket.create_connection(("127.0.0.1", address.port), timeout=5))
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            scraper.sendall(request if number % 2 else (request + b"\r\n") * 20)
        yield


@pytest.mark.scenario(33, seconds=35)
def test_33_scrapes_at_any_time(arena: Arena) -> None:
    """Metrics are read all the time, by some who never finish: each answer is whole, during start, load, a stall, which they
    tell truly, and the end; and the work goes on.
    """
    worker = arena.worker(wait=False)
    with Scraper(worker) as scraper:
        arena.ready(worker)
        load = arena.load(4_000, rate=150)
        with hanging(worker, HANGING):
            arena.wait_for(lambda: arena.applied() > 300, what="the work to go on beside scrapers that hang")
            arena.encoder.set(Behaviour(fails="unavailable"))
            vitals.stall_is_told(worker, seconds=3)
            arena.encoder.set(Behaviour())
            load.stop()
            records = arena.settle()
            arena.verify(records)
            read = scraper.answers
            until(lambda: scraper.answers > read + 5, what="the metrics to be read")
            arena.terminate(worker)
        assert not scraper.wrong, scraper.wrong[:3]
    arena.worker()
    arena.verify(arena.settle())


@pytest.mark.scenario(33, seconds=20)
def test_33_the_lag_is_true(arena: Arena) -> None:
    """I12: lag and staleness are what the harness counts, while the worker is held up and when it has caught up."""
    worker = arena.worker()
    arena.load(100).finish()
    arena.settle()
    arena.encoder.set(Behaviour(fails="unavailable"))
    arena.load(500).finish()
    began = time.time()
    arena.wait_for(lambda: vitals.gauge(worker, "livedex_dependency_up", dependency="embedder") == 0, what="the stall")

    def behind() -> int:
        return len(arena.records()) - arena.applied()

    vitals.lag_is_true(worker, arena.topic, behind())
    vitals.stall_is_told(worker, seconds=4)
    told, passed = max(series(worker, "livedex_staleness_seconds")), time.time() - began
    assert passed - 2 <= told <= passed + 10, f"a stall of {passed:.1f} s is told as {told:.1f} s"
    arena.encoder.set(Behaviour())
    arena.verify(arena.settle())


# memory

LARGE, LARGE_BYTES = 20, 5 * 10**6
SMALL = 20_000
RESIDENT = 10**9  # bytes


@pytest.mark.scenario(31, seconds=200)
def test_31_memory_under_large_documents_and_a_burst(open_arena: Callable[..., Arena]) -> None:
    """Twenty documents of 5 MB and a burst of twenty thousand small ones pass through a worker of less than a gigabyte."""
    arena = open_arena(mix=Mix(most_paragraphs=2, poison=0), documents=SMALL)
    arena.reader.stop()  # it reads every text again and again
    with arena.connect() as connection:  # its build, and rows that go into it one by one, would be what is measured
        connection.execute("update livedex.generation set index_method = 'none'")
    worker = arena.worker()
    with vitals.Peak(worker) as peak:
        for number in range(LARGE):
            arena.log.post(arena.topic, {"id": f"large/{number}", "text": large_text(number)})
        arena.log.flush()
        arena.load(SMALL)
        records = arena.settle(timeout=400)
    print(f"peak {peak.bytes / 2**20:.0f} MB")  # noqa: T201
    assert peak.bytes < RESIDENT
    found = snapshot.take(arena.world.direct.database_url, vectors=False)
    checks.fold_equality(found, records, numbered_by=arena.versions)
    checks.every_offset_once(found, records)


def large_text(number: int) -> str:
    """About LARGE_BYTES of paragraphs of which no two are the same."""
    paragraph = "Paragraph {:08} of the large text {}: offsets, fences, commits and chunks.\n\n"
    return "".join(paragraph.format(count, number) for count in range(LARGE_BYTES // len(paragraph)))
