"""Waits for the event that a search has to come after. It looks again and again, and has neither a connection nor a thread
between two looks, and the looks of all take few: many searches may wait, and the others are answered as if none did.
"""

import time

import anyio

from livedex.errors import TimedOutError
from livedex.query.admission import BusyError
from livedex.query.searcher import Search, Searcher

FIRST_NAP, LONGEST_NAP, GROWTH = 0.001, 0.02, 1.3  # seconds, as livedex.wait_for does
LOOKS = 2  # at a time: each takes a connection that a search could have
LIMIT = 1000  # searches that may wait: one more would make the looks too rare for all


class NotSearchableError(TimedOutError):
    """The event did not become searchable in time: the index is behind, and no search was too slow."""

    code = "504-after"  # in the metrics: it counts against no objective of searches


class TooManyWaitError(BusyError):
    """So many wait for events: the index is behind, and no search was refused for want of room."""

    code = "429-after"


class Waiting:
    """Those who wait for events. For one event loop only."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._looks = anyio.CapacityLimiter(LOOKS)
        self._count = 0

    async def until_searchable(self, search: Search, deadline: float) -> None:
        """Return once its event is searchable, if it has one. NotSearchableError at `deadline` of time.perf_counter(),
        TooManyWaitError at once.
        """
        if search.after is None:
            return
        if self._count >= LIMIT:
            raise TooManyWaitError(
                f"{self._count} searches wait for events already and at most {LIMIT} may: ask again in a second"
            )
        self._count += 1
        try:
            with anyio.fail_after(deadline - time.perf_counter()):
                await self._look_again_and_again(search, deadline)
        except (TimeoutError, TimedOutError):  # between two looks, or when one was about to begin
            raise NotSearchableError(
                f"the event {search.after!r} was not searchable within {search.timeout:g} s: ask again later, or with a longer "
                "timeout"
            ) from None
        finally:
            self._count -= 1

    async def _look_again_and_again(self, search: Search, deadline: float) -> None:
        nap = FIRST_NAP
        while not await anyio.to_thread.run_sync(self._searcher.reached, search, deadline, limiter=self._looks):
            await anyio.sleep(nap)
            nap = min(nap * GROWTH, LONGEST_NAP)
