"""The whole index in one snapshot: progress, documents with their versions, texts from chunks, vectors, dead letters."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from support.faults.oracle import Folded, vector

Connection = psycopg.Connection[tuple[Any, ...]]


Place = tuple[str, int, int]


@dataclass(slots=True)
class Snapshot:
    """What one transaction saw."""

    progress: dict[tuple[str, int], int] = field(default_factory=dict)
    documents: dict[str, Folded] = field(default_factory=dict)
    visible: set[str] = field(default_factory=set)  # in the view
    faults: list[str] = field(default_factory=list)  # what contradicts itself, whatever the log says
    dead_letters: dict[Place, tuple[Any, ...]] = field(default_factory=dict)  # key, value, headers, reason, state, attempts

    @property
    def left_out(self) -> frozenset[Place]:
        """Records that the index does without: dead letters that were not replayed."""
        return frozenset(place for place, letter in self.dead_letters.items() if letter[4] != "replayed")


def take(url: str, *, vectors: bool = True) -> Snapshot:
    """Read it all in one REPEATABLE READ transaction."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = Snapshot()
        rows = connection.execute("select topic, partition, next_offset from livedex.source_progress")
        found.progress = {(topic, partition): offset for topic, partition, offset in rows}
        _read_documents(connection, found)
        _read_texts(connection, found)
        if vectors:
            _check_vectors(connection, found)
        letters = connection.execute(
            'select topic, partition, "offset", key, value, headers, reason, state, attempts from livedex.dead_letter'
        )
        found.dead_letters = {(row[0], row[1], row[2]): tuple(row[3:]) for row in letters}
        return found


def _read_documents(connection: Connection, found: Snapshot) -> None:
    rows = connection.execute(
        "select document_id, content_version, metadata_version, deleted, title, metadata from livedex.document"
    )
    for name, content, metadata, deleted, title, about in rows:
        found.documents[name] = Folded(
            content_version=content and (content[0], content[1], content[2]),
            metadata_version=metadata and (metadata[0], metadata[1], metadata[2]),
            text=None if deleted else "",
            title=title,
            metadata=about,
        )
    found.visible = {row[0] for row in connection.execute("select document_id from livedex.documents")}


def _read_texts(connection: Connection, found: Snapshot) -> None:
    """Put texts together from the chunks that readers see; ordinals and characters must have no gaps."""
    parts: dict[str, list[str]] = defaultdict(list)
    ends: dict[str, int] = defaultdict(int)
    rows = connection.execute(
        "select document_id, ordinal, text, start_char, end_char from livedex.chunks order by document_id, ordinal"
    )
    for name, ordinal, text, start, end in rows:
        if ordinal != len(parts[name]) or (start, end) != (ends[name], ends[name] + len(text)):
            found.faults.append(f"{name} has a gap before chunk {ordinal}, which is at {start}..{end}")
        parts[name].append(text)
        ends[name] = end
    for name, pieces in parts.items():
        if name in found.visible:
            found.documents[name].text = "".join(pieces)
        else:
            found.faults.append(f"{name} has chunks and is not visible")


def _check_vectors(connection: Connection, found: Snapshot) -> None:
    """Every mapped chunk has the vector that its text and context make, and the title as its context."""
    row = connection.execute(
        "select active_generation, dimension from livedex.collection"
        "  join livedex.generation on generation_id = active_generation where name = 'default'"
    ).fetchone()
    assert row is not None, "there is no collection default"
    statement = sql.SQL(
        "select d.document_id, m.ordinal, d.title, k.context, k.text, e.embedding::text"
        "  from livedex.document d join livedex.document_chunk m using (doc_key) join livedex.chunk k using (chunk_key)"
        "  left join livedex.{} e using (chunk_key) where not d.deleted"
    ).format(sql.Identifier(f"embedding_{row[0]}"))
    for name, ordinal, title, context, text, embedding in connection.execute(statement):
        if context != (title or ""):
            found.faults.append(f"{name} chunk {ordinal} was embedded with another title than the document has")
        if embedding is None:
            found.faults.append(f"{name} chunk {ordinal} has no vector")
        elif not np.allclose(json.loads(embedding), vector(context, text, row[1]), rtol=2e-3, atol=0):  # a last bit of a half
            found.faults.append(f"{name} chunk {ordinal} has the vector of another text")
