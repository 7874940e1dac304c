"""The events that every pipeline gets: the history of a book where it is at hand, else generated ones."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from support.streams import RUST_BOOK, Generator, rust_book

Event = dict[str, Any]
SNAPSHOT = 250  # events of the stream that are the book as it was first: every document once


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Documents as they are at first, and what changes then."""

    name: str
    share: float  # of the events that there are
    snapshot: list[Event]
    changes: list[Event]

    @property
    def all(self) -> list[Event]:
        """In their order."""
        return self.snapshot + self.changes

    @property
    def documents(self) -> dict[str, str]:
        """The texts after the snapshot, by document."""
        return {event["id"]: event["text"] for event in self.snapshot if event["op"] == "upsert"}

    @property
    def last(self) -> dict[str, str]:
        """The texts after all events, by document."""
        return texts_after(self.all)


def parts(events: Sequence[Event], number: int) -> list[Sequence[Event]]:
    """The events in so many parts of like size, in their order."""
    size = -(-len(events) // number)
    return [events[start : start + size] for start in range(0, len(events), size)]


def texts_after(events: Sequence[Event]) -> dict[str, str]:
    """The text that each document has after these events."""
    texts: dict[str, str] = {}
    for event in events:
        if event["op"] == "upsert":
            texts[event["id"]] = event["text"]
        elif event["op"] == "delete":
            texts.pop(event["id"], None)
    return texts


def load(share: float = 1.0) -> Events:
    """The first `share` of the snapshot and of the changes."""
    name, events = ("rust-book", rust_book()) if RUST_BOOK.is_file() else ("generated", _generated())
    snapshot, changes = events[:SNAPSHOT], events[SNAPSHOT:]
    return Events(
        name=name,
        share=share,
        snapshot=snapshot[: round(len(snapshot) * share)],
        changes=changes[: round(len(changes) * share)],
    )


def _generated() -> list[Event]:
    """Without metadata events, which only livedex knows."""
    made = Generator(7, SNAPSHOT).events(3 * SNAPSHOT + 2000)
    events = [event for event in made if event["op"] != "metadata"]
    first = list({event["id"]: event for event in reversed(events) if event["op"] == "upsert"}.values())[:SNAPSHOT]
    return first + [event for event in events if event not in first]


_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


def edited(text: str, choose: random.Random) -> str:
    """The text with one sentence put in behind another, somewhere."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text)] or [len(text)]
    place = choose.choice(ends)
    return f"{text[:place]}Edit {choose.randrange(10**9)} changes this sentence only. {text[place:]}"


def moved(text: str, choose: random.Random) -> str:
    """The text with one of its paragraphs at another place."""
    paragraphs = text.split("\n\n")
    paragraph = paragraphs.pop(choose.randrange(len(paragraphs)))
    paragraphs.insert(choose.randrange(len(paragraphs) + 1), paragraph)
    return "\n\n".join(paragraphs)
