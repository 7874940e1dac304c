"""A limit on how many threads do something at a time, in the order in which they came: a thread that comes back at once may
get past a semaphore again and again, before those that wait.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from livedex.encoders.port import EncodingStopped

TICK = 0.1  # seconds between two looks at whether to stop


class Places:
    """So many places."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()  # set: a place was handed over

    @contextmanager
    def one(self, deadline: float, stopped: Callable[[], bool]) -> Iterator[None]:
        """Have a place while inside. TimeoutError when there is none until the deadline (monotonic), EncodingStopped."""
        self._take(deadline, stopped)
        try:
            yield
        finally:
            self._give()

    def _take(self, deadline: float, stopped: Callable[[], bool]) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        while not turn.wait(min(TICK, max(0.0, deadline - time.monotonic()))):
            stop = stopped()
            if stop or time.monotonic() >= deadline:
                self._withdraw(turn)
                raise EncodingStopped if stop else TimeoutError

    def _withdraw(self, turn: threading.Event) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self._give()  # it was handed over meanwhile

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
