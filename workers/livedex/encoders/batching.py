"""Batches of texts of like length. Padding is the enemy: a batch costs as much as its longest text times its size."""

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of texts in batches of like length, longest first: size times longest is at most `budget`, or size is 1."""
    by_length = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(by_length):
        size = max(1, budget // max(1, lengths[by_length[start]]))
        yield by_length[start : start + size]
        start += size
