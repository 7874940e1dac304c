"""What `livedex status` says is wrong, and in which words."""

from typing import Any

import pytest

from livedex.core.standing import LATE, problems, summary

OWNER = "host-1-abcdef"
INDEX = {"state": "ready", "problem": None}


def source(**more: Any) -> dict[str, Any]:
    """A partition with a live owner that is caught up."""
    return {
        "topic": "t",
        "partition": 0,
        "state": "live",
        "reason": None,
        "owner": OWNER,
        "lag": 0,
        "staleness_seconds": 0.0,
        **more,
    }


def collection(**more: Any) -> dict[str, Any]:
    """One without a fault."""
    return {"collection": "c", "generation": 1, "index": INDEX, "generations": [], **more}


def standing(**more: Any) -> dict[str, Any]:
    """Everything in order, but for what is given."""
    worker = {"worker": OWNER, "kind": "index", "connected": True}
    usual: dict[str, Any] = {
        "sources": [source()],
        "collections": [collection()],
        "dead_letters": {},
        "workers": [worker],
        "log": None,
    }
    return {**usual, **more}


def test_nothing_is_wrong() -> None:
    """It is said so, and that events are on their way where some are."""
    found = standing()
    assert problems(found) == []
    assert summary(found, []) == "all caught up"
    moving = standing(sources=[source(lag=7, staleness_seconds=LATE)])
    assert problems(moving) == []
    assert summary(moving, []) == "nothing is wrong; 7 events are on their way"


GONE: dict[str, Any] = {"workers": []}
LOOK = "see its log, and /readyz of its metrics port"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("behind, gone", {"sources": [source(partition=1, lag=9, staleness_seconds=240.0)], **GONE},
     "topic t partition 1 is 4 min behind (9 events) and has no owner: start livedex index"),
    ("behind, owned", {"sources": [source(lag=9, staleness_seconds=LATE + 1)]},
     f"topic t partition 0 is 31 s behind (9 events), and its owner {OWNER} is connected: {LOOK}"),
    ("behind, others there", {"sources": [source(lag=1, staleness_seconds=7300.0, owner="other")]},
     "topic t partition 0 is 2 h behind (1 events) and has no owner: the index workers have not taken it over yet"),
    ("behind, since when unknown", {"sources": [source(lag=3, staleness_seconds=None)], **GONE},
     "topic t partition 0 is behind (3 events) and has no owner: start livedex index"),
    ("gone", GONE, "topic t partition 0 has no owner: start livedex index"),
    ("gone for days", {"sources": [source(lag=3, staleness_seconds=300_000.0)], **GONE},
     "topic t partition 0 is 3 days behind (3 events) and has no owner: start livedex index"),
    ("never read", {"sources": [source(partition=None, owner=None, lag=None, staleness_seconds=None)], **GONE},
     "topic t is not read yet: start livedex index"),
    ("stopped", {"sources": [source(state="stopped", reason="it was made anew")]}, "topic t is stopped: it was made anew"),
    ("no source", {"sources": []}, "no topic is followed: run livedex apply"),
    ("no kafka", {"log": "kafka does not answer: x"}, "kafka does not answer: x: lag and staleness are unknown"),
    ("no generation", {"collections": [collection(generation=None, index=None)]},
     "collection c has no active generation: run livedex apply"),
    ("invalid index", {"collections": [collection(index={"state": "invalid", "problem": None})]},
     "the index of c is invalid, so that searches compare all vectors: an index worker builds it again"),
    ("problem of the upkeep", {"collections": [collection(index={"state": "none", "problem": "it lacks memory"})]},
     "index of c: it lacks memory"),
    ("failed generation", {"collections": [collection(generations=[{"state": "failed", "generation": 2, "reason": "x"}])]},
     "generation 2 of c failed, because of x: livedex generation drop it"),
    ("dead letters", {"dead_letters": {"schema": 2, "invalid-json": 1}},
     "dead letters are open (invalid-json 1, schema 2): livedex dead-letters list"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_each_fault_has_its_sentence(more: dict[str, Any], says: str) -> None:
    """With what it is about and what to do."""
    found = standing(**more)
    assert problems(found) == [says]
    assert summary(found, [says]) == says


def test_the_worst_comes_first_and_is_the_summary() -> None:
    """The partition that is furthest behind, before the others, dead letters last."""
    rows = [source(partition=number, lag=1, staleness_seconds=seconds) for number, seconds in enumerate((60.0, 600.0, 0.0))]
    found = standing(sources=rows, dead_letters={"schema": 1})
    wrong = problems(found)
    assert [sentence.split(" is ")[0] for sentence in wrong[:2]] == ["topic t partition 1", "topic t partition 0"]
    assert wrong[-1].startswith("dead letters")
    assert summary(found, wrong) == f"{wrong[0]} (and 2 more)"


def test_what_a_caller_may_not_know_is_no_fault() -> None:
    """A status that leaves workers and dead letters out says nothing of dead letters."""
    assert not any("dead" in sentence for sentence in problems(standing(dead_letters=None, workers=None)))
