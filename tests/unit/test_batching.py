"""Texts are tokenised in parts, so that the memory of a large document does not depend on its length."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from livedex.encoders.batching import TEXTS_PER_PART, count_tokens, even_budget, filled_width, token_ids


class Encoding:
    """What a tokenizer makes of a text: a token a letter."""

    def __init__(self, text: str) -> None:
        self.ids = [ord(letter) for letter in text]


class Tokenizer:
    """One that knows how many of its encodings were alive at most."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[Encoding] = weakref.WeakSet()
        self.most = 0

    def encode_batch_fast(self, texts: Sequence[str]) -> list[Encoding]:
        """See tokenizers.Tokenizer."""
        made = [Encoding(text) for text in texts]
        self._alive.update(made)
        self.most = max(self.most, len(self._alive))
        return made


@pytest.mark.parametrize("function", [count_tokens, token_ids])
def test_few_encodings_are_alive_at_a_time(function: Callable[[Any, Sequence[str]], list[Any]]) -> None:
    """However many texts there are."""
    tokenizer = Tokenizer()
    assert len(function(tokenizer, ["text"] * (10 * TEXTS_PER_PART + 1))) == 10 * TEXTS_PER_PART + 1
    assert tokenizer.most <= TEXTS_PER_PART + 1, "those of a part, and the last of the one before"


def test_tokens_come_in_the_order_of_the_texts() -> None:
    """Across parts, and of no text nothing."""
    texts = [chr(97 + number % 26) * (1 + number % 5) for number in range(2 * TEXTS_PER_PART + 3)]
    assert [row.tolist() for row in token_ids(Tokenizer(), texts)] == [[ord(letter) for letter in text] for text in texts]
    assert count_tokens(Tokenizer(), texts) == [len(text) for text in texts]
    assert token_ids(Tokenizer(), []) == []


def test_texts_are_filled_up_to_few_widths() -> None:
    """Each width holds the texts, within what the model reads, and a graph meets few of them."""
    most = 250
    widths = {longest: filled_width(longest, most) for longest in range(1, most + 1)}
    assert all(longest <= width <= most for longest, width in widths.items())
    assert all(width - longest < 16 for longest, width in widths.items())
    assert len(set(widths.values())) == 16


@pytest.mark.parametrize("ways", [1, 2, 3, 16])
def test_each_way_gets_as_many_batches(ways: int) -> None:
    """Of no more tokens than a batch may have, and no more batches than that takes."""
    most = 1000
    for total in range(1, 100 * most, 77):
        budget = even_budget(total, most, ways)
        assert 1 <= budget <= most
        number = -(-total // budget)
        assert number <= ways or -(-number // ways) == -(-total // (most * ways))
    assert even_budget(2 * most, most, ways=2) == most
    assert even_budget(2 * most + 2, most, ways=2) == most // 2 + 1
