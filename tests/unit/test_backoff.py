"""Pauses between tries: they grow, end at ten seconds, and are spread."""

import itertools

from livedex.core.backoff import FIRST, LONGEST, backoff


def test_pauses_double_up_to_the_longest() -> None:
    """From an eighth of a second at least, and never above ten however many failures."""
    ceilings = [backoff(attempt, 1.0) for attempt in range(1, 12)]
    assert ceilings[:6] == [FIRST * 2**n for n in range(6)]
    assert all(shorter <= longer for shorter, longer in itertools.pairwise(ceilings))
    assert ceilings[-1] == backoff(10**6, 1.0) == LONGEST


def test_jitter_spreads_over_the_upper_half() -> None:
    """Workers that failed together do not come back together, and none comes back at once."""
    for attempt in (1, 4, 100):
        assert backoff(attempt, 0.0) == backoff(attempt, 1.0) / 2
        assert backoff(attempt, 0.0) < backoff(attempt, 0.5) < backoff(attempt, 1.0)
