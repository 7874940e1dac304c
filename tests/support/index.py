"""Reads the index through its views, and compares it with the fold of the log."""

from collections import defaultdict
from typing import Any

import psycopg

from support.fold import Document


def documents(connection: "psycopg.Connection[tuple[Any, ...]]") -> dict[str, tuple[Any, ...]]:
    """Title, metadata, version and offset of every visible document."""
    rows = connection.execute('select document_id, title, metadata, version, "offset" from livedex.documents').fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


def texts(connection: "psycopg.Connection[tuple[Any, ...]]") -> dict[str, str]:
    """The text of every document that has chunks, put together from them; ordinals and characters must be without gaps."""
    parts: dict[str, list[str]] = defaultdict(list)
    ends: dict[str, int] = defaultdict(int)
    rows = connection.execute(
        "select document_id, ordinal, text, start_char, end_char from livedex.chunks order by document_id, ordinal"
    )
    for name, ordinal, text, start, end in rows:
        assert ordinal == len(parts[name]), f"{name} has a gap before chunk {ordinal}"
        assert (start, end) == (ends[name], ends[name] + len(text)), f"{name} chunk {ordinal} is at {start}..{end}"
        parts[name].append(text)
        ends[name] = end
    return {name: "".join(pieces) for name, pieces in parts.items()}


def assert_is_fold(connection: "psycopg.Connection[tuple[Any, ...]]", expected: dict[str, Document]) -> None:
    """The index is exactly this."""
    found, found_texts = documents(connection), texts(connection)
    assert found.keys() == expected.keys()
    for name, document in expected.items():
        newest = max(part for part in (document.content, document.about) if part is not None)
        assert found[name] == (document.title, document.metadata, *newest), name
        assert found_texts.get(name, "") == document.text, name
    assert found_texts.keys() <= expected.keys()
