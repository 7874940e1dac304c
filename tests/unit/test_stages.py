"""The vectors that are kept in memory for batches in flight."""

import numpy as np
from numpy.typing import NDArray

from livedex.index.recent import RecentVectors


def vector(number: float) -> NDArray[np.float32]:
    """One that can be told from others."""
    return np.array([number, 1.0], np.float32)


def numbers(vectors: dict[bytes, NDArray[np.float32]]) -> dict[bytes, float]:
    """The first component of each."""
    return {digest: float(found[0]) for digest, found in vectors.items()}


def asked(*digests: bytes) -> dict[bytes, None]:
    """A mapping with these keys."""
    return dict.fromkeys(digests)


def test_what_was_put_is_found_by_generation() -> None:
    """The same chunk has other vectors in another generation; what is not there is not in the answer."""
    recent = RecentVectors(10)
    recent.put(1, {b"a": vector(1), b"b": vector(2)})
    recent.put(2, {b"a": vector(3)})
    assert numbers(recent.get(1, asked(b"a", b"b", b"c"))) == {b"a": 1, b"b": 2}
    assert numbers(recent.get(2, asked(b"a", b"b"))) == {b"a": 3}
    assert recent.get(3, asked(b"a")) == {}
    assert recent.get(1, {}) == {}


def test_the_oldest_are_forgotten() -> None:
    """The size bounds the memory over all generations, whatever one put brings."""
    recent = RecentVectors(3)
    recent.put(1, {b"a": vector(1), b"b": vector(2)})
    recent.put(2, {b"c": vector(3), b"d": vector(4)})
    assert numbers(recent.get(1, asked(b"a", b"b"))) == {b"b": 2}
    assert numbers(recent.get(2, asked(b"c", b"d"))) == {b"c": 3, b"d": 4}
    recent.put(1, {str(n).encode(): vector(n) for n in range(10)})
    assert numbers(recent.get(1, asked(*(str(n).encode() for n in range(10))))) == {b"7": 7, b"8": 8, b"9": 9}
    assert recent.get(2, asked(b"c", b"d")) == {}


def test_a_size_of_nothing_keeps_nothing() -> None:
    """The answer is always what is kept."""
    recent = RecentVectors(0)
    recent.put(1, {b"a": vector(1)})
    assert recent.get(1, asked(b"a")) == {}
