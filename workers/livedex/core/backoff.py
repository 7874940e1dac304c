"""How long to wait before the next try."""

FIRST = 0.25  # seconds
LONGEST = 10.0  # seconds: a healed dependency is used again within this time


def backoff(attempt: int, jitter: float) -> float:
    """Seconds to wait after failure number `attempt` (from 1); `jitter` in [0, 1) spreads many workers apart."""
    ceiling: float = min(LONGEST, FIRST * 2 ** min(attempt - 1, 16))
    return ceiling * (0.5 + jitter / 2)
