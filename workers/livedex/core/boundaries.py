r"""Where to cut a text: the best boundary in a window, chosen by content.

Contract: `best_cut` is given a window by `chunking` and returns the position at which the next chunk should start.
Candidates come in classes, and a class is looked at only where all better ones have nothing to offer: starts of
headings, starts of paragraphs, ends of sentences, the edge of a block that would be torn, ends of lines, ends of
words, any character. Within a class the smallest hash of the 64 characters before the cut wins,
so a boundary depends on the text around it and on nothing else: not on its position, the document or the machine.

No cut falls inside `\r\n` or between a base character and its marks.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from unicodedata import ucd_3_2_0

from livedex.core.outline import Outline

#: Characters before a cut, with runs of whitespace counted as one, that decide about it.
_REACH = 64

#: Characters before a cut between two characters that decide about it.
_SHORT_REACH = 8

_CLOSERS = r"""["'”’»)\]}*_`]*+"""
# A period after a digit numbers a list item more often than it ends a sentence.
_SENTENCE = rf"(?:(?<![0-9])\.|[!?…؟۔।॥։።]){_CLOSERS}\s++|[。！？｡．][”’」』）】》]*+\s*+"
_PLAIN_SENTENCE = re.compile(_SENTENCE)
_MARKDOWN_SENTENCE = re.compile(rf"{_SENTENCE}|\n(?=[ \t>]*+(?:[-*+]|[0-9]{{1,9}}[.)])[ \t])")
_LINE_ENDS = re.compile(r"\n(?:[^\S\n]*+\n)*+")
_WORD_END = re.compile(r"\s++")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where a cut may fall: `low` to `high`, both included, in the piece of text from `start` to `end`."""

    start: int
    low: int
    high: int
    end: int
    #: Characters: the longest block that a chunk can hold. So as not to tear such a block, the cut may leave
    #: `low` to `high`, but not the piece.
    longest_block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundaries:
    """The boundaries of one text."""

    text: str
    outline: Outline
    markdown: bool

    def best_cut(self, window: Window) -> int | None:
        """Return the best position in `window`, or None where a single character with its marks fills it."""
        for candidates in self._classes(window):
            legal = [position for position in candidates if not _joined(self.text, position)]
            if legal:
                return min(legal, key=self._key) if len(legal) > 1 else legal[0]
        return min(_characters(self.text, window), key=self._short_key, default=None)

    def _classes(self, window: Window) -> Iterator[Sequence[int]]:
        yield _between(self.outline.headings, window.low, window.high)
        yield _between(self.outline.paragraphs, window.low, window.high)
        sentence = _MARKDOWN_SENTENCE if self.markdown else _PLAIN_SENTENCE
        yield self._outside_blocks(self._ends(sentence, window))
        yield self._block_edges(window)
        yield self._ends(_LINE_ENDS, window)
        yield self._ends(_WORD_END, window)

    def _ends(self, pattern: re.Pattern[str], window: Window) -> list[int]:
        matches = pattern.finditer(self.text, window.start, window.high)
        return [end for match in matches if (end := match.end()) >= window.low]

    def _outside_blocks(self, positions: Sequence[int]) -> list[int]:
        return [position for position in positions if self.outline.block_around(position) is None]

    def _block_edges(self, window: Window) -> list[int]:
        """Return where to cut so that the block around the window's end stays whole, if a chunk can hold it."""
        block = self.outline.block_around(window.high)
        if block is None or block[1] - block[0] > window.longest_block:
            return []
        # Not at the block's own edges: a heading goes with its block, and blank lines with what they follow.
        before = self._starts(window.start + 1, block[0])[-1:]
        return before or self._starts(block[1], window.end - 1)[:1]

    def _starts(self, low: int, high: int) -> list[int]:
        return sorted((*_between(self.outline.headings, low, high), *_between(self.outline.paragraphs, low, high)))

    def _key(self, position: int) -> tuple[bytes, int]:
        # Of equal candidates (repeated text) the last, so that such a text makes few chunks.
        before = " ".join(self.text[max(0, position - 2 * _REACH) : position].split())[-_REACH:]
        return blake2b(before.encode(), digest_size=8).digest(), -position

    def _short_key(self, position: int) -> tuple[str, int]:
        # Here every character is a candidate, so their order takes the place of a hash, at a tenth of the cost.
        return self.text[max(0, position - _SHORT_REACH) : position], -position


def _between(positions: Sequence[int], low: int, high: int) -> Sequence[int]:
    return positions[bisect_left(positions, low) : bisect_right(positions, high)]


def _characters(text: str, window: Window) -> Sequence[int]:
    """Return the positions in `window` between two characters as people see them."""
    piece = text[window.start : window.high + 1]
    if piece.isascii() and "\r" not in piece:
        return range(window.low, window.high + 1)
    positions = []
    flag_halves = 0  # regional indicators just before the position; two make a flag
    for position in range(window.start + 1, window.high + 1):
        flag_halves = flag_halves + 1 if _is_flag_half(text[position - 1]) else 0
        if flag_halves % 2 and _is_flag_half(text[position]):
            continue
        if position >= window.low and not _joined(text, position):
            positions.append(position)
    return positions


def _joined(text: str, position: int) -> bool:
    """Whether a cut at `position` would tear a line ending or a character with its marks."""
    before, after = text[position - 1], text[position]
    return (before == "\r" and after == "\n") or before == "\u200d" or (after > "\u02ff" and _extends(after))


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


@lru_cache(maxsize=4096)
def _extends(character: str) -> bool:
    """Whether `character` continues the one before it: a mark, a joiner, a variation selector, a skin tone, a tag."""
    # Unicode 3.2 is frozen in the standard library, so that every Python version cuts alike;
    # what came later and matters is named here.
    return (
        ucd_3_2_0.category(character) in {"Mn", "Mc", "Me"}
        or character in {"\u200c", "\u200d"}
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or "\u1160" <= character <= "\u11ff"  # second and third parts of a Hangul syllable
    )
