"""What fails in a batch is found by halving it, and what fails always is told from what fails by itself."""

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from livedex.core.isolate import Streak, isolate
from support.records import reproducible


@reproducible
@given(st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_exactly_the_culprits_are_found(count: int, culprits: set[int]) -> None:
    """In order, each once, with few tries when few fail."""
    tries = 0

    def failure(items: Sequence[int]) -> str | None:
        nonlocal tries
        tries += 1
        bad = [item for item in items if item in culprits]
        return f"{bad[0]} fails" if bad else None

    expected = [item for item in range(count) if item in culprits]
    assert list(isolate(range(count), failure)) == [(item, f"{item} fails") for item in expected]
    assert tries <= 1 + 2 * len(expected) * math.ceil(math.log2(max(count, 2)))


def test_what_fails_only_in_company_is_nobodys_fault() -> None:
    """The parts pass, so nothing is found."""
    assert list(isolate([1, 2], lambda items: "too much" if len(items) > 1 else None)) == []


def test_a_streak_is_of_different_items_with_none_that_passed() -> None:
    """The same one again does not count, and one that passed ends it."""
    streak = Streak(3)
    assert [streak.failed(item) for item in "aaab"] == [False] * 4
    streak.passed()
    assert [streak.failed(item) for item in "abbc"] == [False, False, False, True]
    assert streak.failed("a")
