"""How many chunks are embedded: for an edit of one sentence, and for each change of the stream, one event after another.

By livedex's own chunker and its rule (what has a vector already is not embedded), and by the rules of the other two. Counted,
not timed; and how fast the chunker cuts.
"""

import random
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from semantic_text_splitter import TextSplitter

from bench.baseline import CHARACTERS
from bench.events import Event, edited
from bench.figures import Figure, timed
from bench.scene import Scene
from livedex.config import DEFAULT_MODEL
from livedex.core.chunking import Chunk, ChunkingSpec, TokenCounter, chunk
from livedex.encoders.models import find_model

PART = "chunks"
MAX_TOKENS = 256  # that all-MiniLM-L6-v2 reads
CHARACTERS_PER_TOKEN = 4  # about
EDITS = 3  # of each document, one after another


def measure(scene: Scene) -> Iterator[Figure]:
    """Edits of the documents as they are after the snapshot, then the changes of the stream."""
    cutter = Cutter()
    yield from _edits(cutter, list(scene.events.documents.values()))
    yield from _changes(cutter, scene.events.snapshot, scene.events.changes)
    yield _speed(list(scene.events.documents.values()))


class Cutter:
    """Both ways of cutting."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(find_model(DEFAULT_MODEL) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._splitter = TextSplitter(CHARACTERS)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens that the model reads of each."""
        return [len(found.ids) for found in self._tokenizer.encode_batch_fast(list(texts))]

    def cut(self, text: str) -> tuple[Chunk, ...]:
        """As livedex does, without a title."""
        return _cut(text, self.count)

    def split(self, text: str) -> list[str]:
        """As the other pipelines do."""
        return list(self._splitter.chunks(text))


def _cut(text: str, count: TokenCounter) -> tuple[Chunk, ...]:
    return chunk(text, title=None, markdown=True, spec=ChunkingSpec(), count_tokens=count, max_tokens=MAX_TOKENS)


def _speed(documents: Sequence[str]) -> Figure:
    megabytes = sum(len(text.encode()) for text in documents) / 1e6

    def cut_all() -> None:
        for text in documents:
            _cut(text, lambda texts: [len(one) // CHARACTERS_PER_TOKEN for one in texts])

    seconds = statistics.median(timed(cut_all) for _ in range(5))
    return Figure(
        part=PART, name="cutting Markdown, without counting its tokens", value=megabytes / seconds, unit="MB/s", aim=5,
        detail=f"{megabytes:.1f} MB in {len(documents)} documents; median of 5",
    )  # fmt: skip


def _edits(cutter: Cutter, documents: Sequence[str]) -> Iterator[Figure]:
    choose = random.Random(3)
    versions = [_versions(text, choose) for text in documents]
    chunks = [cutter.cut(text) for text in documents]
    sizes = cutter.count([found.embedded_text for cut in chunks for found in cut])
    ours, within, every = 0, 0, 0
    for texts in versions:
        for before, after in pairwise(texts):
            ours += len({c.digest for c in cutter.cut(after)} - {c.digest for c in cutter.cut(before)})
            within += len(set(cutter.split(after)) - set(cutter.split(before)))
            every += len(cutter.split(after))
    edits = EDITS * len(documents)
    yield Figure(
        part=PART, name="chunks embedded per one-sentence edit", value=ours / edits, aim=1.5, better="less",
        detail=f"{edits} edits of {len(documents)} documents; recursive splitter: {within / edits:.2f} with hashes, "
        f"{every / edits:.1f} without",
    )  # fmt: skip
    yield Figure(
        part=PART, name="mean size of a chunk", value=sum(sizes) / len(sizes), unit="tokens", aim=120,
        detail=f"120 to 200 are wanted; {len(sizes)} chunks",
    )  # fmt: skip
    yield Figure(part=PART, name="largest chunk", value=max(sizes), unit="tokens", aim=MAX_TOKENS, better="less")


def _versions(text: str, choose: random.Random) -> list[str]:
    texts = [text]
    for _ in range(EDITS):
        texts.append(edited(texts[-1], choose))
    return texts


def _changes(cutter: Cutter, snapshot: Sequence[Event], changes: Sequence[Event]) -> Iterator[Figure]:
    ours, naive, within = 0, 0, 0
    known = {c.digest for event in snapshot if event["op"] == "upsert" for c in cutter.cut(event["text"])}
    documents = {event["id"]: set(cutter.split(event["text"])) for event in snapshot if event["op"] == "upsert"}
    for event in changes:
        if event["op"] != "upsert":
            documents.pop(event["id"], None)
            continue
        new = {c.digest for c in cutter.cut(event["text"])} - known
        known |= new
        ours += len(new)
        pieces = cutter.split(event["text"])
        naive += len(pieces)
        within += len(set(pieces) - documents.get(event["id"], set()))
        documents[event["id"]] = set(pieces)
    detail = f"{len(changes)} changes: {ours} chunks, against"
    yield Figure(
        part=PART, name="chunks of the changes one by one: fewer than naive", value=naive / ours, unit="x", aim=6,
        detail=f"{detail} {naive}",
    )  # fmt: skip
    yield Figure(
        part=PART, name="chunks of the changes one by one: fewer than reuse within a document", value=within / ours, unit="x",
        aim=2.2, detail=f"{detail} {within}",
    )  # fmt: skip
