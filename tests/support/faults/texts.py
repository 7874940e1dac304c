"""Texts that say in every paragraph which document and which writing of it they are, and how many paragraphs there are.

So each chunk tells what it belongs to, and whatever a reader sees can be judged without knowing more.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

_WORDS = ["offset", "fence", "état", "索引", "🙂", "vector", "commit", "log", "chunk", "the", "a", "of", "naïve", "replay"]
_STAMP = re.compile(r"\[(?P<name>[^\[\]#]+)#(?P<serial>\d+) (?P<number>\d+)/(?P<count>\d+)\]")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a paragraph says of itself."""

    name: str
    serial: int  # of the writing, unique in a load
    number: int  # of the paragraph, from 1
    count: int  # of paragraphs


def write(name: str, serial: int, choose: random.Random, *, most: int = 12) -> tuple[str, str]:
    """A title and a text of none to `most` paragraphs, each shorter than a chunk, so that chunks begin with a paragraph."""
    count = choose.randrange(0 if choose.random() < 0.05 else 1, most + 1)
    paragraphs = (
        f"[{name}#{serial} {number}/{count}] {' '.join(choose.choices(_WORDS, k=choose.randrange(5, 25)))}."
        for number in range(1, count + 1)
    )
    return f"[{name}#{serial} 0/{count}]", "\n\n".join(paragraphs)


def stamps(text: str) -> list[Stamp]:
    """The stamps in a text, in order."""
    return [Stamp(m["name"], int(m["serial"]), int(m["number"]), int(m["count"])) for m in _STAMP.finditer(text)]


def torn(name: str, title: str | None, chunks: Iterable[str]) -> str | None:
    """What is wrong with a document in one snapshot, its chunks in order; None when it is one whole writing."""
    found = [stamps(part) for part in (title or "", *chunks)]
    if not all(found):
        return f"{name}: the title or a chunk has no stamp: {found}"
    every = [stamp for part in found for stamp in part]
    if len({(stamp.name, stamp.serial, stamp.count) for stamp in every}) != 1 or every[0].name != name:
        return f"{name}: title and chunks are of {sorted({f'{stamp.name}#{stamp.serial}' for stamp in every})}"
    if [stamp.number for stamp in every] != list(range(every[0].count + 1)):
        return f"{name}: paragraphs {[stamp.number for stamp in every]} of {every[0].count}"
    return None
