"""Questions with their only answers, asked of a collection: how far above the others the answers stand."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

from bench.figures import Figure
from livedex.database import Connection

DEPTH = 10  # of nDCG
MODES = ("vector", "text", "hybrid")
SEARCH = """
select document_id from livedex.search_vector(%(vector)s::vector, query => %(text)s, k => %(k)s, mode => %(mode)s,
                                              timeout => '60 s')"""


def ndcg(connection: Connection, questions: Mapping[str, str], vectors: NDArray[np.float32]) -> dict[str, float]:
    """The mean nDCG@10 of each mode; `questions` are documents by question, `vectors` theirs, shape (questions, dimension)."""
    return {mode: _mean(connection, questions, vectors, mode) for mode in MODES}


def fused(part: str, found: Mapping[str, float], questions: int) -> Figure:
    """Whether words beside the vectors find more than these alone."""
    return Figure(
        part=part, name=f"nDCG@{DEPTH}, hybrid against vector", value=found["hybrid"] / found["vector"], unit="x", aim=1.0,
        detail=", ".join(f"{mode} {value:.3f}" for mode, value in found.items()) + f"; {questions} questions",
    )  # fmt: skip


def _mean(connection: Connection, questions: Mapping[str, str], vectors: NDArray[np.float32], mode: str) -> float:
    gains = []
    for (text, wanted), vector in zip(questions.items(), vectors, strict=True):
        arguments = {"vector": Vector(vector), "text": text, "k": DEPTH, "mode": mode}
        found = [row[0] for row in connection.execute(SEARCH, arguments).fetchall()]
        gains.append(1 / math.log2(found.index(wanted) + 2) if wanted in found else 0.0)
    return sum(gains) / len(gains)
