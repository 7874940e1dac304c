"""nDCG, recall and the reciprocal rank are those of trec_eval, on cases whose values are known."""

import math

import pytest

from livedex.core.quality import Quality, ndcg, quality, recall, reciprocal_rank, relevant

GRADES = {"a": 3, "b": 2, "c": 3, "d": 0, "e": 1, "f": 2}


def test_the_textbook_case() -> None:
    """Six documents of the grades 3 2 3 0 1 2, in this order: a gain of 6.861 of 7.141."""
    assert ndcg(list("abcdef"), GRADES) == pytest.approx(6.8611 / 7.1410, abs=1e-4)
    assert ndcg(list("cafbed"), GRADES) == 1


@pytest.mark.parametrize(
    ("ranking", "gain", "rank"),
    [(["a"], 1.0, 1.0), (["x", "a"], 1 / math.log2(3), 0.5), (["x"] * 10 + ["a"], 0.0, 0.0), ([], 0.0, 0.0)],
)
def test_the_only_answer(ranking: list[str], gain: float, rank: float) -> None:
    """It gains less the further down it stands, and nothing beyond the tenth place."""
    assert ndcg(ranking, {"a": 1}) == pytest.approx(gain)
    assert reciprocal_rank(ranking, {"a": 1}) == rank


def test_many_answers_fill_ten_places() -> None:
    """Ten relevant documents in ten places are as good as it gets, however many more there are."""
    grades = {str(number): 1 for number in range(50)}
    ranking = list(grades)[:10]
    assert ndcg(ranking, grades) == 1
    assert recall(ranking, grades, 10) == 0.2
    assert recall(list(grades), grades, 100) == 1


def test_a_negative_grade_counts_as_none() -> None:
    """As in trec_eval."""
    assert ndcg(["bad", "a"], {"bad": -2, "a": 1}) == ndcg(["x", "a"], {"a": 1})
    assert relevant({"bad": -2, "none": 0, "a": 1}) == {"a"}


def test_the_mean_over_queries() -> None:
    """Each query counts the same."""
    found = quality({"1": ["a"], "2": ["x"]}, {"1": {"a": 1}, "2": {"b": 1, "c": 2}}, depth=10)
    assert found == Quality(queries=2, ndcg=0.5, recall=0.5, mrr=0.5)
