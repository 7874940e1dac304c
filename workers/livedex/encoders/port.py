"""What an encoder is, for the index worker and the query worker alike, and how one is opened.

Vectors are float32, shape (len(texts), dimension), in the order of the texts; L2-normalised when the metric is cosine.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


#: auto: the fastest that gives the model's own vectors. int8 loses some of the ranking.
Precision = Literal["auto", "int8"]


def normalised(vectors: Vectors) -> Vectors:
    """The vectors with length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def shaped(vectors: Vectors, dimension: int, *, normalise: bool) -> Vectors:
    """The vectors cut to their first numbers, as models that were trained for it (Matryoshka) allow; normalised if wanted."""
    cut = np.ascontiguousarray(vectors[:, :dimension])
    return normalised(cut) if normalise else cut


def dimension_of(whole: int, wanted: int | None) -> int:
    """How many of a model's `whole` numbers are kept, where so many are wanted: all, where it has no more."""
    return min(whole, wanted or whole)


_NO_MEMORY = re.compile(r"out of memory|allocate memory|bad.?alloc", re.IGNORECASE)


def no_memory(error: Exception) -> bool:
    """Whether a model's library had no memory: each says so in its own way."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


class EncodingStopped(Exception):  # noqa: N818 - not an error: it was asked for
    """Encoding was given up between two batches, because the caller said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a collection says of its model. A prompt of None means the model's own."""

    model: str
    query_prompt: str | None = None
    document_prompt: str | None = None
    normalise: bool = True
    dimension: int | None = None  # the first so many numbers of each vector; None: all
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes two encoders give the same vectors; a generation pins it."""

    encoder: str  # the adapter: torch, openvino, hash
    precision: str  # f32, bf16, int8
    model: str
    revision: str  # digest of the model's files
    dimension: int
    max_tokens: int  # that the model reads of one text, special tokens and prompt included
    query_prompt: str
    document_prompt: str


class Encoder(Protocol):
    """An opened model. Methods may be called from any thread, one call at a time is fastest."""

    @property
    def identity(self) -> Identity:
        """What pins this encoder."""
        ...

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:
        """How many tokens the model would read of each text, as a document, with prompt and special tokens. Raises
        EncodingStopped soon after `stopped()` became true, where that takes long.
        """
        ...

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """Vectors of texts that are searched. Raises EncodingStopped soon after `stopped()` became true."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts that search."""
        ...
