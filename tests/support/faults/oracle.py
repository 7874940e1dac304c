"""What the index must hold, computed from the log alone and apart from livedex: a pure fold, and the hash encoder's vectors.

Deleted documents are part of the answer, as tombstones: without them a late event would bring a document back.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from livedex.core.record import Record
from support.faults.poison import MARK

Version = tuple[int, int, int]  # epoch, number, offset


@dataclass(slots=True)
class Folded:
    """A document's two parts with their versions."""

    content_version: Version | None = None
    metadata_version: Version | None = None
    text: str | None = None  # None: deleted, or never there
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A good record."""

    record: Record
    name: str
    op: str
    version: Version
    event: Mapping[str, Any]


def is_poison(record: Record) -> bool:
    """Whether the generator made it to be a dead letter."""
    return any(name == MARK for name, _ in record.headers)


def parse(record: Record, *, numbered_by: str, epoch: int = 0) -> Parsed:
    """Read a good record; what is wrong with it is a mistake of the harness."""
    event = {"op": "delete"} if record.value is None else json.loads(record.value)
    name = event.get("id") or (record.key or b"").decode()
    number = record.offset
    if numbered_by == "source":
        headers = {key: value or b"" for key, value in record.headers}
        number = int(event["version"] if record.value is not None else headers["livedex-version"])
    return Parsed(record, name, event.get("op", "upsert"), (epoch, number, record.offset), event)


def good(
    records: Iterable[Record],
    *,
    numbered_by: str,
    upto: Mapping[tuple[str, int], int] | None = None,
    without: frozenset[tuple[str, int, int]] = frozenset(),
) -> list[Parsed]:
    """The records that count: no poison, none of those places, and before `upto` of their partition when that is given."""
    return [
        parse(record, numbered_by=numbered_by)
        for record in records
        if not is_poison(record)
        and (record.topic, record.partition, record.offset) not in without
        and (upto is None or record.offset < upto.get((record.topic, record.partition), 0))
    ]  # fmt: skip


def fold(parsed: Iterable[Parsed]) -> dict[str, Folded]:
    """Every document that an event named, deleted ones too."""
    documents: dict[str, Folded] = {}
    for one in parsed:
        _take(documents.setdefault(one.name, Folded()), one)
    return documents


def _take(document: Folded, one: Parsed) -> None:
    if one.op != "metadata" and (document.content_version is None or one.version > document.content_version):
        document.content_version = one.version
        document.text = one.event["text"] if one.op == "upsert" else None
        document.title = one.event.get("title") if one.op == "upsert" else None
    if document.metadata_version is None or one.version > document.metadata_version:
        document.metadata_version = one.version
        document.metadata = {} if one.op == "delete" else dict(one.event.get("metadata", {}))


def vector(context: str, text: str, dimension: int = 384) -> np.ndarray[Any, np.dtype[np.float16]]:
    """What the hash encoder makes of a chunk, as half precision holds it."""
    read = f"{context}\n\n{text}" if context else text
    raw = np.frombuffer(hashlib.shake_128(read.encode()).digest(dimension), np.int8).astype(np.float32) + np.float32(0.5)
    return (raw / np.linalg.norm(raw)).astype(np.float16)
