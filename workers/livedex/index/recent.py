"""What was made of chunks last, in memory: so that it is not made again."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """What was used last, by generation and digest. Its methods may be called from any thread.

    Of vectors: a batch that is read again after a failure, or that shares chunks with one still in flight, finds here what the
    database does not show yet. Of numbers of tokens: of a document that was edited, only what changed is counted.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[int, bytes], T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, generation_id: int, digests: Iterable[bytes]) -> dict[bytes, T]:
        """What is kept of these digests."""
        found: dict[bytes, T] = {}
        with self._lock:
            for digest in digests:
                if (generation_id, digest) in self._kept:
                    found[digest] = self._kept[generation_id, digest]
                    self._kept.move_to_end((generation_id, digest))
        return found

    def put(self, generation_id: int, made: Mapping[bytes, T]) -> None:
        """Keep these, and forget above the size what was not used for the longest time."""
        with self._lock:
            for digest, each in made.items():
                self._kept[generation_id, digest] = each
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
