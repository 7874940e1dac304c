"""A queue that serves its partitions in turn."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Gives out one item of each partition in turn, and those of a partition in their order, so that a hot partition makes no
    other one wait for more than one of its items. Not bounded: the worker bounds what is in flight.

    `take` takes the item out of those that wait in a partition; it may be several that become one.
    """

    def __init__(self, take: Callable[[deque[T]], T] = deque.popleft) -> None:
        self._take = take
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()  # who waits longest for a turn comes first
        self._served: Hashable = None  # who had the last turn
        self._changed = threading.Condition()

    def put(self, partition: Hashable, item: T) -> None:
        """Add an item behind those of its partition."""
        with self._changed:
            self._waiting.setdefault(partition, deque()).append(item)
            self._changed.notify()

    def get(self) -> T:
        """The next item; waits for one."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            turn = (partition for partition in self._waiting if partition != self._served)
            self._served = partition = next(turn, self._served)  # nobody twice while another one waits
            return self._taken(partition)

    def other(self, than: Collection[Hashable]) -> T | None:
        """The next item of a partition that is none of these; None when none waits."""
        with self._changed:
            found = next((partition for partition in self._waiting if partition not in than), None)
            return None if found is None else self._taken(found)

    def _taken(self, partition: Hashable) -> T:
        items = self._waiting.pop(partition)
        item = self._take(items)
        if items:
            self._waiting[partition] = items
        return item
