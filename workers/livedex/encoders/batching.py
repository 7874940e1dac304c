"""Tokens of texts, and batches of texts of like length. Padding is the enemy: a batch costs as much as its longest text times
its size. A little of it is worth having, where a graph prepares itself for each new shape of its input.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH_STEP = 16  # tokens
TEXTS_PER_PART = 256  # an encoding takes a hundred times its text's memory


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """How many tokens a `tokenizers.Tokenizer` makes of each text."""
    return [len(encoding.ids) for encoding in _encodings(tokenizer, texts)]


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The ids of the tokens that a `tokenizers.Tokenizer` makes of each text."""
    return [np.array(encoding.ids, np.int32) for encoding in _encodings(tokenizer, texts)]


def _encodings(tokenizer: Any, texts: Sequence[str]) -> Iterator[Any]:
    """The encoding of each text; those of a part are alive at a time."""
    for start in range(0, len(texts), TEXTS_PER_PART):
        yield from tokenizer.encode_batch_fast(list(texts[start : start + TEXTS_PER_PART]))


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of texts in batches of like length, longest first: size times longest is at most `budget`, or size is 1."""
    by_length = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(by_length):
        size = max(1, budget // max(1, lengths[by_length[start]]))
        yield by_length[start : start + size]
        start += size


def even_budget(total: int, most: int, ways: int) -> int:
    """The tokens of a batch, at most `most`, by which so many in all make as many batches for each of the ways, as far as the
    length of the texts allows: a batch ends with a whole one.
    """
    rounds = -(-total // (most * ways))
    return -(-total // max(1, rounds * ways))


def filled_width(longest: int, most: int) -> int:
    """How many tokens the texts of a batch are filled up to: few widths, so that a graph has soon met them all. To prepare for
    a new one takes OpenVINO some ten milliseconds, as long as a chunk, and a few tokens more take less than one.
    """
    return max(longest, min(-(-longest // WIDTH_STEP) * WIDTH_STEP, most))
