"""The model of a large collection changes under live updates and constant searches, and its worker is killed on the way."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from livedex import generations
from livedex.query.app import QueryApp
from support.fold import fold
from support.generations import Asking, assert_is_fold_in, generations_of
from support.kafka import Log
from support.synthetic import sentence
from support.waiting import until
from support.workers import Process, Workers

pytestmark = pytest.mark.accept
CHUNKS = 20_000
DOCUMENTS = 1_000
KILLS = 5
TEXT = "The lighthouse keeper writes a letter."


class Updates:
    """Twenty changes a second."""

    def __init__(self, log: Log, topic: str, seed: int) -> None:
        self._log, self._topic = log, topic
        self._choose = random.Random(seed)
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more; all of them are in the log then."""
        self._stop.set()
        self._thread.join(30)
        self._log.flush()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            name = f"doc/{self._choose.randrange(DOCUMENTS // 10)}"
            event: dict[str, Any] = {"id": name, "text": text(self._choose, self._choose.randrange(1, 6))}
            self._log.post(self._topic, {"id": name, "op": "delete"} if self._choose.random() < 0.1 else event)
            self.sent += 1
            time.sleep(max(0.0, began + self.sent / 20 - time.monotonic()))


def text(choose: random.Random, pieces: int) -> str:
    """About so many chunks."""
    return "\n\n".join(" ".join(sentence(choose, f"w{choose.randrange(10**6)}") for _ in range(12)) for _ in range(pieces))


def test_a_model_change_survives_kills(workers: Workers, log: Log, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No failed search, no mixed answer, and in the end both generations are the fold; back again in under a second."""
    del tmp_path
    seed = int(request.config.getoption("faults_seed"))
    choose = random.Random(seed)
    topic = log.topic()
    config = workers.config(topic, model="hash-64")
    workers.apply(config)
    for number in range(DOCUMENTS):
        log.post(topic, {"id": f"doc/{number}", "text": text(choose, 22)})
    end = log.send(topic, {"id": "asked", "text": TEXT}).offset + 1
    worker = workers.start("index", config)
    workers.caught_up(topic, {0: end})
    (chunks,) = workers.rows("select count(*) from livedex.document_chunk")[0]
    assert chunks >= CHUNKS
    updates = Updates(log, topic, seed)
    with workers.in_thread(QueryApp(workers.settings(config))) as address, Asking(address, TEXT, "asked") as asking:
        updates.start()
        changed = workers.config(topic, model="hash-64", document_prompt="passage: ", query_prompt="passage: ", group=topic)
        workers.apply(changed)
        worker = _killed_on_the_way(workers, changed, worker, choose)
        until(lambda: _ready(workers), timeout=300, what="the generation to be ready")
        with workers.connect() as connection:
            generations.switch(connection, "default", 2)
        until(lambda: asking.generations[-1] == 2, what="searches in the new generation")
        before = updates.sent
        until(lambda: updates.sent >= before + 40, what="updates that are written to both")
        with workers.connect() as connection:
            began = time.monotonic()
            generations.rollback(connection, "default")
            took = time.monotonic() - began
        until(lambda: asking.generations[-1] == 1, what="searches in the old generation")
        with workers.connect() as connection:
            generations.switch(connection, "default", 2)
        updates.stop()
        records = log.records(topic)
        workers.caught_up(topic, {0: records[-1].offset + 1})
    assert not asking.failures, asking.failures[:3]
    assert took < 1.0
    print(f"{chunks} chunks, {updates.sent} updates, {len(asking.generations)} searches, rollback {took * 1000:.0f} ms")  # noqa: T201
    with workers.connect() as connection:
        live = generations_of(connection)
        assert sorted(live) == [1, 2]
        for made in live.values():
            assert_is_fold_in(connection, made, fold(records, numbered_by="log"))
    assert worker.stop() == 0


def _killed_on_the_way(workers: Workers, config: Path, worker: Process, choose: random.Random) -> Process:
    """A worker is killed each time that some more was built; the last one that was started."""
    for kill in range(1, KILLS + 1):
        share = kill / (KILLS + 1)
        until(lambda: _built(workers) >= share, timeout=120, what=f"{share:.0%} to be built")  # noqa: B023
        time.sleep(choose.random() * 0.2)
        worker.kill()
        assert _built(workers) < 1, "it must be killed on the way"
        worker = workers.start("index", config)
    return worker


def _built(workers: Workers) -> float:
    with workers.connect() as connection:
        row = next(row for row in generations.read(connection) if row["generation"] == 2)
    return float(row["built"] / row["documents"])


def _ready(workers: Workers) -> bool:
    with workers.connect() as connection:
        row = next(row for row in generations.read(connection) if row["generation"] == 2)
    return bool(row["complete"] and row["index_ready"])
