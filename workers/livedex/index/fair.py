"""A queue that serves its partitions in turn."""

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Gives out one item of each partition in turn, and those of a partition in their order, so that a hot partition makes no
    other one wait for more than one of its items. Not bounded: the worker bounds what is in flight.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()  # the partition whose turn it is comes first
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
            partition, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[partition] = items
            return item
