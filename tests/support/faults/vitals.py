"""What can be told of a worker from outside: it lives, it is bounded, and its gauges tell the truth (I9, I12)."""

import contextlib
import signal
import threading

import httpx
import psutil

from support.waiting import until
from support.workers import Process

RESIDENT = 1024 * 2**20  # bytes: above it, a worker has no bound


def lives(worker: Process) -> None:
    """I9: it has not ended by itself, and its memory is bounded."""
    assert worker.popen.poll() is None, f"I9 a worker ended with {worker.popen.returncode}: {worker.log()[-2000:]}"
    try:
        resident = psutil.Process(worker.popen.pid).memory_info().rss
    except psutil.NoSuchProcess:  # it ended a moment ago
        resident = 0
        worker.popen.wait(timeout=5)
    assert worker.popen.poll() is None, f"I9 a worker ended with {worker.popen.returncode}: {worker.log()[-2000:]}"
    assert resident < RESIDENT, f"I9 a worker has {resident / 2**20:.0f} MB resident"


def is_stopped(worker: Process) -> bool:
    """Whether SIGSTOP holds it."""
    assert worker.popen.poll() is None, worker.log()[-2000:]
    return psutil.Process(worker.popen.pid).status() == psutil.STATUS_STOPPED


def say_where(worker: Process) -> None:
    """Let a worker write into its log what each of its threads is doing; one that is stopped or gone says nothing."""
    if worker.popen.poll() is not None or is_stopped(worker):
        return
    before = len(worker.log())
    worker.popen.send_signal(signal.SIGUSR1)
    with contextlib.suppress(AssertionError):
        until(lambda: len(worker.log()) > before + 100, timeout=2, what="the worker to say where it is")


def waits_for(worker: Process, dependency: str) -> bool:
    """Whether it answers that it is not ready because of this dependency."""
    try:
        answer = httpx.get(f"{worker.address}/readyz", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and dependency in answer.json()["waiting_for"]


def gauge(worker: Process, name: str, **labels: str) -> float:
    """The sum of a metric's series now."""
    return worker.metrics().value(name, **labels)


def gauges_are_at_rest(worker: Process) -> None:
    """I12: when everything is applied, neither lag nor staleness is told."""
    for name in ("livedex_offset_lag", "livedex_staleness_seconds"):
        until(lambda: gauge(worker, name) == 0, timeout=10, what=f"I12 {name} to be 0 at rest")  # noqa: B023


def stall_is_told(worker: Process, *, seconds: float, timeout: float = 30) -> None:
    """I12: while nothing completes, staleness rises past `seconds`, and goes on rising."""
    name = "livedex_staleness_seconds"
    until(lambda: gauge(worker, name) > seconds, timeout=timeout, what=f"I12 staleness to rise above {seconds} s")
    first = gauge(worker, name)
    until(lambda: gauge(worker, name) > first, timeout=timeout, what=f"I12 staleness to rise above {first} s")


def lag_is_true(worker: Process, topic: str, behind: int, *, timeout: float = 10) -> None:
    """I12: the lag that the worker tells is the log's end minus the progress, as the harness counts it."""
    until(lambda: gauge(worker, "livedex_offset_lag", topic=topic) == behind, timeout=timeout, what=f"I12 a lag of {behind}")


class Peak:
    """The most memory that a process had resident."""

    def __init__(self, worker: Process) -> None:
        self._process = psutil.Process(worker.popen.pid)
        self.bytes = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak", daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, self._process.memory_info().rss)
