"""Finding what makes a batch fail: halve it until the culprits stand alone; and telling culprits from an outage."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E")


def isolate(items: Sequence[T], failure: Callable[[Sequence[T]], E | None]) -> Iterator[tuple[T, E]]:
    """Each item that fails alone, with its failure, in order. `failure` tries some items and says how they failed, if so.

    Of n items, k of which fail, about k log n tries are made; none of them fails only in company when nothing is found.
    """
    found = failure(items)
    if found is None:
        return
    if len(items) == 1:
        yield items[0], found
        return
    middle = len(items) // 2
    yield from isolate(items[:middle], failure)
    yield from isolate(items[middle:], failure)


class Streak:
    """Counts the items that failed one after another. A long streak means that not the items are at fault.

    An item that is tried again and fails again counts once, so that a lone culprit never becomes a streak.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed: set[Hashable] = set()

    def passed(self) -> None:
        """Something passed: what failed before was at fault itself."""
        self._failed.clear()

    def failed(self, item: Hashable) -> bool:
        """One more failed; True when that makes a streak."""
        self._failed.add(item)
        return len(self._failed) >= self._limit
