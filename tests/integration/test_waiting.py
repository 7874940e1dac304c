"""Workers outlive their dependencies: they wait for what is down, say so, and go on with nothing lost."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livedex.config import KafkaSettings
from livedex.dev.stack import Stack
from livedex.errors import LivedexError
from support.database import create_template, fresh_database
from support.kafka import Log
from support.waiting import until
from support.workers import Process, Workers

STEADY = 3.0  # seconds of an outage that are watched
TOLD = 1000  # documents of a backlog: seconds of work


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that tests may crash."""
    own = Stack(tmp_path_factory.mktemp("crashing"))
    try:
        own.up()
    except LivedexError as error:
        import os

        if os.environ.get("CI"):
            raise
        pytest.skip(f"the development stack does not start: {error}")
    try:
        create_template(own.addresses().database_url, "crashing")
        yield own
    finally:
        own.down()


@pytest.fixture
def crashing(own_stack: Stack, tmp_path: Path) -> Iterator[tuple[Workers, Log, str, Path]]:
    """Workers on that stack, a topic, and their settings; both servers are up again afterwards."""
    addresses = own_stack.up()
    settings = KafkaSettings(bootstrap_servers=addresses.kafka_bootstrap_servers)
    with (
        fresh_database(addresses.database_url, "crashing") as url,
        Workers(addresses, url, tmp_path) as workers,
        Log(settings) as log,
    ):
        topic = log.topic()
        config = workers.config(topic)
        workers.apply(config)
        try:
            yield workers, log, topic, config
        finally:
            own_stack.up()


def waits_for(worker: Process, *dependencies: str) -> bool:
    """Whether the worker is alive, not ready, and says that it waits for these."""
    assert httpx.get(f"{worker.address}/healthz", trust_env=False).status_code == 200
    answer = httpx.get(f"{worker.address}/readyz", trust_env=False)
    return answer.status_code == 503 and set(dependencies) <= set(answer.json()["waiting_for"])


def test_workers_wait_at_start_for_what_is_down(own_stack: Stack, crashing: tuple[Workers, Log, str, Path]) -> None:
    """Started without Kafka and Postgres, both workers are alive and not ready; once the servers are there, they work."""
    workers, log, topic, config = crashing
    own_stack.down()
    index, serve = (workers.start(command, config, wait=False) for command in ("index", "serve"))
    until(lambda: _answers(index) and waits_for(index, "postgres", "kafka"), what="index to say what it waits for")
    until(lambda: _answers(serve) and waits_for(serve, "postgres"), what="serve to say what it waits for")
    own_stack.up()
    until(index.ready, timeout=60, what="index to be ready")
    until(serve.ready, timeout=60, what="serve to be ready")
    place = log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {0: place.offset + 1})
    told = re.findall(r"dependency\.down.* dependency=(\w+)", index.log())
    assert "postgres" in told, "it was down"
    assert len(told) == len(set(told)), "one log line for each change; Kafka's is there where Postgres was up before the broker"
    assert (index.stop(), serve.stop()) == (0, 0)


@pytest.mark.accept
def test_a_crash_of_postgres_loses_nothing(own_stack: Stack, crashing: tuple[Workers, Log, str, Path]) -> None:
    """When Postgres is killed while events come, the worker lives on, says what it waits for, and applies everything later."""
    workers, log, topic, config = crashing
    index, serve = workers.start("index", config), workers.start("serve", config)
    own_stack.postgres.kill()
    places = [log.post(topic, {"id": f"doc {number}", "text": f"Text {number}."}) for number in range(50)]
    until(lambda: waits_for(index, "postgres"), what="index to say that postgres is down")
    until(lambda: waits_for(serve, "postgres"), what="serve to say that postgres is down")
    found = httpx.post(f"{serve.address}/v1/search", json={"query": "text", "mode": "text"}, timeout=20, trust_env=False)
    assert (found.status_code, found.json()["dependency"]) == (503, "postgres")
    until(lambda: index.metrics().value("livedex_staleness_seconds", topic=topic) > 1, what="staleness to rise")
    own_stack.postgres.start()
    workers_see = [place() for place in places]
    until(lambda: _there(workers), timeout=60, what="postgres to answer")
    workers.caught_up(topic, {0: workers_see[-1].offset + 1}, timeout=60)
    assert workers.rows("select count(*) from livedex.documents") == [(50,)]
    assert workers.rows("select count(*) from livedex.dead_letter") == [(0,)]
    until(index.ready, what="index to be ready again")
    until(serve.ready, what="serve to be ready again")
    until(lambda: index.metrics().value("livedex_staleness_seconds", topic=topic) == 0, what="staleness to be 0")
    assert (index.stop(), serve.stop()) == (0, 0)


@pytest.mark.accept
def test_a_crash_of_the_broker_loses_nothing(own_stack: Stack, crashing: tuple[Workers, Log, str, Path]) -> None:
    """When the broker is killed and comes back, the worker goes on where it was."""
    workers, log, topic, config = crashing
    index = workers.start("index", config)
    place = log.send(topic, {"id": "before", "text": "A text."})
    workers.caught_up(topic, {0: place.offset + 1})
    own_stack.kafka.kill()
    until(lambda: waits_for(index, "kafka"), what="index to say that kafka is down")
    began = time.monotonic()
    while time.monotonic() < began + STEADY:
        assert waits_for(index, "kafka"), "it must stay so until the broker is back"
    assert re.findall(r"dependency\.down.* dependency=(\w+)", index.log()) == ["kafka"], "one log line for each change"
    own_stack.kafka.start()
    own_stack.kafka.wait_ready()
    place = log.send(topic, {"id": "after", "text": "A text."})
    workers.caught_up(topic, {0: place.offset + 1}, timeout=60)
    until(index.ready, what="index to be ready again")
    assert index.stop() == 0


@pytest.mark.accept
def test_sigterm_during_a_backlog_loses_nothing(crashing: tuple[Workers, Log, str, Path]) -> None:
    """A worker that is told to stop in the middle of a backlog ends with 0 in time, and the next one completes the work."""
    workers, log, topic, config = crashing
    texts = [
        " ".join(f"Sentence {place} of document {number} is like no other." for place in range(100)) for number in range(TOLD)
    ]
    posts = [log.post(topic, json.dumps({"text": text}).encode(), key=f"doc {number}") for number, text in enumerate(texts)]
    end = posts[-1]().offset + 1
    first = workers.start("index", config)
    until(lambda: workers.rows("select from livedex.documents limit 1"), what="the first documents")
    assert first.stop(timeout=10) == 0
    assert workers.rows("select count(*) from livedex.documents")[0][0] < TOLD, "it must be stopped in the middle"
    second = workers.start("index", config)
    workers.caught_up(topic, {0: end})
    assert workers.rows("select count(*) from livedex.documents") == [(TOLD,)]
    assert second.stop() == 0


def test_sigterm_while_postgres_is_away_ends_in_time(own_stack: Stack, crashing: tuple[Workers, Log, str, Path]) -> None:
    """A worker that waits for a database ends with 0 within ten seconds, whatever it was waiting in."""
    workers, log, _, _ = crashing
    topic = log.topic(3)
    config = workers.config(topic, versions="source")
    workers.apply(config)
    index = workers.start("index", config)
    own_stack.postgres.stop()
    for number in range(30):
        log.post(topic, {"id": str(number), "version": 1, "text": "A text."})
    until(lambda: waits_for(index, "postgres"), what="index to say that postgres is down")
    assert index.stop(timeout=10) == 0


def _answers(worker: Process) -> bool:
    try:
        return httpx.get(f"{worker.address}/healthz", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        assert worker.popen.poll() is None, worker.log()
        return False


def _there(workers: Workers) -> bool:
    import psycopg

    try:
        return bool(workers.rows("select 1"))
    except psycopg.OperationalError:
        return False
