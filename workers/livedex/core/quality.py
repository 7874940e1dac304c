"""How good rankings are beside what people judged: nDCG, recall and the reciprocal rank, counted as trec_eval does.

A document's grade is 0 for what is beside the point, higher for better; a document without one counts as 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEPTH = 10  # of nDCG and the reciprocal rank

Grades = Mapping[str, int]  # by document id


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Means over queries, each from 0 to 1."""

    queries: int
    ndcg: float  # at DEPTH
    recall: float  # at the depth that was asked for
    mrr: float  # at DEPTH


def quality(rankings: Mapping[str, Sequence[str]], judged: Mapping[str, Grades], *, depth: int) -> Quality:
    """Of rankings by query, best document first, without repetitions; each query must have a relevant document in `judged`.
    Recall is at `depth`.
    """
    count = len(rankings)
    pairs = [(ranking, judged[query]) for query, ranking in rankings.items()]
    return Quality(
        queries=count,
        ndcg=sum(ndcg(ranking, grades) for ranking, grades in pairs) / count,
        recall=sum(recall(ranking, grades, depth) for ranking, grades in pairs) / count,
        mrr=sum(reciprocal_rank(ranking, grades) for ranking, grades in pairs) / count,
    )


def relevant(grades: Grades) -> set[str]:
    """The documents that answer the query."""
    return {document for document, grade in grades.items() if grade > 0}


def ndcg(ranking: Sequence[str], grades: Grades) -> float:
    """The gain of the first DEPTH, each grade discounted by log2(rank + 1), as a share of what the best order would gain."""
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    found = [max(grades.get(document, 0), 0) for document in ranking]
    return _gain(found) / _gain(best)


def recall(ranking: Sequence[str], grades: Grades, depth: int) -> float:
    """The share of the relevant documents that is among the first `depth`."""
    wanted = relevant(grades)
    return len(wanted.intersection(ranking[:depth])) / len(wanted)


def reciprocal_rank(ranking: Sequence[str], grades: Grades) -> float:
    """1 / rank of the first relevant document; 0 when there is none among the first DEPTH."""
    wanted = relevant(grades)
    return next((1 / rank for rank, document in enumerate(ranking[:DEPTH], 1) if document in wanted), 0.0)


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:DEPTH], 1))
