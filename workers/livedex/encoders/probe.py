"""Whether two encoders give the same vectors, by trying: a few texts, embedded by both.

A generation keeps the probe of the encoder that made it. Another adapter, precision or server may write to it and ask it
only when its own probe agrees; see `Generation.check_probe`.
"""

import numpy as np

from livedex.encoders.port import Encoder, Vectors

#: The smallest cosine between the vectors of a text that counts as the same. bfloat16 keeps 0.99995, static int8 0.991.
TOLERANCE = 0.9999

# Short and long, prose, code and several scripts: what rounding and padding treat differently.
TEXTS = (
    "bread",
    "How do I reset my password?",
    "The partition was claimed by another worker, so the batch was refused and read again from the stored offset.",
    "```python\ndef greet(name: str) -> str:\n    return f'hello, {name}'\n```",
    "| city | inhabitants |\n|---|---|\n| Zürich | 443037 |\n| København | 667099 |\n| 東京 | 14178000 |",
    "Сначала читается журнал, затем пишется указатель. ثم تصبح الوثيقة قابلة للبحث. 最後に検索できます。",
    "Installing\n\n" + "First the archive is unpacked, then its checksum is compared with the published one. " * 6,
    "Chapter 7\n\n"
    + " ".join(f"Item {number} weighs {number * 37 % 101} grams and is kept on shelf {number % 9}." for number in range(14)),
)


def probe(encoder: Encoder) -> Vectors:
    """The vectors of TEXTS as documents; float32, shape (len(TEXTS), dimension)."""
    return encoder.encode_documents(TEXTS)


def agreement(found: Vectors, expected: Vectors) -> float:
    """The smallest cosine between vectors of the same text; 0 when they do not compare."""
    return float(cosines(found, expected).min())


def cosines(found: Vectors, expected: Vectors) -> Vectors:
    """Of each text, shape (len(TEXTS),). Vectors that differ in length count as turned as far as they miss."""
    if found.shape != expected.shape:
        return np.zeros(1, np.float32)
    error = np.linalg.norm(found - expected, axis=1) / np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float32).tiny)
    return np.asarray(1 - error**2 / 2, np.float32)  # of unit vectors this is the cosine, exactly


def to_bytes(vectors: Vectors) -> bytes:
    """A probe as it is kept: float32, little-endian, row by row."""
    return vectors.astype("<f4").tobytes()


def to_vectors(kept: bytes, dimension: int) -> Vectors:
    """A probe as it was given to `to_bytes`."""
    return np.frombuffer(kept, "<f4").reshape(-1, dimension).astype(np.float32)
