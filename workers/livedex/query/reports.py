"""What /v1/status and /v1/overview say, for any number of pages that ask every few seconds.

They count documents, so they are read rarely, by one thread at a time, over connections that no search needs, and whoever asks
meanwhile gets the same answer.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from livedex import status
from livedex.database import Connection, open_pool, translated
from livedex.query import overview
from livedex.query.access import Caller
from livedex.query.log_watch import LogWatch

KEPT = 8.0  # seconds that what counts documents is told again,
KEPT_PLACES = 1.0  # and what reads a few rows
SHARE = 0.1  # of the time that reading may take: what takes longer is kept longer
CONNECTIONS = 2
STATEMENT_TIMEOUT = "15s"  # the page waits for 20
T = TypeVar("T")


class Kept(Generic[T]):
    """A value that is read when somebody asks and it is old. Whoever asks while it is read waits for the same reading."""

    def __init__(self, read: Callable[[], T], seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Future[T] | None = None
        self._good_until = 0.0

    def get(self) -> T:
        """The value, or what reading it raised."""
        with self._lock:
            last = self._last
            mine: Future[T] | None = None
            if last is None or (last.done() and self._clock() >= self._good_until):
                last = self._last = mine = Future()
        if mine is not None:
            self._fill(mine)
        return last.result()

    def forget(self) -> None:
        """Read again for the next who asks."""
        with self._lock:
            self._last = None

    def _fill(self, mine: "Future[T]") -> None:
        began = self._clock()
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - told to all who wait
            with self._lock:
                self._good_until = 0.0
            mine.set_exception(error)
            return
        now = self._clock()
        with self._lock:
            self._good_until = now + max(self._seconds, (now - began) / SHARE)
        mine.set_result(value)


class Reports:
    """Reads them over a pool of its own, and tells each caller what it may see. Any number of threads may ask."""

    def __init__(self, url: str, name: str, watch: LogWatch) -> None:
        settings = {"statement_timeout": STATEMENT_TIMEOUT, "lock_timeout": "5s"}
        self.pool = open_pool(url, size=CONNECTIONS, name=f"{name}-status", settings=settings)
        self._watch = watch
        self._collections = Kept(self._reading(status.of_collections), KEPT)
        self._operations = Kept(self._reading(status.of_operations), KEPT)
        self._places = Kept(self._reading(overview.places), KEPT_PLACES)
        self._fresh = Kept(self._reading(overview.fresh), KEPT)

    def _reading(self, read: Callable[[Connection], T]) -> Callable[[], T]:
        def reading() -> T:
            with translated(), self.pool.connection() as connection:
                return read(connection)

        return reading

    def status(self, caller: Caller) -> dict[str, Any]:
        """See `read` of livedex.status; what is of all collections is read for operators only."""
        found = self._collections.get()
        if caller.operator:
            return {**found, **self._operations.get()}
        return {**status.only(found, caller.may_search), **status.UNTOLD}

    def overview(self, caller: Caller) -> dict[str, Any]:
        """See `told` of overview."""
        return overview.told(self._places.get(), self._fresh.get(), self._watch, caller)

    def forget_letters(self) -> None:
        """A dead letter was changed here: who did so must see that."""
        self._operations.forget()
