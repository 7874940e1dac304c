"""Whether cutting by content costs retrieval: known-item search with both ways of cutting, all else equal; and whether words
beside the vectors find more.

A heading is the question, and its document the only answer; in the document the heading says nothing any more. Documents are
ranked by their best chunk, all chunks are compared. No titles, no headings as context: only the cuts differ.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from bench.corpus import Text
from bench.direct import opened
from bench.figures import Figure
from bench.filling import fill
from bench.judging import DEPTH, fused, ndcg
from bench.part_chunks import Cutter
from bench.scene import Scene
from livedex.config import DEFAULT_MODEL
from livedex.database import connect, prepare
from livedex.encoders import Encoder, ModelSpec, open_encoder

PART = "quality"
QUESTIONS = 400
_HEADING = re.compile(r"^#{2,4} +(.{12,}?)\s*$", re.MULTILINE)


def measure(scene: Scene) -> Iterator[Figure]:
    """Both on the documents as they are after the snapshot."""
    questions, documents = judged(scene.events.documents, max(20, round(QUESTIONS * scene.events.share)))
    cutter, encoder = Cutter(), open_encoder("auto", ModelSpec(model=DEFAULT_MODEL))
    ours = _ndcg(encoder, questions, documents, lambda text: [found.text for found in cutter.cut(text)])
    theirs = _ndcg(encoder, questions, documents, cutter.split)
    yield Figure(
        part=PART, name=f"nDCG@{DEPTH}, cut by content against the recursive splitter", value=ours / theirs, unit="x", aim=0.99,
        detail=f"{ours:.3f} against {theirs:.3f}, {len(questions)} questions to {len(documents)} documents",
    )  # fmt: skip
    yield _fused(
        scene, encoder, questions, {name: [found.text for found in cutter.cut(text)] for name, text in documents.items()}
    )


def _fused(scene: Scene, encoder: Encoder, questions: Mapping[str, str], cut: Mapping[str, Sequence[str]]) -> Figure:
    """The same questions to Postgres: by meaning, by words, and by both."""
    seen: set[str] = set()
    texts = []
    for name, pieces in cut.items():
        own = [piece for piece in dict.fromkeys(pieces) if piece.strip() and piece not in seen]
        seen.update(own)
        texts.append(Text(name=name, package="", chunks=own))
    vectors = encoder.encode_documents([piece for text in texts for piece in text.chunks])
    with scene.database() as workers, opened(workers.database_url, 5) as direct, connect(workers.database_url) as connection:
        prepare(connection)
        fill(connection, direct.generation, texts, vectors)
        return fused(PART, ndcg(connection, questions, encoder.encode_queries(list(questions))), len(questions))


def judged(texts: Mapping[str, str], count: int) -> tuple[dict[str, str], dict[str, str]]:
    """(document by question, texts without these questions): headings that only one document has."""
    headings = {name: set(_HEADING.findall(text)) for name, text in texts.items()}
    times = Counter(heading for found in headings.values() for heading in found)
    unique = sorted((heading, name) for name, found in headings.items() for heading in found if times[heading] == 1)
    questions = dict(random.Random(5).sample(unique, min(count, len(unique))))
    asked = {name: {heading for heading in found if heading in questions} for name, found in headings.items()}
    return questions, {name: _without(text, asked[name]) for name, text in texts.items()}


def _without(text: str, headings: set[str]) -> str:
    # the mark of a heading stays, because both ways of cutting may look at it
    return _HEADING.sub(lambda found: found[0].replace(found[1], "Section") if found[1] in headings else found[0], text)


def _ndcg(
    encoder: Encoder, questions: Mapping[str, str], documents: Mapping[str, str], cut: Callable[[str], Sequence[str]]
) -> float:
    pieces = [(name, piece) for name, text in documents.items() for piece in cut(text) if piece.strip()]
    vectors = encoder.encode_documents([piece for _, piece in pieces])
    asked = encoder.encode_queries(list(questions))
    gains = []
    for scores, wanted in zip(asked @ vectors.T, questions.values(), strict=True):
        ranked = dict.fromkeys(pieces[row][0] for row in np.argsort(-scores, kind="stable"))
        place = list(ranked).index(wanted)
        gains.append(1 / math.log2(place + 2) if place < DEPTH else 0.0)
    return sum(gains) / len(gains)
