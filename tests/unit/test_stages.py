"""What is kept in memory of chunks, and what it spares."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Target
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import ModelSpec
from livedex.index.encoding import cut
from livedex.index.recent import Recent
from support.batches import GENERATION


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
    recent: Recent[NDArray[np.float32]] = Recent(10)
    recent.put(1, {b"a": vector(1), b"b": vector(2)})
    recent.put(2, {b"a": vector(3)})
    assert numbers(recent.get(1, asked(b"a", b"b", b"c"))) == {b"a": 1, b"b": 2}
    assert numbers(recent.get(2, asked(b"a", b"b"))) == {b"a": 3}
    assert recent.get(3, asked(b"a")) == {}
    assert recent.get(1, {}) == {}


def test_the_oldest_are_forgotten() -> None:
    """The size bounds the memory over all generations, whatever one put brings."""
    recent: Recent[NDArray[np.float32]] = Recent(3)
    recent.put(1, {b"a": vector(1), b"b": vector(2)})
    recent.put(2, {b"c": vector(3), b"d": vector(4)})
    assert numbers(recent.get(1, asked(b"a", b"b"))) == {b"b": 2}
    assert numbers(recent.get(2, asked(b"c", b"d"))) == {b"c": 3, b"d": 4}
    recent.put(1, {str(n).encode(): vector(n) for n in range(10)})
    assert numbers(recent.get(1, asked(*(str(n).encode() for n in range(10))))) == {b"7": 7, b"8": 8, b"9": 9}
    assert recent.get(2, asked(b"c", b"d")) == {}


def test_what_is_used_is_kept() -> None:
    """Only what nobody asked for is forgotten: a document that is edited again and again stays."""
    recent: Recent[int] = Recent(2)
    recent.put(1, {b"a": 1, b"b": 2})
    assert recent.get(1, [b"a"]) == {b"a": 1}
    recent.put(1, {b"c": 3})
    assert recent.get(1, [b"a", b"b", b"c"]) == {b"a": 1, b"c": 3}


def test_a_size_of_nothing_keeps_nothing() -> None:
    """The answer is always what is kept."""
    recent: Recent[NDArray[np.float32]] = Recent(0)
    recent.put(1, {b"a": vector(1)})
    assert recent.get(1, asked(b"a")) == {}


class Counting(HashEncoder):
    """Remembers of which texts it was asked to count tokens."""

    def __init__(self) -> None:
        super().__init__(ModelSpec(model="hash-4"))
        self.asked: list[str] = []

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:
        """See Encoder."""
        self.asked += texts
        return super().count_tokens(texts, stopped=stopped)


def test_of_an_edited_text_only_what_changed_is_counted() -> None:
    """The chunks are those that a cut without a memory makes, and tokens of chunks that stayed are not counted again."""
    paragraphs = [f"Paragraph {number} says something. " * 12 for number in range(30)]
    before = "\n\n".join(paragraphs)
    after = before.replace("Paragraph 15 says", "Paragraph 15, which was edited, says", 1)
    encoder, counts = Counting(), Recent[int](1000)
    target = Target(generation=GENERATION, encoder=encoder)

    def chunks(text: str, counts: Recent[int] | None) -> list[str]:
        found = cut(text, title="A title", markdown=False, target=target, stopped=lambda: False, counts=counts)
        return [chunk.text for chunk in found]

    chunks(before, counts)
    assert len(encoder.asked) > 20
    encoder.asked.clear()
    remembered = chunks(after, counts)
    assert 1 <= len(encoder.asked) <= 3, encoder.asked
    assert remembered == chunks(after, None)
