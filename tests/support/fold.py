"""The fold again, written apart from livedex: what the index must hold, from the records of a log."""

import json
from dataclasses import dataclass, field
from typing import Any

from livedex.core.record import Record


@dataclass
class Document:
    """A document's parts with the versions that made them."""

    content: tuple[int, int] | None = None  # (number, offset)
    about: tuple[int, int] | None = None
    text: str | None = None  # None: deleted, or never there
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def fold(records: list[Record], *, numbered_by: str) -> dict[str, Document]:
    """Visible documents by id; `numbered_by` is log or source. All records must be valid."""
    documents: dict[str, Document] = {}
    for record in records:
        event = {"op": "delete"} if record.value is None else json.loads(record.value)
        name = event.get("id") or (record.key or b"").decode()
        number = record.offset if numbered_by == "log" else _number(event, record)
        _take(documents.setdefault(name, Document()), event, (number, record.offset))
    return {name: document for name, document in documents.items() if document.text is not None}


def _number(event: dict[str, Any], record: Record) -> int:
    return int(event["version"]) if "version" in event else int(dict(record.headers)["livedex-version"] or b"")


def _take(document: Document, event: dict[str, Any], version: tuple[int, int]) -> None:
    kind = event.get("op", "upsert")
    if kind != "metadata" and (document.content is None or version > document.content):
        document.content = version
        document.text = event["text"] if kind == "upsert" else None
        document.title = event.get("title") if kind == "upsert" else None
    if document.about is None or version > document.about:
        document.about = version
        document.metadata = {} if kind == "delete" else event.get("metadata", {})
