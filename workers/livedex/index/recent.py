"""The vectors made last, in memory."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class RecentVectors:
    """The vectors made last. A batch that is read again after a failure, or that shares chunks with one still in flight, finds
    here what the database does not show yet.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[tuple[int, bytes], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, generation_id: int, digests: Mapping[bytes, object]) -> dict[bytes, NDArray[np.float32]]:
        """Those of the digests' vectors that are kept."""
        with self._lock:
            found = {digest: self._vectors.get((generation_id, digest)) for digest in digests}
        return {digest: vector for digest, vector in found.items() if vector is not None}

    def put(self, generation_id: int, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep these, and forget the oldest above the size."""
        with self._lock:
            for digest, vector in vectors.items():
                self._vectors[generation_id, digest] = vector
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
