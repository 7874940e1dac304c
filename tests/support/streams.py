"""Change streams: a real one where it is at hand, and a seeded generator that needs nothing."""

import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard

RUST_BOOK = Path(__file__).parents[3] / "shared" / "data" / "rust-book-events.jsonl.zst"


def rust_book() -> list[dict[str, Any]]:
    """The history of a book's chapters as change events, in order; skips the test where the file is not at hand."""
    if not RUST_BOOK.is_file():
        pytest.skip(f"the stream {RUST_BOOK.name} is not on this machine")
    with RUST_BOOK.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as raw:
        return [_event(json.loads(line)) for line in io.TextIOWrapper(raw, encoding="utf-8")]


def _event(line: dict[str, Any]) -> dict[str, Any]:
    event = {
        "op": line["op"], "id": line["id"], "version": line["version"], "metadata": {"commit": line["commit"]},
        "time": datetime.fromtimestamp(line["ts"], UTC).isoformat(),
    }  # fmt: skip
    return {**event, "text": line["content"]} if line["op"] == "upsert" else event


class Generator:
    """Documents that are written, edited, moved, deleted, described, repeated and told late, the same for the same seed."""

    def __init__(self, seed: int, documents: int = 40) -> None:
        self._random = random.Random(seed)
        self._names = [f"doc/{number}" for number in range(documents)]
        self._versions = dict.fromkeys(self._names, 0)
        self._paragraphs: dict[str, list[str]] = {}
        self._sent: list[dict[str, Any]] = []

    def events(self, count: int) -> Iterator[dict[str, Any]]:
        """Change events with rising versions, of which some come again and some come late."""
        late: list[dict[str, Any]] = []
        for _ in range(count):
            if self._sent and self._random.random() < 0.1:
                yield self._random.choice(self._sent)
                continue
            event = self._next()
            self._sent.append(event)
            if self._random.random() < 0.1:
                late.append(event)
                continue
            yield event
            if late and self._random.random() < 0.2:
                yield late.pop(0)
        yield from late

    def _next(self) -> dict[str, Any]:
        name = self._random.choice(self._names)
        self._versions[name] += 1
        event: dict[str, Any] = {"id": name, "version": self._versions[name]}
        kind = self._random.choices(["edit", "move", "delete", "metadata", "empty"], [60, 10, 10, 18, 2])[0]
        if kind == "delete":
            self._paragraphs.pop(name, None)
            return {**event, "op": "delete"}
        if kind == "metadata":
            return {**event, "op": "metadata", "metadata": {"rank": self._random.randrange(5)}}
        if kind == "empty":
            return {**event, "op": "upsert", "text": ""}
        paragraphs = self._paragraphs.setdefault(name, [self._paragraph() for _ in range(self._random.randrange(1, 30))])
        place = self._random.randrange(len(paragraphs))
        if kind == "move":
            paragraphs.insert(self._random.randrange(len(paragraphs)), paragraphs.pop(place))
        else:
            paragraphs[place] = self._paragraph()
        text = "\n\n".join(paragraphs)
        return {**event, "op": "upsert", "text": text, "title": name.upper(), "metadata": {"kind": kind}}

    def _paragraph(self) -> str:
        words = ["offset", "fence", "état", "索引", "🙂", "vector", "commit", "log", "chunk", "the", "a", "of", "naïve"]
        sentences = (
            " ".join(self._random.choices(words, k=self._random.randrange(3, 20))).capitalize() + "."
            for _ in range(self._random.randrange(1, 8))
        )
        heading = f"## {self._random.choice(words)}\n\n" if self._random.random() < 0.2 else ""
        return heading + " ".join(sentences)


def paragraphs(*, seed: int, count: int) -> list[str]:
    """Texts of one to about two hundred words, some with marks that Markdown knows."""
    choose = random.Random(seed)
    words = [
        "the",
        "index",
        "fold",
        "offset",
        "of",
        "and",
        "partition",
        "reads",
        "commit",
        "before",
        "chunk",
        "vector",
        "quick",
    ]
    return [
        f"{choose.choice(['', '# ', '- ', '> ', '`x` '])}{' '.join(choose.choices(words, k=choose.randrange(1, 200)))}."
        for _ in range(count)
    ]
