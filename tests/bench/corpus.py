"""100,000 chunks of real text with real vectors: the documentation that the installed Python packages have in their sources.

One documentation string is one document, cut between paragraphs. Some documents lost their first line, which is a question
then, and the document its only answer. Vectors are made once and kept in the user's cache folder; on two cores that takes a
quarter of an hour.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livedex.config import DEFAULT_MODEL
from livedex.encoders import ModelSpec, open_encoder
from livedex.resources import cache_dir
from support.docstrings import QUESTION, SHORTEST, docstrings

NAME = "the documentation strings of installed Python packages"
CHUNKS = 100_000
ASKED = 12  # of 256 first lines that could be questions
LONGEST, TARGET = 1200, 500  # characters of a chunk
SLICE = 5_000  # chunks that are embedded before what there is so far is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A document."""

    name: str
    package: str
    chunks: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents, and questions with the document that answers each. No two chunks are equal."""

    texts: list[Text]
    questions: dict[str, str]

    @property
    def chunks(self) -> list[str]:
        """Of all documents, in their order."""
        return [chunk for text in self.texts for chunk in text.chunks]

    def vectors(self, say: Callable[[str], None] = lambda _: None) -> NDArray[np.float32]:
        """Of the chunks, of shape (chunks, dimension), rounded to what halfvec holds."""
        chunks, shelf = self.chunks, _Shelf(cache_dir() / "bench" / "vectors.npz")
        missing = [chunk for chunk in chunks if _digest(chunk) not in shelf.kept]
        encoder = open_encoder("auto", ModelSpec(model=DEFAULT_MODEL)) if missing else None
        for start in range(0, len(missing), SLICE):
            assert encoder is not None
            say(f"  vectors of {len(missing) - start:,} chunks are to be made, and kept for the next run")
            some = missing[start : start + SLICE]
            shelf.keep(some, encoder.encode_documents(some))
        return np.stack([shelf.kept[_digest(chunk)] for chunk in chunks]).astype(np.float32)


class _Shelf:
    """Vectors by the digest of their text, in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.kept: dict[bytes, NDArray[np.float16]] = {}
        if file.is_file():
            with np.load(file) as found:
                digests, vectors = found["digests"], found["vectors"]
            self.kept = {digest.tobytes(): vector for digest, vector in zip(digests, vectors, strict=True)}

    def keep(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep these too."""
        self.kept |= {_digest(text): vector for text, vector in zip(texts, vectors.astype(np.float16), strict=True)}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        with partial.open("wb") as stream:
            digests = np.frombuffer(b"".join(self.kept), np.uint8).reshape(-1, 32)
            np.savez(stream, digests=digests, vectors=np.stack(list(self.kept.values())))
        partial.replace(self._file)


def _digest(text: str) -> bytes:
    return hashlib.sha256(f"{DEFAULT_MODEL}\0{text}".encode()).digest()


def load(share: float = 1.0) -> Corpus:
    """`share` of it; the same where the same packages are installed."""
    texts, firsts, count = [], dict[str, str](), round(CHUNKS * share)
    # in an order that is random, and hardly another when some package is added
    drawn = sorted(docstrings(), key=lambda found: _digest(found[1]))
    summaries = Counter(string.partition("\n")[0] for _, string in drawn)
    seen: set[str] = set()
    for name, string in drawn:
        first, _, rest = string.partition("\n\n")
        asked = summaries[first] == 1 and QUESTION.fullmatch(first) and _digest(f"asked {first}")[0] < ASKED
        chunks = [chunk for chunk in dict.fromkeys(_cut(rest if asked else string)) if chunk not in seen]
        if not chunks:
            continue
        seen.update(chunks)
        texts.append(Text(name=name, package=name.partition("/")[0], chunks=chunks))
        if asked:
            firsts[first] = name
        if len(seen) >= count:
            break
    return Corpus(texts=texts, questions=firsts)


def _cut(string: str) -> Iterator[str]:
    """Paragraphs, as many at a time as make a chunk."""
    chunk = ""
    for paragraph in re.split(r"\n\s*\n", string):
        if chunk and len(chunk) + len(paragraph) > TARGET:
            yield from _of_length(chunk)
            chunk = ""
        chunk += ("\n\n" if chunk else "") + paragraph[:LONGEST]
    yield from _of_length(chunk)


def _of_length(chunk: str) -> Iterator[str]:
    if len(chunk) >= SHORTEST:
        yield chunk
