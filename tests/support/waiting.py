"""Wait for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, timeout: float = 30.0, what: str = "the condition") -> T:
    """The first true value of `condition`; AssertionError that shows the last one when it stays false."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s, last seen: {value!r}"
        time.sleep(0.01)
