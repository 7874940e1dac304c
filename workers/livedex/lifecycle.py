"""The life of a worker: asked to stop by a signal, waiting for what is down, ready or not, and its end."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from prometheus_client import Gauge

from livedex.core.backoff import backoff
from livedex.errors import ConflictError, UnavailableError
from livedex.observe import logger

T = TypeVar("T")

GRACE = 7.0  # seconds from a signal to the end of the process
_log = logger("lifecycle")


class Stop:
    """Whether the worker was asked to stop, and by what."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    @property
    def asked(self) -> bool:
        """Whether the stop was asked for."""
        return self._event.is_set()

    def ask(self, reason: str) -> None:
        """Ask for the stop; asking again changes nothing."""
        if not self.asked:
            self.reason = reason
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until the stop; True when it was asked for."""
        return self._event.wait(seconds)

    def on_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, at the latest after GRACE seconds. Only the main thread may call this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._caught)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self.asked:
            # whatever a library is busy with, a model's load or a connect: nothing is lost by leaving it
            timer = threading.Timer(GRACE, leave, (0,))
            timer.daemon = True
            timer.start()
        self.ask(signal.Signals(number).name)


class Health:
    """Which dependencies answer. A worker is ready when all do; each change is one log line and a gauge."""

    def __init__(self, gauge: Gauge, *dependencies: str) -> None:
        self._gauge = gauge
        self._lock = threading.Lock()
        self._up: dict[str, bool | None] = dict.fromkeys(dependencies)  # None: never heard of
        self._failing: dict[str, str] = {}  # what fails for a reason that waiting does not mend, and why
        for dependency in dependencies:
            gauge.labels(dependency).set(0)

    def up(self, dependency: str) -> None:
        """The dependency answered."""
        self._set(dependency, answers=True, why="")

    def down(self, dependency: str, why: object) -> None:
        """The dependency failed; `why` goes to the log once."""
        self._set(dependency, answers=False, why=str(why))

    def _set(self, dependency: str, *, answers: bool, why: str) -> None:
        with self._lock:
            changed = self._up.get(dependency) is not answers
            self._up[dependency] = answers
        self._gauge.labels(dependency).set(answers)
        if changed and answers:
            _log.info("dependency.up", dependency=dependency)
        elif changed:
            _log.warning("dependency.down", dependency=dependency, why=why)

    def fails(self, what: str, why: object) -> None:
        """Something fails and will until an operator acts: said once, loudly, and the worker is not ready meanwhile."""
        with self._lock:
            new = self._failing.get(what) != str(why)
            self._failing[what] = str(why)
        if new:
            _log.error("work.fails", what=what, why=str(why))

    def works(self, what: str) -> None:
        """It works again, or is nobody's business here any more."""
        with self._lock:
            failed = self._failing.pop(what, None)
        if failed is not None:
            _log.info("work.works", what=what)

    @property
    def waiting_for(self) -> list[str]:
        """The dependencies that do not answer and what fails otherwise, by name."""
        with self._lock:
            return sorted([*(name for name, answers in self._up.items() if not answers), *self._failing])

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Notice an UnavailableError that passes."""
        try:
            yield
        except UnavailableError as error:
            self.down(error.dependency, error)
            raise


def until_available(work: Callable[[], T], *, stop: Stop, health: Health, jitter: Callable[[], float]) -> T | None:
    """The result of `work`, tried again as long as a dependency is down or in use; None when the stop came first."""
    attempt = 0
    while not stop.asked:
        try:
            with health.watch():
                return work()
        except (UnavailableError, ConflictError):  # a migration may hold what is read at the start
            attempt += 1
            stop.wait(backoff(attempt, jitter()))
    return None


def leave(code: int) -> NoReturn:
    """End the process now: threads inside a model or a driver must not delay the exit, nor crash in the interpreter's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
