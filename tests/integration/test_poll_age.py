"""How long ago a worker polled, as it tells by itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livedex.dev.stack import Addresses
from support.faults.processes import Processes
from support.kafka import Log
from support.waiting import until
from support.workers import Process, free_port

HOUR = 3600.0
AGE, MOMENT = "livedex_last_poll_age_seconds", "livedex_last_poll_timestamp_seconds"
LATE = 10.0  # seconds that a poll may be late on a busy machine


@pytest.fixture
def processes(stack: Addresses, database_url: str, tmp_path: Path) -> Iterator[Processes]:
    """Starts workers whose clock is wrong."""
    with Processes(stack, database_url, tmp_path) as starting:
        yield starting


def told(worker: Process, name: str) -> float | None:
    """A gauge; None while the worker does not answer, or has none."""
    try:
        text = worker.metrics().text
    except httpx.HTTPError:
        return None
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), None)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_wrong_clock_makes_no_poll_old(processes: Processes, log: Log, ahead: float) -> None:
    """A worker whose clock is an hour off tells that it polled a moment ago, however wrong the moment is that it names."""
    config = processes.config(log.topic())
    processes.apply(config)
    worker = processes.sabotaged([f"--clock={ahead}"], config)
    until(worker.ready, timeout=90, what="the worker to be ready")
    until(lambda: told(worker, MOMENT), what="a poll")
    for _ in range(5):
        age, moment = told(worker, AGE), told(worker, MOMENT)
        assert age is not None
        assert moment is not None
        assert 0 <= age < LATE
        assert abs(moment - time.time() - ahead) < LATE + age, "its clock must have been wrong"


def test_a_worker_that_never_polled_grows_old(processes: Processes, log: Log) -> None:
    """Before its first poll, here because no Postgres answers, a worker counts from its start; its clock changes nothing."""
    config = processes.config(log.topic())
    began = time.monotonic()
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    worker = processes.sabotaged([f"--clock={-HOUR}"], config, LIVEDEX_DATABASE_URL=nowhere)
    until(lambda: (told(worker, AGE) or 0.0) > 2.0, timeout=60, what="the age to rise")
    age = told(worker, AGE)
    assert age is not None
    assert age <= time.monotonic() - began
