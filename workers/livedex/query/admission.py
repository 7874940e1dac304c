"""How many searches are worked on at once, how many may wait for their turn, and when one more is refused.

A search that waits costs neither a thread nor a connection. One whose deadline passes meanwhile is dropped unserved: whoever
asked has gone, and the time is better spent on those who have not.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Gauge

from livedex.errors import LivedexError, TimedOutError


class BusyError(LivedexError):
    """So many searches wait that one more would only make all late."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A place in the queue of one request."""

    turn: asyncio.Future[None]
    size: int  # searches


class Admission:
    """Slots, and the queue for them. For one event loop only."""

    def __init__(self, slots: int, queue: int, waiting: Gauge) -> None:
        self._slots = slots
        self._limit = queue  # searches that may wait
        self._gauge = waiting
        self._free = slots
        self._queue: deque[_Place] = deque()
        self._waiting = 0  # searches in the queue

    @asynccontextmanager
    async def slot(self, deadline: float, size: int = 1) -> AsyncIterator[None]:
        """Hold a slot, waiting for it until `deadline` of time.perf_counter(): TimedOutError. BusyError when the queue is full.

        A request of several searches takes one slot, and as many places in the queue as it has searches; one with more than
        the queue is long waits in an empty queue only.
        """
        if self._free and not self._queue:
            self._free -= 1
        else:
            await self._turn(deadline, size)
        try:
            yield
        finally:
            self._free += 1
            self._admit()

    async def _turn(self, deadline: float, size: int) -> None:
        taken = min(size, self._limit)
        if not self._limit or self._waiting + taken > self._limit:
            raise BusyError(
                f"{self._waiting} searches wait already and at most {self._limit} may: ask again in a second, or raise "
                "LIVEDEX_HTTP_QUEUE"
            )
        place = _Place(asyncio.get_running_loop().create_future(), taken)
        self._queue.append(place)
        self._count(taken)
        try:
            async with asyncio.timeout(deadline - time.perf_counter()):
                await place.turn
        except BaseException as error:
            self._leave(place)
            if isinstance(error, TimeoutError):
                raise TimedOutError(
                    "the deadline passed before the search's turn came: ask again later, or with a longer timeout"
                ) from None
            raise

    def _leave(self, place: _Place) -> None:
        """Out of the queue, or give the slot back that came this moment."""
        if place in self._queue:
            self._queue.remove(place)
            self._count(-place.size)
        elif place.turn.done() and not place.turn.cancelled():
            self._free += 1
        self._admit()

    def _admit(self) -> None:
        while self._free and self._queue:
            place = self._queue.popleft()
            self._count(-place.size)
            if not place.turn.done():
                self._free -= 1
                place.turn.set_result(None)

    def _count(self, change: int) -> None:
        self._waiting += change
        self._gauge.set(self._waiting)
