"""livedex with metrics that are timed: the processor time that goes into them, which on against off cannot tell from the noise.

It writes to the file BENCH_CLOCK the seconds that updates took so far, with the look-ups of their labels. To read the clock
takes about as long as an update itself, so that this is an upper bound.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

TOLD_EVERY = 0.2  # seconds
TIMED = ((Counter, ("labels", "inc")), (Gauge, ("labels", "set", "inc", "dec")), (Histogram, ("labels", "observe")))


class Clock:
    """Adds up the processor time of whatever it wraps, in every thread; what is wrapped and calls another counts once."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._threads: list[Any] = []

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def run(*arguments: Any, **named: Any) -> Any:
            own = self._own
            if getattr(own, "inside", False):
                return function(*arguments, **named)
            own.inside, started = True, time.thread_time_ns()
            try:
                return function(*arguments, **named)
            finally:
                own.inside = False
                self._spent()[0] += time.thread_time_ns() - started

        return run

    def seconds(self) -> float:
        """In all so far."""
        return float(sum(spent[0] for spent in self._threads) / 1e9)

    def _spent(self) -> list[int]:
        if not hasattr(self._own, "spent"):
            self._own.spent = [0]
            self._threads.append(self._own.spent)
        spent: list[int] = self._own.spent
        return spent


def main() -> None:
    """The command line of livedex."""
    from livedex.cli import main as run

    updates = Clock()
    for kind, names in TIMED:
        for name in names:
            setattr(kind, name, updates.timed(getattr(kind, name)))
    told = Path(os.environ["BENCH_CLOCK"])

    def tell() -> None:
        while True:  # a worker that was told to stop ends without saying more
            written = told.with_suffix(".new")
            written.write_text(str(updates.seconds()))
            written.replace(told)
            time.sleep(TOLD_EVERY)

    threading.Thread(target=tell, name="clock", daemon=True).start()
    run()


if __name__ == "__main__":
    main()
