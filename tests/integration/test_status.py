"""`livedex status` under real faults: what is wrong, who is there, how fresh the last minutes were."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from livedex.config import KafkaSettings
from livedex.core.standing import LATE
from livedex.index.app import IndexApp
from livedex.kafka import open_admin
from livedex.query.app import QueryApp
from support.asking import watched
from support.kafka import Log
from support.terminal import Done, Terminal
from support.waiting import until
from support.workers import Workers, free_port


@pytest.fixture
def site(workers: Workers, log: Log) -> tuple[str, Path]:
    """A topic with a collection, which nobody reads yet."""
    topic = log.topic(2)
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    return topic, config


@pytest.fixture
def livedex(
    workers: Workers, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    """Commands of its operator."""
    environment = workers.environment(site[1])
    own = {name: value for name, value in environment.items() if name.startswith("LIVEDEX_")}
    return Terminal({**own, "COLUMNS": "240"}, monkeypatch, capsys)


def told(done: Done) -> dict[str, Any]:
    """What it says as JSON, beside the lines of workers in this process."""
    found: dict[str, Any] = json.loads(done.out[done.out.index("{\n") :])
    return found


def test_what_nobody_reads_is_told(livedex: Terminal, workers: Workers, log: Log, site: tuple[str, Path]) -> None:
    """Before the first worker, with one, and after it ended with events left: what, how far behind, and what to do."""
    topic, config = site
    first = livedex("status", "--json", "--check")
    assert first.code == 1
    assert told(first)["problems"] == [f"topic {topic} is not read yet: start livedex index"]
    places = [log.send(topic, {"id": str(number), "text": f"Text {number}."}, partition=number) for number in range(2)]
    with workers.in_thread(IndexApp(workers.settings(config))):
        workers.caught_up(topic, {place.partition: place.offset + 1 for place in places})
        sound = livedex("status", "--json", "--check")
        assert sound.code == 0, sound.out
        assert (told(sound)["summary"], told(sound)["problems"]) == ("all caught up", [])
        assert "all caught up" in livedex("status").out
    late = int((time.time() - 245) * 1000)
    log.send(topic, {"id": "2", "text": "A late text."}, partition=1, timestamp_ms=late)
    found = told(livedex("status", "--json"))
    behind, idle = found["problems"]
    assert behind == f"topic {topic} partition 1 is 4 min behind (1 events) and has no owner: start livedex index"
    assert idle == f"topic {topic} partition 0 has no owner: start livedex index"
    assert found["summary"] == f"{behind} (and 1 more)"
    shown = livedex("status", "--check")
    assert shown.code == 1
    assert shown.out.splitlines()[0] == behind, "what is wrong is told first"


@pytest.mark.accept
def test_a_worker_that_hangs_is_named(livedex: Terminal, workers: Workers, log: Log, site: tuple[str, Path]) -> None:
    """One that was stopped in the middle is connected still, and is told as the owner of what is behind."""
    topic, config = site
    worker = workers.start("index", config)
    place = log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {place.partition: place.offset + 1})
    worker.popen.send_signal(signal.SIGSTOP)
    try:
        past = int((time.time() - LATE - 10) * 1000)
        log.send(topic, {"id": "a", "text": "Another text."}, partition=place.partition, timestamp_ms=past)
        (problem,) = told(livedex("status", "--json"))["problems"]
    finally:
        worker.popen.send_signal(signal.SIGCONT)
    ((owner,),) = workers.rows("select distinct owner from livedex.progress")
    assert f"topic {topic} partition {place.partition} is " in problem
    assert f"and its owner {owner} is connected" in problem


def test_the_workers_that_are_there_are_listed(livedex: Terminal, workers: Workers, site: tuple[str, Path]) -> None:
    """Index workers with their partitions; query workers, and whether they embed texts for SQL; one that is gone as long as it
    is the last owner.
    """
    _, config = site
    with (
        workers.in_thread(one := IndexApp(workers.settings(config))),
        workers.in_thread(other := IndexApp(workers.settings(config))),
        workers.in_thread(query := QueryApp(workers.settings(config))),
    ):
        until(lambda: watched(workers.database_url), what="the query worker to say that it is there")
        rows = until(lambda: settled(told(livedex("status", "--json"))["workers"]), what="two owners")
        assert [row["kind"] for row in rows] == ["index", "index", "query"]
        assert all(row["connected"] for row in rows)
        assert {(row["worker"], row["partitions"]) for row in rows[:2]} == {(one.name, 1), (other.name, 1)}
        assert [(row["worker"], row["texts"]) for row in rows if row["kind"] == "query"] == [(query.name, True)]
        assert "embeds for SQL" in livedex("status").out
    gone = told(livedex("status", "--json"))["workers"]
    assert [row["connected"] for row in gone] == [False] * len(gone)
    assert sum(row["partitions"] for row in gone) == 2


def settled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The workers, once two partitions have two owners that are there."""
    owners = [row for row in rows if row["partitions"] == 1 and row["connected"]]
    return rows if len(owners) == 2 and len(rows) == 3 else []


def test_freshness_of_the_last_minutes(livedex: Terminal, workers: Workers, log: Log, site: tuple[str, Path]) -> None:
    """By what documents took: their number, the median and the slowest; what is older than that is not counted."""
    topic, config = site
    assert told(livedex("status", "--json"))["freshness"]["documents"] == 0
    assert "no document changed in the last 5 min" in livedex("status").out
    seconds = (10, 20, 60)
    with workers.in_thread(IndexApp(workers.settings(config))):
        now = time.time()
        places = [
            log.send(topic, {"id": str(ago), "text": f"Text {ago}."}, partition=0, timestamp_ms=int((now - ago) * 1000))
            for ago in seconds
        ]
        workers.caught_up(topic, {0: places[-1].offset + 1})
    took = time.time() - now
    freshness = told(livedex("status", "--json"))["freshness"]
    assert freshness["documents"] == 3
    assert 20 <= freshness["median_seconds"] <= 20 + took
    assert 60 <= freshness["max_seconds"] <= 60 + took
    workers.execute("update livedex.document set indexed_at = indexed_at - interval '6 min' where document_id = '60'")
    assert told(livedex("status", "--json"))["freshness"]["documents"] == 2


def test_dead_letters_and_kafka_are_told(livedex: Terminal, workers: Workers, log: Log, site: tuple[str, Path]) -> None:
    """Each has its sentence; what Postgres knows is there all the same."""
    topic, config = site
    place = log.send(topic, b"no JSON", key="a")
    with workers.in_thread(IndexApp(workers.settings(config))):
        workers.caught_up(topic, {place.partition: place.offset + 1})
        assert told(livedex("status", "--json"))["problems"] == [
            "dead letters are open (invalid-json 1): livedex dead-letters list"
        ]
        away = livedex("status", "--json", LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert "lag and staleness are unknown" in told(away)["problems"][0]
    assert told(away)["collections"][0]["documents"] == 0


def test_a_topic_that_is_gone_hides_nothing_of_the_others(
    livedex: Terminal, workers: Workers, log: Log, site: tuple[str, Path], kafka_settings: KafkaSettings
) -> None:
    """Its lag is unknown, that of the others is told, and the command ends as usual."""
    topic, _ = site
    with workers.connect() as connection:
        connection.execute(
            "insert into livedex.source_progress (topic, partition, next_offset, owner) "
            "select topic, n, 0, '' from livedex.source, generate_series(0, 2) n"  # of two that the topic has
        )
    log.send(topic, {"id": "a", "text": "A text."}, partition=1)
    found = told(livedex("status", "--json"))
    assert found["log"] is None
    assert {row["partition"]: row["lag"] for row in found["sources"]} == {0: 0, 1: 1, 2: None}
    admin = open_admin(kafka_settings)
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics(), what="the topic to go")
    admin.close()
    done = livedex("status", "--json")
    assert done.code == 0
    assert {row["lag"] for row in told(done)["sources"]} == {None}


@contextmanager
def watching(workers: Workers, config: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """`livedex status --watch` while it runs."""
    command = [sys.executable, "-m", "livedex", "status", "--watch", *arguments]
    popen = subprocess.Popen(
        command, env=workers.environment(config, **environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()


@pytest.mark.accept
def test_watching_goes_on_through_a_lost_connection(workers: Workers, site: tuple[str, Path]) -> None:
    """One JSON object a line, in each of which stands what is wrong; a session that ended is opened again."""
    with watching(workers, site[1], "--json", PGAPPNAME="the-watcher") as popen:
        assert popen.stdout is not None
        first = json.loads(popen.stdout.readline())
        assert first["problems"] == [f"topic {site[0]} is not read yet: start livedex index"]
        with psycopg.connect(workers.database_url, autocommit=True) as connection:
            ended = connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'the-watcher'"
            )
            assert ended.fetchall() == [(True,)]
        lines = (json.loads(line) for line in popen.stdout)
        after = next(lines)
        while "sources" not in after:
            assert "postgres" in after["summary"]
            after = next(lines)
        assert after["problems"] == first["problems"]
