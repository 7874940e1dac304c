"""Walks through JSON that may be nested too deep to be trusted."""

from collections.abc import Iterator
from typing import Any


def walk(value: Any) -> Iterator[tuple[int, str]]:
    """(depth, string) of every string and key inside, and (depth, "") of every container, without recursion."""
    waiting: list[tuple[int, Any]] = [(1, value)]
    while waiting:
        depth, part = waiting.pop()
        if isinstance(part, str):
            yield depth - 1, part
        elif isinstance(part, dict):
            yield depth, ""
            waiting.extend((depth + 1, inner) for pair in part.items() for inner in pair)
        elif isinstance(part, list):
            yield depth, ""
            waiting.extend((depth + 1, inner) for inner in part)
